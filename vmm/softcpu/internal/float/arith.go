package float

import "math/bits"

// Add is a + b.
func (e *Env) Add(a, b Num, f Format) Num {
	a, b = e.in(a), e.in(b)
	if r, done := e.nans(a, b); done {
		return r
	}
	if a.Kind == KindInf && b.Kind == KindInf && a.Neg != b.Neg {
		return e.invalid()
	}
	e.denormals(a, b)
	switch {
	case a.Kind == KindInf:
		return a
	case b.Kind == KindInf:
		return b
	case a.Kind == KindZero && b.Kind == KindZero:
		if a.Neg != b.Neg {
			a.Neg = e.Mode == Down
		}
		return a
	case a.Kind == KindZero:
		return e.Round(b.Neg, b.Exp, b.Frac, 0, f)
	case b.Kind == KindZero:
		return e.Round(a.Neg, a.Exp, a.Frac, 0, f)
	}
	if a.Exp < b.Exp || a.Exp == b.Exp && a.Frac < b.Frac {
		a, b = b, a
	}
	bhi, blo := shiftRight(b.Frac, 0, uint32(a.Exp-b.Exp))
	if a.Neg == b.Neg {
		return e.addMagnitudes(a, bhi, blo, f)
	}
	return e.subMagnitudes(a, bhi, blo, f)
}

func (e *Env) addMagnitudes(a Num, bhi, blo uint64, f Format) Num {
	hi, carry := bits.Add64(a.Frac, bhi, 0)
	if carry != 0 {
		lo := blo>>1 | blo&1 | hi<<63
		return e.Round(a.Neg, a.Exp+1, 1<<63|hi>>1, lo, f)
	}
	return e.Round(a.Neg, a.Exp, hi, blo, f)
}

func (e *Env) subMagnitudes(a Num, bhi, blo uint64, f Format) Num {
	lo, borrow := bits.Sub64(0, blo, 0)
	hi, _ := bits.Sub64(a.Frac, bhi, borrow)
	if hi == 0 && lo == 0 {
		return Num{Neg: e.Mode == Down}
	}
	return e.normalize(a.Neg, a.Exp, hi, lo, f)
}

func (e *Env) normalize(neg bool, exp int32, hi, lo uint64, f Format) Num {
	if hi == 0 {
		hi, lo, exp = lo, 0, exp-64
	}
	if z := uint32(bits.LeadingZeros64(hi)); z > 0 {
		hi, lo, exp = hi<<z|lo>>(64-z), lo<<z, exp-int32(z)
	}
	return e.Round(neg, exp, hi, lo, f)
}

// shiftRight shifts hi:lo right; what falls out stays as bit 0.
func shiftRight(hi, lo uint64, n uint32) (uint64, uint64) {
	switch {
	case n == 0:
		return hi, lo
	case n < 64:
		out := lo<<(64-n) != 0
		lo = lo>>n | hi<<(64-n)
		hi >>= n
		if out {
			lo |= 1
		}
		return hi, lo
	case n < 128:
		out := lo != 0 || n > 64 && hi<<(128-n) != 0
		lo = hi >> (n - 64)
		if out {
			lo |= 1
		}
		return 0, lo
	}
	if hi|lo != 0 {
		return 0, 1
	}
	return 0, 0
}

// Sub is a - b.
func (e *Env) Sub(a, b Num, f Format) Num {
	if b.Kind != KindNaN {
		b.Neg = !b.Neg
	}
	return e.Add(a, b, f)
}

// Mul is a × b.
func (e *Env) Mul(a, b Num, f Format) Num {
	a, b = e.in(a), e.in(b)
	if r, done := e.nans(a, b); done {
		return r
	}
	neg := a.Neg != b.Neg
	if a.Kind == KindInf && b.Kind == KindZero || a.Kind == KindZero && b.Kind == KindInf {
		return e.invalid()
	}
	e.denormals(a, b)
	switch {
	case a.Kind == KindInf || b.Kind == KindInf:
		return Num{Kind: KindInf, Neg: neg}
	case a.Kind == KindZero || b.Kind == KindZero:
		return Num{Neg: neg}
	}
	hi, lo := bits.Mul64(a.Frac, b.Frac)
	exp := a.Exp + b.Exp + 1
	if hi>>63 == 0 {
		hi, lo, exp = hi<<1|lo>>63, lo<<1, exp-1
	}
	return e.Round(neg, exp, hi, lo, f)
}

