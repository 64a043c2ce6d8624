package softcpu

import (
	"github.com/vitrine-vmm/vitrine/vmm/softcpu/internal/float"
)

// x87 arithmetic, comparisons and constants (SDM vol. 2, F*).

// The operations of ModRM.reg in D8, DA, DC and DE.
const (
	xAdd = iota
	xMul
	xCom
	xComp
	xSub
	xSubr
	xDiv
	xDivr
)

func (f *fpu) arith(e *float.Env, op uint8, a, b float.Num) float.Num {
	p := f.format()
	switch op {
	case xAdd:
		return e.Add(a, b, p)
	case xMul:
		return e.Mul(a, b, p)
	case xSub:
		return e.Sub(a, b, p)
	case xSubr:
		return e.Sub(b, a, p)
	case xDiv:
		return e.Div(a, b, p)
	}
	return e.Div(b, a, p)
}

// fpuArithM is op ST(0), memory: single, 32-bit integer, double, 16-bit
// integer.
func (c *cpu) fpuArithM(in *inst, a uint64) bool {
	f := &c.fpu
	var b float.Num
	var v uint64
	ok := true
	switch in.op {
	case 0:
		v, ok = c.load32(a)
		b = float.From32(uint32(v))
	case 2:
		v, ok = c.load32(a)
		b = float.FromInt(int64(int32(v)))
	case 4:
		v, ok = c.load64(a)
		b = float.From64(v)
	default:
		v, ok = c.load16(a)
		b = float.FromInt(int64(int16(v)))
	}
	if !ok {
		return false
	}
	f.note(c, in)
	op := in.reg & 7
	full, masked := f.needs(0)
	switch {
	case op == xCom || op == xComp:
		if f.compare(full, masked, b, true) && op == xComp {
			f.pop()
		}
	case full:
		e := f.env()
		r := f.arith(&e, op, f.st(0).num(), b)
		if f.except(&e) {
			f.set(0, extOf(r))
		}
	case masked:
		f.set(0, extDefaultNaN)
	}
	return true
}

// compare sets C3, C2 and C0 from comparing ST(0) with b. full and masked are
// of needs. It returns false if an unmasked exception came of it.
func (f *fpu) compare(full, masked bool, b float.Num, signal bool) bool {
	o := float.Unordered
	if full {
		e := f.env()
		o = e.Compare(f.st(0).num(), b, signal)
		if !f.except(&e) {
			return false
		}
	} else if !masked {
		return false
	}
	f.sw &^= swC0 | swC2 | swC3
	switch o {
	case float.Less:
		f.sw |= swC0
	case float.Equal:
		f.sw |= swC3
	case float.Unordered:
		f.sw |= swC0 | swC2 | swC3
	}
	return true
}

// fpuRegister is the forms with registers.
func (c *cpu) fpuRegister(in *inst, code uint8) bool {
	i := in.rm & 7
	switch in.op {
	case 0:
		return c.fpuArithR(in.reg&7, 0, i, false)
	case 1:
		return c.fpuD9(in, i)
	case 2, 3:
		return c.fpuCmov(in, i)
	case 4:
		return c.fpuArithR(in.reg&7, i, i, false)
	case 6:
		if in.reg&7 == xComp {
			return c.fpuCompp(i == 1, true)
		}
		return c.fpuArithR(in.reg&7, i, i, true)
	case 5:
		return c.fpuDD(in, i)
	}
	return c.fpuDF(in, i)
}

// fpuArithR is ST(dst) = ST(0) op ST(i), or a comparison.
func (c *cpu) fpuArithR(op, dst, i uint8, pop bool) bool {
	f := &c.fpu
	if op == xCom || op == xComp {
		return c.fpuCom(i, op == xComp || pop, true)
	}
	full, masked := f.needs(0, i)
	switch {
	case full:
		e := f.env()
		r := f.arith(&e, op, f.st(0).num(), f.st(i).num())
		if !f.except(&e) {
			return true
		}
		f.set(dst, extOf(r))
	case masked:
		f.set(dst, extDefaultNaN)
	default:
		return true
	}
	if pop {
		f.pop()
	}
	return true
}

func (c *cpu) fpuCom(i uint8, pop, signal bool) bool {
	f := &c.fpu
	full, masked := f.needs(0, i)
	if f.compare(full, masked, f.st(i).num(), signal) && pop {
		f.pop()
	}
	return true
}

