package float

import (
	"math/big"
	"sync"
)

// Transcendental functions of the x87. They are computed with 64 bits more
// than the result has and rounded once, which is closer than the manual asks
// for (SDM vol. 1, 8.3.10).

const transPrecision = 192

func newBig() *big.Float { return new(big.Float).SetPrec(transPrecision) }

func bigInt(v int64) *big.Float { return newBig().SetInt64(v) }

func (n Num) big() *big.Float {
	f := newBig().SetUint64(n.Frac)
	f.SetMantExp(f, int(n.Exp)-63)
	if n.Kind == KindZero {
		f = newBig()
	}
	if n.Neg {
		f.Neg(f)
	}
	return f
}

// fromBig rounds x, which stands for an irrational number near it.
func (e *Env) fromBig(x *big.Float, zeroNeg bool) Num {
	if x.Sign() == 0 {
		return Num{Neg: zeroNeg}
	}
	m := newBig()
	exp := x.MantExp(m) // m in [1/2, 1)
	m.Abs(m)
	m.SetMantExp(m, 128)
	i, _ := m.Int(nil)
	var w [2]uint64
	lo := new(big.Int).And(i, new(big.Int).SetUint64(^uint64(0)))
	w[1] = lo.Uint64()
	w[0] = new(big.Int).Rsh(i, 64).Uint64()
	return e.Round(x.Signbit(), int32(exp-1), w[0], w[1]|1, Extended)
}

// pi by Machin's formula.
var bigPi = sync.OnceValue(func() *big.Float {
	a := atanInverse(5)
	a.Mul(a, bigInt(16))
	b := atanInverse(239)
	b.Mul(b, bigInt(4))
	return a.Sub(a, b)
})

// ln2 = 2 atanh(1/3).
var bigLn2 = sync.OnceValue(func() *big.Float {
	return atanhSeries(newBig().Quo(bigInt(1), bigInt(3)))
})

// atanInverse is atan(1/k).
func atanInverse(k int64) *big.Float {
	return atanSeries(newBig().Quo(bigInt(1), bigInt(k)))
}

const tinyExp = -transPrecision - 2

// oddSeries is the sum of (±1)^i x^(2i+1)/(2i+1).
func oddSeries(x *big.Float, alternate bool) *big.Float {
	sum, power := newBig().Set(x), newBig().Set(x)
	square := newBig().Mul(x, x)
	if alternate {
		square.Neg(square)
	}
	first := x.MantExp(nil)
	for k := int64(3); ; k += 2 {
		power.Mul(power, square)
		if power.Sign() == 0 || power.MantExp(nil) < first+tinyExp {
			return sum
		}
		sum.Add(sum, newBig().Quo(power, bigInt(k)))
	}
}

func atanSeries(x *big.Float) *big.Float { return oddSeries(x, true) }

// atanhSeries is 2 atanh(x) = ln((1+x)/(1-x)).
func atanhSeries(x *big.Float) *big.Float {
	s := oddSeries(x, false)
	return s.Add(s, s)
}

// SinCos is the sine and cosine of a finite or zero x, |x| < 2^63.
func (e *Env) SinCos(x Num) (sin, cos Num) {
	if x.Kind == KindZero {
		return x, FromInt(1)
	}
	if x.Tiny {
		e.Flags |= Denormal
	}
	// Processors reduce by a pi of 66 bits; so do programs expect.
	pi := newBig().Set(bigPi())
	pi.SetPrec(66).SetPrec(transPrecision)
	half := newBig().Quo(pi, bigInt(2))
	r := x.big()
	q := newBig().Quo(r, half)
	n := nearest(q)
	r.Sub(r, newBig().Mul(half, newBig().SetInt(n)))
	s, c := sinSeries(r), cosSeries(r)
	quadrant := new(big.Int).And(n, big.NewInt(3)).Int64()
	switch quadrant {
	case 1:
		s, c = c, s.Neg(s)
	case 2:
		s, c = s.Neg(s), c.Neg(c)
	case 3:
		s, c = c.Neg(c), s
	}
	return e.fromBig(s, x.Neg), e.fromBig(c, false)
}

// nearest rounds to an integer.
func nearest(x *big.Float) *big.Int {
	h := newBig().Quo(bigInt(1), bigInt(2))
	if x.Sign() < 0 {
		h.Neg(h)
	}
	i, _ := h.Add(h, x).Int(nil)
	return i
}

func sinSeries(x *big.Float) *big.Float { return factorialSeries(x, newBig().Set(x), 2) }
func cosSeries(x *big.Float) *big.Float { return factorialSeries(x, bigInt(1), 1) }

// factorialSeries sums term × (-x²)^i / (k(k+1)…).
func factorialSeries(x, term *big.Float, k int64) *big.Float {
	sum := newBig().Set(term)
	square := newBig().Mul(x, x)
	square.Neg(square)
	for ; ; k += 2 {
		term = newBig().Mul(term, square)
		term.Quo(term, bigInt(k*(k+1)))
		if term.Sign() == 0 || term.MantExp(nil) < sum.MantExp(nil)+tinyExp {
			return sum
		}
		sum.Add(sum, term)
	}
}