// Div is a / b.
func (e *Env) Div(a, b Num, f Format) Num {
	a, b = e.in(a), e.in(b)
	if r, done := e.nans(a, b); done {
		return r
	}
	neg := a.Neg != b.Neg
	if a.Kind == b.Kind && a.Kind != KindFinite {
		return e.invalid()
	}
	if b.Kind == KindZero && a.Kind == KindFinite {
		e.Flags |= DivByZero
		return Num{Kind: KindInf, Neg: neg}
	}
	e.denormals(a, b)
	switch {
	case a.Kind == KindInf || b.Kind == KindZero:
		return Num{Kind: KindInf, Neg: neg}
	case a.Kind == KindZero || b.Kind == KindInf:
		return Num{Neg: neg}
	}
	exp, ah, al := a.Exp-b.Exp, a.Frac, uint64(0)
	if ah >= b.Frac { // the quotient has to fit 64 bits
		ah, al = ah>>1, ah<<63
	} else {
		exp--
	}
	q, r := bits.Div64(ah, al, b.Frac)
	q2, r := bits.Div64(r, 0, b.Frac)
	if r != 0 {
		q2 |= 1
	}
	return e.normalize(neg, exp, q, q2, f)
}

// Sqrt is the square root of a.
func (e *Env) Sqrt(a Num, f Format) Num {
	a = e.in(a)
	if r, done := e.nans(a, Num{}); done {
		return r
	}
	if a.Kind == KindZero {
		return a
	}
	if a.Neg {
		return e.invalid()
	}
	if a.Kind == KindInf {
		return a
	}
	e.denormals(a, a)
	// The radicand as m × 2^(exp) with exp even and m in [1, 4).
	exp, hi, lo := a.Exp, a.Frac>>1, a.Frac<<63
	if exp&1 != 0 {
		hi, lo, exp = a.Frac, 0, exp-1
	}
	root, rem := sqrt128(hi, lo)
	// root has 64 bits; the next ones come from the remainder, and whether
	// they are exact is all that rounding needs beyond the first.
	extra := uint64(0)
	if rem.hi != 0 || rem.lo != 0 {
		extra = 1
		// The next bit is set if 4·rem > 4·root + 1, that is rem > root.
		if rem.hi != 0 || rem.lo > root {
			extra |= 1 << 63
		}
	}
	return e.Round(false, exp/2, root, extra, f)
}

type wide struct{ hi, lo uint64 }

// sqrt128 is the integer square root of hi:lo, which has its top bit in one of
// the two highest places, and the remainder.
func sqrt128(hi, lo uint64) (root uint64, rem wide) {
	var r wide
	for i := range 64 {
		// Bring down two bits.
		shift := uint(62 - 2*(i%32))
		var two uint64
		if i < 32 {
			two = hi >> shift & 3
		} else {
			two = lo >> shift & 3
		}
		r = wide{r.hi<<2 | r.lo>>62, r.lo<<2 | two}
		t := wide{root >> 62, root<<2 | 1}
		root <<= 1
		if r.hi > t.hi || r.hi == t.hi && r.lo >= t.lo {
			var b uint64
			r.lo, b = bits.Sub64(r.lo, t.lo, 0)
			r.hi, _ = bits.Sub64(r.hi, t.hi, b)
			root |= 1
		}
	}
	return root, r
}

// Order is the result of a comparison.
type Order int8

// Results of Compare.
const (
	Less      Order = -1
	Equal     Order = 0
	Greater   Order = 1
	Unordered Order = 2
)

// Compare compares. A quiet NaN raises Invalid only with signal; a signaling
// one always does.
func (e *Env) Compare(a, b Num, signal bool) Order {
	a, b = e.in(a), e.in(b)
	if a.Kind >= KindNaN || b.Kind >= KindNaN {
		if signal || a.Signaling() || b.Signaling() || a.Kind == KindInvalid || b.Kind == KindInvalid {
			e.Flags |= Invalid
		}
		return Unordered
	}
	e.denormals(a, b)
	return order(a, b)
}

func order(a, b Num) Order {
	if a.Kind == KindZero && b.Kind == KindZero {
		return Equal
	}
	if a.Kind == KindZero {
		return sign(!b.Neg)
	}
	if b.Kind == KindZero {
		return sign(a.Neg)
	}
	if a.Neg != b.Neg {
		return sign(a.Neg)
	}
	if a == (Num{Kind: b.Kind, Neg: a.Neg, Tiny: a.Tiny, Exp: b.Exp, Frac: b.Frac}) {
		return Equal
	}
	return sign(below(a, b) != a.Neg)
}

// below compares magnitudes of finite numbers and infinities.
func below(a, b Num) bool {
	switch {
	case a.Kind != b.Kind:
		return b.Kind == KindInf
	case a.Exp != b.Exp:
		return a.Exp < b.Exp
	}
	return a.Frac < b.Frac
}

func sign(less bool) Order {
	if less {
		return Less
	}
	return Greater
}