// fpuCompp is FCOMPP and FUCOMPP.
func (c *cpu) fpuCompp(valid, signal bool) bool {
	if !valid {
		return c.raise(vectorUD)
	}
	c.fpuCom(1, false, signal)
	if c.fpu.sw&swES == 0 {
		c.fpu.pop()
		c.fpu.pop()
	}
	return true
}

// fpuCmov is DA and DB with registers: FCMOVcc, FUCOMPP, FUCOMI, FCOMI.
func (c *cpu) fpuCmov(in *inst, i uint8) bool {
	reg := in.reg & 7
	switch {
	case in.op == 2 && reg == 5 && i == 1:
		return c.fpuCompp(true, false)
	case in.op == 3 && (reg == 5 || reg == 6):
		return c.fpuComi(i, reg == 6, false)
	case reg > 3:
		return c.raise(vectorUD)
	}
	cond := [4]bool{c.cf(), c.zf(), c.cf() || c.zf(), c.pf()}[reg]
	f := &c.fpu
	full, masked := f.needs(0, i)
	switch {
	case !full && masked:
		f.set(0, extDefaultNaN)
	case full && cond == (in.op == 2):
		f.set(0, *f.st(i))
	}
	return true
}

// fpuComi is FCOMI and FUCOMI: the result goes to RFLAGS.
func (c *cpu) fpuComi(i uint8, signal, pop bool) bool {
	f := &c.fpu
	full, masked := f.needs(0, i)
	o := float.Unordered
	if full {
		e := f.env()
		o = e.Compare(f.st(0).num(), f.st(i).num(), signal)
		if !f.except(&e) {
			return true
		}
	} else if !masked {
		return true
	}
	c.setArith(orderFlags(o))
	if pop {
		f.pop()
	}
	return true
}

// fpuDD is FFREE, FST, FSTP, FUCOM, FUCOMP.
func (c *cpu) fpuDD(in *inst, i uint8) bool {
	f := &c.fpu
	switch in.reg & 7 {
	case 0:
		f.free(i)
	case 2, 3:
		full, masked := f.needs(0)
		if !full && !masked {
			return true
		}
		x := extDefaultNaN
		if full {
			x = *f.st(0)
			f.sw &^= swC1
		}
		f.set(i, x)
		if in.reg&7 == 3 {
			f.pop()
		}
	case 4:
		return c.fpuCom(i, false, false)
	case 5:
		return c.fpuCom(i, true, false)
	default:
		return c.raise(vectorUD)
	}
	return true
}

// fpuDF is FFREEP, FNSTSW AX, FUCOMIP, FCOMIP.
func (c *cpu) fpuDF(in *inst, i uint8) bool {
	switch {
	case in.reg&7 == 0:
		c.fpu.free(i)
		c.fpu.setTop(c.fpu.top() + 1)
	case in.reg&7 == 4 && i == 0:
		c.setGPR(rAX, 2, uint64(c.fpu.sw))
	case in.reg&7 == 5 || in.reg&7 == 6:
		return c.fpuComi(i, in.reg&7 == 6, true)
	default:
		return c.raise(vectorUD)
	}
	return true
}

// fpuD9 is FLD, FXCH, FNOP, and the instructions on ST(0).
func (c *cpu) fpuD9(in *inst, i uint8) bool {
	f := &c.fpu
	switch in.reg & 7 {
	case 0:
		if full, masked := f.needs(i); full {
			f.push(*f.st(i))
		} else if masked {
			f.setTop(f.top() - 1)
			f.set(0, extDefaultNaN)
		}
		return true
	case 1:
		return c.fpuXch(i)
	case 2:
		if i == 0 {
			return true
		}
	case 4:
		return c.fpuUnary(i)
	case 5:
		if i < 7 {
			f.push(constant(i, float.Rounding(f.cw>>10&3)))
			return true
		}
	case 6, 7:
		return c.fpuMath(in.reg&1<<3 | i)
	}
	return c.raise(vectorUD)
}

func (c *cpu) fpuXch(i uint8) bool {
	f := &c.fpu
	full, masked := f.needs(0, i)
	if !full && !masked {
		return true
	}
	if !full {
		for _, n := range []uint8{0, i} {
			if f.empty(n) {
				f.set(n, extDefaultNaN)
			}
		}
	} else {
		f.sw &^= swC1
	}
	a, b := *f.st(0), *f.st(i)
	f.set(0, b)
	f.set(i, a)
	return true
}

