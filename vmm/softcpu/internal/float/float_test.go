package float

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// operands are doubles in which something can go wrong.
func operand(r *rand.Rand) float64 {
	special := []uint64{0, 1 << 63, 1, 0x7ff << 52, 0xfff << 52, 0x7ff8 << 48, 0x7ff0000000000001, 0xfff8000000000123,
		1 << 52, 1<<52 - 1, 0x3ff << 52, 0xbff << 52, 0x7fefffffffffffff, 0x3ff0000000000001, 0x36a0000000000000}
	switch r.IntN(4) {
	case 0:
		return math.Float64frombits(special[r.IntN(len(special))])
	case 1:
		return math.Float64frombits(r.Uint64()&^(0x7ff<<52) | (1023-60+r.Uint64N(120))<<52)
	case 2:
		return math.Float64frombits(r.Uint64()&^(1<<40-1)&^(0x7ff<<52) | (1023-5+r.Uint64N(10))<<52)
	}
	return math.Float64frombits(r.Uint64())
}

func same64(t *testing.T, op string, a, b, want float64, got Num) {
	t.Helper()
	w, g := math.Float64bits(want), got.Pack64()
	if want != want && math.Float64frombits(g) != math.Float64frombits(g) {
		return
	}
	if w != g {
		t.Fatalf("%s(%x, %x): got %x, want %x", op, math.Float64bits(a), math.Float64bits(b), g, w)
	}
}

func TestDoubleLikeHost(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 400_000 {
		a, b := operand(r), operand(r)
		x, y := From64(math.Float64bits(a)), From64(math.Float64bits(b))
		var e Env
		same64(t, "add", a, b, a+b, e.Add(x, y, Double))
		same64(t, "sub", a, b, a-b, e.Sub(x, y, Double))
		same64(t, "mul", a, b, a*b, e.Mul(x, y, Double))
		same64(t, "div", a, b, a/b, e.Div(x, y, Double))
		same64(t, "sqrt", a, b, math.Sqrt(a), e.Sqrt(x, Double))
		same64(t, "round", a, b, math.RoundToEven(a), e.RoundInt(x))
		if got, want := e.To(x, Single).Pack32(), math.Float32bits(float32(a)); got != want && a == a {
			t.Fatalf("single(%x): got %x, want %x", math.Float64bits(a), got, want)
		}
		if b != 0 && !math.IsInf(a, 0) && a == a && b == b && math.Abs(math.Log2(math.Abs(a/b))) < 60 {
			rem, _, _ := e.Rem(x, y, false)
			same64(t, "mod", a, b, math.Mod(a, b), rem)
			rem, _, _ = e.Rem(x, y, true)
			same64(t, "remainder", a, b, math.Remainder(a, b), rem)
		}
	}
}

func TestSingleLikeHost(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 400_000 {
		a, b := math.Float32frombits(r.Uint32()), math.Float32frombits(r.Uint32())
		if r.IntN(2) == 0 {
			b = math.Float32frombits(math.Float32bits(a) + r.Uint32N(1<<25) - 1<<24)
		}
		x, y := From32(math.Float32bits(a)), From32(math.Float32bits(b))
		var e Env
		for _, c := range []struct {
			op   string
			got  Num
			want float32
		}{
			{"add", e.Add(x, y, Single), a + b}, {"sub", e.Sub(x, y, Single), a - b},
			{"mul", e.Mul(x, y, Single), a * b}, {"div", e.Div(x, y, Single), a / b},
		} {
			if g, w := c.got.Pack32(), math.Float32bits(c.want); g != w && c.want == c.want {
				t.Fatalf("%s(%x, %x): got %x, want %x", c.op, math.Float32bits(a), math.Float32bits(b), g, w)
			}
		}
	}
}

// toBig is exact.
func toBig(n Num) *big.Float {
	f := new(big.Float).SetPrec(64).SetUint64(n.Frac)
	f.SetMantExp(f, int(n.Exp)-63)
	if n.Kind == KindZero {
		f = new(big.Float)
	}
	if n.Neg {
		f.Neg(f)
	}
	return f
}

