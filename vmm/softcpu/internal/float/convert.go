package float

import "math/bits"

// FromInt converts a signed integer, exactly: a Num holds any.
func FromInt(v int64) Num {
	if v == 0 {
		return Num{}
	}
	u := uint64(v)
	if v < 0 {
		u = -u
	}
	z := bits.LeadingZeros64(u)
	return Num{Kind: KindFinite, Neg: v < 0, Exp: int32(63 - z), Frac: u << z}
}

// ToInt rounds n to a signed integer of width bits. What does not fit, and
// what is no number, gives the smallest integer and Invalid (the integer
// indefinite, SDM vol. 1, table 4-1).
func (e *Env) ToInt(n Num, width uint8) int64 {
	n = e.in(n)
	indefinite := int64(-1) << (width - 1)
	switch n.Kind {
	case KindZero:
		return 0
	case KindFinite:
	default:
		e.Flags |= Invalid
		return indefinite
	}
	if n.Exp > 63 {
		e.Flags |= Invalid
		return indefinite
	}
	v, inexact, up := e.integral(n)
	limit := uint64(1) << (width - 1)
	if v > limit || v == limit && !n.Neg || v == 0 && n.Exp == 63 {
		e.Flags |= Invalid
		return indefinite
	}
	if inexact {
		e.Flags |= Inexact
		e.Roundup = up
	}
	if n.Neg {
		return -int64(v)
	}
	return int64(v)
}

// integral rounds the magnitude of a finite n, Exp ≤ 63, to an integer. A
// carry out of 64 bits gives 0.
func (e *Env) integral(n Num) (v uint64, inexact, up bool) {
	if n.Exp == 63 {
		return n.Frac, false, false
	}
	drop := uint32(min(63-n.Exp, 70))
	keep, rest, sticky := split(n.Frac, 0, drop)
	if drop < 64 {
		v = keep >> drop
	}
	if rest == 0 && !sticky {
		return v, false, false
	}
	up = e.away(n.Neg, v&1 != 0, rest, sticky)
	if up {
		v++
	}
	return v, true, up
}

// RoundInt rounds n to an integer in its own format.
func (e *Env) RoundInt(n Num) Num {
	n = e.in(n)
	if r, done := e.nans(n, Num{}); done {
		return r
	}
	if n.Kind != KindFinite || n.Exp >= 63 {
		return n
	}
	v, inexact, up := e.integral(n)
	if n.Tiny {
		e.Flags |= Denormal
	}
	if inexact {
		e.Flags |= Inexact
		e.Roundup = up
	}
	r := FromInt(int64(v))
	if v>>63 != 0 {
		r = Num{Kind: KindFinite, Exp: 63, Frac: 1 << 63}
	}
	r.Neg = n.Neg
	return r
}

// Scale is n × 2^k rounded to f.
func (e *Env) Scale(n Num, k int64, f Format) Num {
	k = max(min(k, 1<<17), -1<<17)
	return e.Round(n.Neg, n.Exp+int32(k), n.Frac, 0, f)
}

// Rem is one step of x87's partial remainder: a - q×b for the quotient q of
// a/b, truncated, or rounded to nearest with ieee. If the exponents differ too
// much, it only reduces a and partial is true. q has the quotient's low bits.
func (e *Env) Rem(a, b Num, ieee bool) (r Num, q uint64, partial bool) {
	if n, done := e.nans(a, b); done {
		return n, 0, false
	}
	if a.Kind == KindInf || b.Kind == KindZero {
		return e.invalid(), 0, false
	}
	e.denormals(a, b)
	if a.Kind == KindZero || b.Kind == KindInf {
		return a, 0, false
	}
	d := a.Exp - b.Exp
	if d < -1 || d < 0 && !ieee {
		return a, 0, false
	}
	steps := d
	if d >= 64 {
		partial = true
		steps = 32 + d%32
	}
	rem, q := longDivide(a.Frac, b.Frac, steps)
	exp := a.Exp - max(steps, 0)
	neg := a.Neg
	if ieee && !partial {
		rem, q, exp, neg = nearestRem(rem, b.Frac, q, exp, d, neg)
	}
	if rem == 0 {
		return Num{Neg: a.Neg}, q, partial
	}
	z := bits.LeadingZeros64(rem)
	return Num{Kind: KindFinite, Neg: neg, Exp: exp - int32(z), Frac: rem << z}, q, partial
}

// longDivide divides a×2^steps by b bit by bit: both have bit 63 set, and what
// remains is below b.
func longDivide(a, b uint64, steps int32) (rem, q uint64) {
	if steps < 0 {
		return a, 0
	}
	carry := uint64(0)
	for i := int32(0); ; i++ {
		q <<= 1
		if carry != 0 || a >= b {
			a -= b
			q |= 1
		}
		if i == steps {
			return a, q
		}
		carry, a = a>>63, a<<1
	}
}

// nearestRem makes the truncated remainder the one of the nearest quotient.
func nearestRem(rem, b, q uint64, exp, d int32, neg bool) (uint64, uint64, int32, bool) {
	var more bool // 2·rem against b
	if d < 0 {    // a < b: rem is a, at half b's scale
		more = rem > b
		if !more {
			return rem, q, exp, neg
		}
		// b - a, with a half a place lower: 2b - a at a's scale.
		hi := b - (rem - b)
		return hi, q + 1, exp, !neg
	}
	twice := rem << 1
	more = rem>>63 != 0 || twice > b || twice == b && q&1 != 0
	if more {
		return b - rem, q + 1, exp, !neg
	}
	return rem, q, exp, neg
}