// fpuUnary is FCHS, FABS, FTST, FXAM.
func (c *cpu) fpuUnary(i uint8) bool {
	f := &c.fpu
	if i == 5 {
		f.examine()
		return true
	}
	full, masked := f.needs(0)
	switch i {
	case 0, 1:
		if !full && masked {
			f.set(0, extDefaultNaN)
			return true
		}
		if full {
			f.sw &^= swC1
			f.st(0).se &^= uint16(i) << 15
			f.st(0).se ^= uint16(1-i) << 15
		}
	case 4:
		f.compare(full, masked, float.Num{}, true)
	default:
		return c.raise(vectorUD)
	}
	return true
}

// examine is FXAM.
func (f *fpu) examine() {
	x := *f.st(0)
	f.sw &^= swC0 | swC1 | swC2 | swC3
	f.sw |= x.se >> 15 << 9
	n := x.num()
	switch {
	case f.empty(0):
		f.sw |= swC3 | swC0
	case n.Kind == float.KindNaN:
		f.sw |= swC0
	case n.Kind == float.KindInf:
		f.sw |= swC2 | swC0
	case n.Kind == float.KindZero:
		f.sw |= swC3
	case n.Tiny:
		f.sw |= swC3 | swC2
	case n.Kind == float.KindFinite:
		f.sw |= swC2
	}
}

// constants are FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ, rounded to
// nearest; up says which way that was, so that directed rounding can move.
var constants = [7]struct {
	x  ext
	up int // the rounded value is above (1), below (-1) or exact (0)
}{
	{ext{0x3fff, 0x8000000000000000}, 0},
	{ext{0x4000, 0xd49a784bcd1b8afe}, -1},
	{ext{0x3fff, 0xb8aa3b295c17f0bc}, 1},
	{ext{0x4000, 0xc90fdaa22168c235}, 1},
	{ext{0x3ffd, 0x9a209a84fbcff799}, 1},
	{ext{0x3ffe, 0xb17217f7d1cf79ac}, 1},
	{ext{}, 0},
}

func constant(i uint8, mode float.Rounding) ext {
	k := constants[i]
	switch {
	case k.up > 0 && (mode == float.Down || mode == float.Zero):
		k.x.frac--
	case k.up < 0 && mode == float.Up:
		k.x.frac++
	}
	return k.x
}

// Rows of D9 F0 to FF.
const (
	mF2xm1 = iota
	mFyl2x
	mFptan
	mFpatan
	mFxtract
	mFprem1
	mFdecstp
	mFincstp
	mFprem
	mFyl2xp1
	mFsqrt
	mFsincos
	mFrndint
	mFscale
	mFsin
	mFcos
)

func (c *cpu) fpuMath(k uint8) bool {
	f := &c.fpu
	switch k {
	case mFdecstp:
		f.setTop(f.top() - 1)
		f.sw &^= swC1
		return true
	case mFincstp:
		f.setTop(f.top() + 1)
		f.sw &^= swC1
		return true
	case mFprem, mFprem1, mFscale, mFyl2x, mFyl2xp1, mFpatan:
		return f.binaryMath(k)
	}
	full, masked := f.needs(0)
	if !full {
		if masked {
			f.set(0, extDefaultNaN)
			if k == mFptan || k == mFsincos || k == mFxtract {
				f.replace(extDefaultNaN, extDefaultNaN)
			}
		}
		return true
	}
	if (k == mFptan || k == mFsincos || k == mFxtract) && f.full>>f.phys(7)&1 != 0 {
		if f.stackFault(true) {
			f.replace(extDefaultNaN, extDefaultNaN)
		}
		return true
	}
	f.unaryMath(k)
	return true
}

func (f *fpu) unaryMath(k uint8) {
	e, x := f.env(), f.st(0).num()
	var r float.Num
	switch k {
	case mFsqrt:
		r = e.Sqrt(x, f.format())
	case mFrndint:
		r = e.RoundInt(x)
	case mF2xm1:
		r = e.Exp2m1(x)
	case mFxtract:
		f.extractParts(&e, x)
		return
	default:
		f.trigonometry(k, &e, x)
		return
	}
	if f.except(&e) {
		f.set(0, extOf(r))
	}
}

// extractParts is FXTRACT.
func (f *fpu) extractParts(e *float.Env, x float.Num) {
	exp, frac := x, x
	switch x.Kind {
	case float.KindZero:
		e.Flags |= float.DivByZero
		exp = float.Num{Kind: float.KindInf, Neg: true}
	case float.KindInf:
		exp = float.Num{Kind: float.KindInf}
	case float.KindFinite:
		if x.Tiny {
			e.Flags |= float.Denormal
		}
		exp = float.FromInt(int64(x.Exp))
		frac = float.Num{Kind: float.KindFinite, Neg: x.Neg, Frac: x.Frac}
	default:
		exp = e.To(x, float.Extended)
		frac = exp
	}
	if f.except(e) {
		f.replace(extOf(exp), extOf(frac))
	}
}