func TestExtendedLikeBig(t *testing.T) {
	modes := map[Rounding]big.RoundingMode{Nearest: big.ToNearestEven, Down: big.ToNegativeInf, Up: big.ToPositiveInf, Zero: big.ToZero}
	r := rand.New(rand.NewPCG(5, 6))
	random := func() Num {
		f := r.Uint64() | 1<<63
		if r.IntN(3) == 0 {
			f &^= 1<<r.IntN(63) - 1
		}
		return Num{Kind: KindFinite, Neg: r.IntN(2) == 0, Exp: int32(r.IntN(140)) - 70, Frac: f}
	}
	for range 200_000 {
		a, b := random(), random()
		f := []Format{Extended, Extended53, Extended24}[r.IntN(3)]
		for mode, bm := range modes {
			z := func() *big.Float { return new(big.Float).SetPrec(uint(f.Precision)).SetMode(bm) }
			check := func(op string, got Num, e Env, want *big.Float) {
				t.Helper()
				if toBig(got).Cmp(want) != 0 || (e.Flags&Inexact != 0) != (want.Acc() != big.Exact) {
					t.Fatalf("%s(%v, %v) mode %d: got %v flags %x, want %v %v", op, a, b, mode, toBig(got), e.Flags, want, want.Acc())
				}
			}
			x, y := toBig(a), toBig(b)
			e := Env{Mode: mode}
			check("add", e.Add(a, b, f), e, z().Add(x, y))
			e = Env{Mode: mode}
			check("mul", e.Mul(a, b, f), e, z().Mul(x, y))
			e = Env{Mode: mode}
			check("div", e.Div(a, b, f), e, z().Quo(x, y))
			if !a.Neg && bm == big.ToNearestEven {
				e = Env{Mode: mode}
				got := e.Sqrt(a, f)
				want := new(big.Float).SetPrec(200).Sqrt(x)
				if toBig(got).Cmp(z().Set(want)) != 0 {
					t.Fatalf("sqrt(%v): got %v, want %v", a, toBig(got), want)
				}
			}
		}
	}
}

func TestToInt(t *testing.T) {
	for _, c := range []struct {
		v     float64
		width uint8
		mode  Rounding
		want  int64
		flags uint8
	}{
		{1.5, 32, Nearest, 2, Inexact}, {2.5, 32, Nearest, 2, Inexact}, {-2.5, 32, Down, -3, Inexact},
		{2147483647, 32, Nearest, 2147483647, 0}, {2147483648, 32, Nearest, math.MinInt32, Invalid},
		{-2147483648, 32, Nearest, math.MinInt32, 0}, {2147483647.5, 32, Zero, 2147483647, Inexact},
		{9.3e18, 64, Nearest, math.MinInt64, Invalid}, {-9223372036854775808, 64, Up, math.MinInt64, 0},
		{0.25, 64, Up, 1, Inexact}, {-0.25, 64, Up, 0, Inexact}, {math.NaN(), 32, Nearest, math.MinInt32, Invalid},
		{1e-300, 64, Down, 0, Inexact}, {-1e-300, 64, Down, -1, Inexact}, {32768, 16, Zero, math.MinInt16, Invalid},
	} {
		e := Env{Mode: c.mode}
		if got := e.ToInt(From64(math.Float64bits(c.v)), c.width); got != c.want || e.Flags != c.flags {
			t.Errorf("ToInt(%v, %d) mode %d: got %d flags %x, want %d %x", c.v, c.width, c.mode, got, e.Flags, c.want, c.flags)
		}
	}
}

func BenchmarkMul(b *testing.B) {
	x, y := From64(math.Float64bits(1.1)), From64(math.Float64bits(3.3))
	b.ReportAllocs()
	for range b.N {
		var e Env
		x = e.Mul(x, y, Double)
		x.Exp = 0
	}
}
