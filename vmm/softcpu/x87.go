package softcpu

import (
	"github.com/vitrine-vmm/vitrine/vmm/softcpu/internal/float"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// The x87 FPU: SDM vol. 1, chapter 8.

// ext is a double extended number as registers and memory have it.
type ext struct {
	se   uint16 // sign and exponent
	frac uint64
}

type fpu struct {
	reg    [8]ext // R0…R7; ST(i) is R(top+i)
	full   uint8  // a bit for each register that is not empty
	cw, sw uint16
	op     uint16 // last instruction, its address and its operand's
	ip, dp uint64
}

// Status word (8.1.3).
const (
	swSF  = 1 << 6 // stack fault
	swES  = 1 << 7
	swC0  = 1 << 8
	swC1  = 1 << 9
	swC2  = 1 << 10
	swC3  = 1 << 14
	swB   = 1 << 15
	swTop = 7 << 11
	cwNew = 0x37f
)

var extDefaultNaN = ext{0xffff, 3 << 62}

func (f *fpu) reset() { f.cw, f.sw, f.full, f.op, f.ip, f.dp = cwNew, 0, 0, 0, 0, 0 }

func (f *fpu) top() uint8 { return uint8(f.sw >> 11 & 7) }

func (f *fpu) setTop(t uint8) { f.sw = f.sw&^swTop | uint16(t&7)<<11 }

// mmx is what every MMX instruction does to the x87's state.
func (f *fpu) mmx() {
	f.setTop(0)
	f.full = 0xff
}

// phys is the register that ST(i) is.
func (f *fpu) phys(i uint8) uint8 { return (f.top() + i) & 7 }

func (f *fpu) empty(i uint8) bool { return f.full>>f.phys(i)&1 == 0 }

func (f *fpu) st(i uint8) *ext { return &f.reg[f.phys(i)] }

func (f *fpu) set(i uint8, v ext) {
	*f.st(i) = v
	f.full |= 1 << f.phys(i)
}

func (f *fpu) free(i uint8) { f.full &^= 1 << f.phys(i) }

func (f *fpu) pop() {
	f.free(0)
	f.setTop(f.top() + 1)
}

func (x ext) num() float.Num { return float.From80(x.se, x.frac) }

func extOf(n float.Num) ext {
	se, frac := n.Pack80()
	return ext{se, frac}
}

// env is the environment of the control word.
func (f *fpu) env() float.Env {
	return float.Env{Mode: float.Rounding(f.cw >> 10 & 3), X87: true,
		UnderflowUnmasked: f.cw&float.Underflow == 0, OverflowUnmasked: f.cw&float.Overflow == 0}
}

// format is what precision control asks for.
func (f *fpu) format() float.Format {
	switch f.cw >> 8 & 3 {
	case 0:
		return float.Extended24
	case 2:
		return float.Extended53
	}
	return float.Extended
}

// except merges exception flags into the status word, C1 with them. It returns
// false if one is unmasked that keeps the result from being written: then the
// next instruction that waits raises #MF.
func (f *fpu) except(e *float.Env) bool {
	f.sw &^= swC1
	if e.Flags == 0 {
		return true
	}
	unmasked := e.Flags &^ uint8(f.cw) & 0x3f
	flags := e.Flags
	if unmasked&(float.Invalid|float.Denormal|float.DivByZero) != 0 {
		flags &= float.Invalid | float.Denormal | float.DivByZero
	}
	f.sw |= uint16(flags & 0x3f)
	if e.Roundup && flags&float.Inexact != 0 {
		f.sw |= swC1
	}
	if unmasked != 0 {
		f.sw |= swES | swB
	}
	return unmasked&(float.Invalid|float.Denormal|float.DivByZero) == 0
}

// stackFault is an operand that is empty, or a push onto a register that is
// not. It says whether the masked response is to be given.
func (f *fpu) stackFault(overflow bool) bool {
	f.sw |= swSF | float.Invalid
	f.sw &^= swC1
	if overflow {
		f.sw |= swC1
	}
	if f.cw&float.Invalid == 0 {
		f.sw |= swES | swB
		return false
	}
	return true
}

// replace puts a into ST(0) and pushes b.
func (f *fpu) replace(a, b ext) {
	f.set(0, a)
	f.setTop(f.top() - 1)
	f.set(0, b)
}

// push puts v on the stack.
func (f *fpu) push(v ext) {
	if f.full>>f.phys(7)&1 != 0 {
		if f.stackFault(true) {
			f.setTop(f.top() - 1)
			f.set(0, extDefaultNaN)
		}
		return
	}
	f.sw &^= swC1
	f.setTop(f.top() - 1)
	f.set(0, v)
}

// needs checks that registers have values; if not, ok is false, and masked
// says that the default NaN is the result.
func (f *fpu) needs(regs ...uint8) (ok, masked bool) {
	for _, i := range regs {
		if f.empty(i) {
			return false, f.stackFault(false)
		}
	}
	return true, true
}

// opEscape is opcodes D8 to DF; op has the low three bits.
func opEscape(c *cpu, in *inst) bool {
	f := &c.fpu
	code := in.op<<3 | in.reg&7
	if !in.mem && in.op == 3 && in.reg&7 == 4 { // FNCLEX, FNINIT and old no-operations
		return c.fpuControl(in)
	}
	noWait := in.mem && (code == 1<<3|6 || code == 1<<3|7 || code == 5<<3|6 || code == 5<<3|7) ||
		!in.mem && in.op == 7 && in.reg&7 == 4
	if !noWait && f.sw&swES != 0 {
		return c.raise(vectorMF)
	}
	if in.mem {
		return c.fpuMemory(in, code)
	}
	f.note(c, in)
	return c.fpuRegister(in, code)
}

// note remembers where the last instruction and its operand were.
func (f *fpu) note(c *cpu, in *inst) {
	f.ip = c.ipAt(in.off)
	rm := uint16(0xc0)
	if in.mem {
		f.dp = c.offset(in)
		rm = 0
	}
	f.op = uint16(in.op)<<8 | rm | uint16(in.reg&7)<<3 | uint16(in.rm&7)
}

func opFwait(c *cpu, in *inst) bool {
	if c.cr0&(x86.CR0MP|x86.CR0TS) == x86.CR0MP|x86.CR0TS {
		return c.raise(vectorNM)
	}
	if c.fpu.sw&swES != 0 {
		return c.raise(vectorMF)
	}
	return true
}

// fpuControl is DB E0 to E4.
func (c *cpu) fpuControl(in *inst) bool {
	switch in.rm & 7 {
	case 2:
		c.fpu.sw &^= swES | swB | swSF | 0x3f
	case 3:
		c.fpu.reset()
	case 0, 1, 4: // FENI, FDISI, FSETPM of the 8087 and 80287
	default:
		return c.raise(vectorUD)
	}
	return true
}

// load80 reads a double extended operand.
func (c *cpu) load80(a uint64) (x ext, ok bool) {
	if x.frac, ok = c.load64(a); !ok {
		return x, false
	}
	v, ok := c.load16(a + 8)
	x.se = uint16(v)
	return x, ok
}

func (c *cpu) store80(a uint64, x ext) bool {
	if a&pageMask > pageSize-10 && !c.probe(a, 10, accWrite) {
		return false
	}
	return c.store64(a, x.frac) && c.store16(a+8, uint64(x.se))
}

// fpuMemory is the forms with a memory operand.
func (c *cpu) fpuMemory(in *inst, code uint8) bool {
	a := c.ea(in)
	switch in.op {
	case 0, 2, 4, 6:
		return c.fpuArithM(in, a)
	}
	switch code {
	case 1<<3 | 4, 1<<3 | 6, 5<<3 | 4, 5<<3 | 6:
		return c.fpuEnvironment(in, code, a)
	case 1<<3 | 5: // FLDCW
		v, ok := c.load16(a)
		if ok {
			c.fpu.setCW(uint16(v))
		}
		return ok
	case 1<<3 | 7: // FNSTCW
		return c.store16(a, uint64(c.fpu.cw))
	case 5<<3 | 7: // FNSTSW
		return c.store16(a, uint64(c.fpu.sw))
	}
	ok := true
	switch in.reg & 7 {
	case 0, 4, 5:
		ok = c.fpuLoad(in, code, a)
	default:
		ok = c.fpuStore(in, code, a)
	}
	if ok {
		c.fpu.note(c, in)
	}
	return ok
}

// setCW loads the control word; exceptions that are pending and no longer
// masked are reported by the next instruction.
func (f *fpu) setCW(v uint16) {
	f.cw = v&0x1f7f | 0x40
	f.sw &^= swES | swB
	if f.sw&^f.cw&0x3f != 0 {
		f.sw |= swES | swB
	}
}

// fpuLoad is FLD, FILD and FBLD.
func (c *cpu) fpuLoad(in *inst, code uint8, a uint64) bool {
	f := &c.fpu
	e := f.env()
	var x ext
	var v uint64
	ok := true
	switch code {
	case 1 << 3:
		v, ok = c.load32(a)
		x = extOf(e.To(float.From32(uint32(v)), float.Extended))
	case 5 << 3:
		v, ok = c.load64(a)
		x = extOf(e.To(float.From64(v), float.Extended))
	case 3<<3 | 5:
		x, ok = c.load80(a)
	case 3 << 3:
		v, ok = c.load32(a)
		x = extOf(float.FromInt(int64(int32(v))))
	case 7 << 3:
		v, ok = c.load16(a)
		x = extOf(float.FromInt(int64(int16(v))))
	case 7<<3 | 5:
		v, ok = c.load64(a)
		x = extOf(float.FromInt(int64(v)))
	case 7<<3 | 4:
		x, ok = c.loadBCD(a)
	default:
		return c.raise(vectorUD)
	}
	if !ok {
		return false
	}
	if f.full>>f.phys(7)&1 != 0 {
		f.push(x)
		return true
	}
	if f.except(&e) {
		f.push(x)
	}
	return true
}

// fpuStore is FST, FSTP, FIST, FISTP, FISTTP and FBSTP. ModRM.reg 1 truncates,
// 2 does not pop.
func (c *cpu) fpuStore(in *inst, code uint8, a uint64) bool {
	f := &c.fpu
	reg := in.reg & 7
	if code == 1<<3|1 || code == 3<<3|6 || code == 3<<3|4 || code == 5<<3|5 {
		return c.raise(vectorUD)
	}
	e := f.env()
	if reg == 1 {
		e.Mode = float.Zero
	}
	full, masked := !f.empty(0), f.cw&float.Invalid != 0
	x := extDefaultNaN
	if full {
		x = *f.st(0)
	}
	v, size := f.convert(&e, code, x)
	if !full && !masked || full && f.unmasked(&e) {
		// The memory is looked at although nothing will be stored.
		if !c.probe(a, uint64(size), accWrite) {
			return false
		}
		if full {
			f.except(&e)
		} else {
			f.stackFault(false)
		}
		return true
	}
	if !c.storeResult(code, a, x, v, size) {
		return false
	}
	if full {
		f.except(&e)
	} else {
		f.stackFault(false)
	}
	if reg != 2 {
		f.pop()
	}
	return true
}

// unmasked says whether an exception keeps a store from happening.
func (f *fpu) unmasked(e *float.Env) bool {
	const keeps = float.Invalid | float.Overflow | float.Underflow | float.Denormal
	return e.Flags&^uint8(f.cw)&keeps != 0
}

// convert makes what code stores of x: size 10 is x itself, or BCD.
func (f *fpu) convert(e *float.Env, code uint8, x ext) (v uint64, size uint8) {
	n := x.num()
	switch code {
	case 1<<3 | 2, 1<<3 | 3:
		v, size = uint64(e.To(n, float.Single).Pack32()), 4
	case 5<<3 | 2, 5<<3 | 3:
		v, size = e.To(n, float.Double).Pack64(), 8
	case 3<<3 | 7:
		return 0, 10
	case 7<<3 | 6:
		v, size = uint64(e.ToInt(n, 64)), 10
	case 3<<3 | 1, 3<<3 | 2, 3<<3 | 3:
		v, size = uint64(e.ToInt(n, 32)), 4
	case 7<<3 | 1, 7<<3 | 2, 7<<3 | 3:
		v, size = uint64(e.ToInt(n, 16)), 2
	default: // FISTTP m64, FISTP m64
		v, size = uint64(e.ToInt(n, 64)), 8
	}
	e.Flags &^= float.Denormal
	return v, size
}

func (c *cpu) storeResult(code uint8, a uint64, x ext, v uint64, size uint8) bool {
	switch {
	case size != 10:
		return c.store(a, size, v)
	case code == 3<<3|7:
		return c.store80(a, x)
	}
	return c.storeBCD(a, x.se>>15 != 0, int64(v))
}

// loadBCD reads 18 decimal digits and a sign (SDM vol. 1, 4.7).
func (c *cpu) loadBCD(a uint64) (ext, bool) {
	lo, ok := c.load64(a)
	if !ok {
		return ext{}, false
	}
	hi, ok := c.load16(a + 8)
	if !ok {
		return ext{}, false
	}
	v := int64(hi>>4&15)*10 + int64(hi&15)
	for i := 60; i >= 0; i -= 4 {
		v = v*10 + int64(lo>>i&15)
	}
	x := extOf(float.FromInt(v))
	x.se |= uint16(hi & 0x8000)
	return x, true
}

func (c *cpu) storeBCD(a uint64, neg bool, v int64) bool {
	const limit = 1e18
	lo, hi := uint64(0xc000000000000000), uint64(0xffff) // the BCD indefinite
	if v > -limit && v < limit {
		lo, hi = 0, 0
		if neg {
			v, hi = max(v, -v), 0x8000
		}
		for i := range 18 {
			d := uint64(v % 10)
			v /= 10
			if i < 16 {
				lo |= d << (4 * i)
			} else {
				hi |= d << (4 * (i - 16))
			}
		}
	}
	if !c.probe(a, 10, accWrite) {
		return false
	}
	return c.store64(a, lo) && c.store16(a+8, hi)
}
