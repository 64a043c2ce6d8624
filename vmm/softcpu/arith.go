package softcpu

import "math/bits"

func mulWide(a, b uint64) (hi, lo uint64) { return bits.Mul64(a, b) }

// imulWide is the signed 128-bit product.
func imulWide(a, b uint64) (hi, lo uint64) {
	hi, lo = bits.Mul64(a, b)
	if int64(a) < 0 {
		hi -= b
	}
	if int64(b) < 0 {
		hi -= a
	}
	return hi, lo
}

func divWide(hi, lo, d uint64) (q, r uint64) { return bits.Div64(hi, lo, d) }

// idivWide divides hi:lo by d. ok is false if the quotient has no room.
func idivWide(hi int64, lo uint64, d int64) (q, r int64, ok bool) {
	neg := hi < 0
	uhi, ulo := uint64(hi), lo
	if neg {
		var borrow uint64
		ulo, borrow = bits.Sub64(0, ulo, 0)
		uhi, _ = bits.Sub64(0, uhi, borrow)
	}
	ud := uint64(d)
	if d < 0 {
		ud = -ud
	}
	if uhi >= ud {
		return 0, 0, false
	}
	uq, ur := bits.Div64(uhi, ulo, ud)
	limit := uint64(1<<63 - 1)
	if neg != (d < 0) {
		limit = 1 << 63
	}
	if uq > limit {
		return 0, 0, false
	}
	q, r = int64(uq), int64(ur)
	if neg != (d < 0) {
		q = -q
	}
	if neg {
		r = -r
	}
	return q, r, true
}