// Exp2m1 is 2^x - 1, for x from -1 to 1; beyond, the x87's result is undefined
// and this one is still right.
func (e *Env) Exp2m1(x Num) Num {
	if r, done := e.nans(x, Num{}); done {
		return r
	}
	switch {
	case x.Kind == KindZero:
		return x
	case x.Kind == KindInf && x.Neg:
		return Num{Kind: KindFinite, Neg: true, Frac: 1 << 63}
	case x.Kind == KindInf, x.Exp > 14:
		return x
	}
	e.denormals(x, x)
	y := newBig().Mul(x.big(), bigLn2())
	n := nearest(x.big()).Int64()
	y.Sub(y, newBig().Mul(bigInt(n), bigLn2()))
	// e^y - 1, then scaled by 2^n.
	term, sum := newBig().Set(y), newBig().Set(y)
	for k := int64(2); y.Sign() != 0; k++ {
		term = newBig().Mul(term, y)
		term.Quo(term, bigInt(k))
		if term.Sign() == 0 || term.MantExp(nil) < sum.MantExp(nil)+tinyExp {
			break
		}
		sum.Add(sum, term)
	}
	if n != 0 {
		sum.Add(sum, bigInt(1))
		sum.SetMantExp(sum, int(n))
		sum.Sub(sum, bigInt(1))
	}
	return e.exactly(sum, x)
}

// exactly rounds a result that may be exact for integers x.
func (e *Env) exactly(v *big.Float, x Num) Num {
	if x.Exp >= 0 && x.Frac<<(x.Exp+1) == 0 {
		i := nearest(v)
		if i.IsInt64() {
			if d := newBig().Sub(v, newBig().SetInt(i)); d.Sign() == 0 || d.MantExp(nil) < -150 {
				return FromInt(i.Int64())
			}
		}
	}
	return e.fromBig(v, x.Neg)
}

// YLog2 is y × log2(x), or y × log2(x+1) with plus1.
func (e *Env) YLog2(x, y Num, plus1 bool) Num {
	if r, done := e.nans(x, y); done {
		return r
	}
	arg := x.big()
	if x.Kind == KindInf {
		arg = bigInt(2)
	} else if plus1 {
		arg.Add(arg, bigInt(1))
	}
	if arg.Sign() < 0 || x.Kind == KindInf && x.Neg {
		return e.invalid()
	}
	e.denormals(x, y)
	if arg.Sign() == 0 {
		return e.logZero(y)
	}
	one := arg.Cmp(bigInt(1))
	neg := (one < 0) != y.Neg
	switch {
	case x.Kind == KindInf || y.Kind == KindInf:
		if y.Kind == KindZero || one == 0 {
			return e.invalid()
		}
		return Num{Kind: KindInf, Neg: neg}
	case one == 0 && plus1 && x.Kind != KindZero:
		// so small that x+1 is 1 even here: log2(1+x) = x/ln 2
		return e.fromBig(newBig().Mul(y.big(), newBig().Quo(x.big(), bigLn2())), false)
	case one == 0:
		return Num{Neg: y.Neg != (plus1 && x.Neg)}
	case y.Kind == KindZero:
		return Num{Neg: neg}
	}
	if k, exact := powerOfTwo(arg); exact {
		return e.Mul(FromInt(k), y, Extended)
	}
	return e.fromBig(newBig().Mul(y.big(), log2(arg)), false)
}

func (e *Env) logZero(y Num) Num {
	switch y.Kind {
	case KindZero:
		return e.invalid()
	case KindFinite:
		e.Flags |= DivByZero
	}
	return Num{Kind: KindInf, Neg: !y.Neg}
}

func powerOfTwo(x *big.Float) (int64, bool) {
	m := newBig()
	exp := x.MantExp(m)
	return int64(exp - 1), m.Cmp(newBig().Quo(bigInt(1), bigInt(2))) == 0
}

// log2 of a positive x: its exponent, and the logarithm of what is left, which
// lies between 0.7 and 1.4.
func log2(x *big.Float) *big.Float {
	m := newBig()
	exp := x.MantExp(m)
	if m.Cmp(newBig().SetFloat64(0.70710678)) < 0 {
		m.Add(m, m)
		exp--
	}
	t := newBig().Quo(newBig().Sub(m, bigInt(1)), newBig().Add(m, bigInt(1)))
	l := newBig()
	if t.Sign() != 0 {
		l = atanhSeries(t)
		l.Quo(l, bigLn2())
	}
	return l.Add(l, bigInt(int64(exp)))
}

// Atan2 is the angle of the point (x, y) (SDM vol. 2, FPATAN).
func (e *Env) Atan2(y, x Num) Num {
	if r, done := e.nans(x, y); done {
		return r
	}
	e.denormals(x, y)
	var angle *big.Float
	switch {
	case y.Kind == KindZero || x.Kind == KindInf && y.Kind != KindInf:
		if !x.Neg {
			return Num{Neg: y.Neg}
		}
		angle = newBig().Set(bigPi())
	case y.Kind == KindInf && x.Kind == KindInf:
		angle = newBig().Quo(bigPi(), bigInt(4))
		if x.Neg {
			angle.Mul(angle, bigInt(3))
		}
	case x.Kind == KindZero || y.Kind == KindInf:
		angle = newBig().Quo(bigPi(), bigInt(2))
	default:
		angle = atan(newBig().Quo(newBig().Abs(y.big()), newBig().Abs(x.big())))
		if x.Neg {
			angle = newBig().Sub(bigPi(), angle)
		}
	}
	if y.Neg {
		angle.Neg(angle)
	}
	return e.fromBig(angle, y.Neg)
}

// atan of a positive x, halving the angle until the series is short:
// atan(x) = 2 atan(x / (1 + sqrt(1 + x²))).
func atan(x *big.Float) *big.Float {
	inverse := x.Cmp(bigInt(1)) > 0
	if inverse {
		x = newBig().Quo(bigInt(1), x)
	}
	for range 3 {
		s := newBig().Sqrt(newBig().Add(bigInt(1), newBig().Mul(x, x)))
		x = newBig().Quo(x, s.Add(s, bigInt(1)))
	}
	r := atanSeries(x)
	r.Mul(r, bigInt(8))
	if inverse {
		r.Sub(newBig().Quo(bigPi(), bigInt(2)), r)
	}
	return r
}