// trigonometry is FSIN, FCOS, FSINCOS, FPTAN: outside of ±2^63 they leave the
// operand and set C2.
func (f *fpu) trigonometry(k uint8, e *float.Env, x float.Num) {
	f.sw &^= swC2
	if x.Kind == float.KindFinite && x.Exp >= 63 {
		f.sw |= swC2
		f.sw &^= swC1
		return
	}
	if x.Kind != float.KindFinite && x.Kind != float.KindZero {
		r := e.To(x, float.Extended)
		if x.Kind == float.KindInf {
			e.Flags |= float.Invalid
			r = float.DefaultNaN
		}
		if f.except(e) {
			if k == mFsincos || k == mFptan {
				f.replace(extOf(r), extOf(r))
			} else {
				f.set(0, extOf(r))
			}
		}
		return
	}
	sin, cos := e.SinCos(x)
	if !f.except(e) {
		return
	}
	switch k {
	case mFsin:
		f.set(0, extOf(sin))
	case mFcos:
		f.set(0, extOf(cos))
	case mFsincos:
		f.replace(extOf(sin), extOf(cos))
	default:
		f.replace(extOf(e.Div(sin, cos, float.Extended)), extOf(float.FromInt(1)))
	}
}

// binaryMath is the instructions on ST(0) and ST(1).
func (f *fpu) binaryMath(k uint8) bool {
	pops := k == mFyl2x || k == mFyl2xp1 || k == mFpatan
	dst := uint8(0)
	if pops {
		dst = 1
	}
	full, masked := f.needs(0, 1)
	if !full {
		if k == mFprem || k == mFprem1 {
			f.sw &^= swC2
		}
		if masked {
			f.set(dst, extDefaultNaN)
			if pops {
				f.pop()
			}
		}
		return true
	}
	e, x, y := f.env(), f.st(0).num(), f.st(1).num()
	var r float.Num
	switch k {
	case mFprem, mFprem1:
		f.remainder(&e, x, y, k == mFprem1)
		return true
	case mFscale:
		r = f.scale(&e, x, y)
	case mFyl2x:
		r = e.YLog2(x, y, false)
	case mFyl2xp1:
		r = e.YLog2(x, y, true)
	default:
		r = e.Atan2(y, x)
	}
	if f.except(&e) {
		f.set(dst, extOf(r))
		if pops {
			f.pop()
		}
	}
	return true
}

// remainder is FPREM and FPREM1; C2 says that it is not finished, C0, C3 and
// C1 have the quotient's low bits.
func (f *fpu) remainder(e *float.Env, x, y float.Num, ieee bool) {
	r, q, partial := e.Rem(x, y, ieee)
	if !f.except(e) {
		return
	}
	f.set(0, extOf(r))
	f.sw &^= swC1 | swC2
	if e.Flags&float.Invalid != 0 || r.Kind == float.KindNaN {
		return // there is no quotient
	}
	f.sw &^= swC0 | swC3
	if partial {
		f.sw |= swC2
		return
	}
	f.sw |= uint16(q>>2&1)<<8 | uint16(q&1)<<9 | uint16(q>>1&1)<<14
}

// scale is FSCALE: ST(0) × 2^trunc(ST(1)).
func (f *fpu) scale(e *float.Env, x, y float.Num) float.Num {
	switch {
	case x.Kind >= float.KindNaN || y.Kind >= float.KindNaN:
		return e.Add(x, y, float.Extended)
	case x.Tiny || y.Tiny:
		e.Flags |= float.Denormal
	}
	switch {
	case y.Kind == float.KindInf:
		if x.Kind == float.KindInf && y.Neg || x.Kind == float.KindZero && !y.Neg {
			e.Flags |= float.Invalid
			return float.DefaultNaN
		}
		if y.Neg {
			return float.Num{Neg: x.Neg}
		}
		return float.Num{Kind: float.KindInf, Neg: x.Neg}
	case x.Kind != float.KindFinite:
		return x
	}
	if y.Kind == float.KindZero {
		return x
	}
	k := int64(1 << 20)
	if y.Exp < 20 {
		t := float.Env{Mode: float.Zero}
		k = t.ToInt(y, 64)
	} else if y.Neg {
		k = -k
	}
	return e.Scale(x, k, float.Extended)
}
