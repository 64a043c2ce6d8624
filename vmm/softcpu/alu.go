package softcpu

import "github.com/vitrine-vmm/vitrine/vmm/x86"

// Two-operand arithmetic and logic, in the order of their opcodes (SDM vol. 2,
// ADD, OR, ADC, SBB, AND, SUB, XOR, CMP). The handlers here serve every form;
// hot.go has the common ones again, without the choices.

const (
	aluAdd = iota
	aluOr
	aluAdc
	aluSbb
	aluAnd
	aluSub
	aluXor
	aluCmp
)

// alu computes a op b, sets the flags and returns the result. sh is 64 less
// the operand size in bits.
func (c *cpu) alu(op uint8, a, b uint64, sh uint8) uint64 {
	a, b = signExtend(a, sh), signExtend(b, sh)
	switch op {
	case aluAdd:
		r := signExtend(a+b, sh)
		c.ccDst, c.ccA, c.ccB, c.ccKind = r, a, b, ccAdd
		return r
	case aluSub, aluCmp:
		r := signExtend(a-b, sh)
		c.ccDst, c.ccA, c.ccB, c.ccKind = r, a, b, ccSub
		return r
	case aluAdc:
		return c.adc(a, b, bit(c.cf()), sh)
	case aluSbb:
		return c.sbb(a, b, bit(c.cf()), sh)
	}
	r := a & b
	switch op {
	case aluOr:
		r = a | b
	case aluXor:
		r = a ^ b
	}
	c.ccDst, c.ccKind = r, ccLogic
	return r
}

// adc adds sign-extended a and b and a carry.
func (c *cpu) adc(a, b, carry uint64, sh uint8) uint64 {
	r := signExtend(a+b+carry, sh)
	out := a&b | (a|b)&^r // carries out of each bit
	over := (a ^ r) & (b ^ r)
	c.setRes(r, 0, out>>63|(a^b^r)&x86.FlagAF|over>>63<<11)
	return r
}

func (c *cpu) sbb(a, b, borrow uint64, sh uint8) uint64 {
	r := signExtend(a-b-borrow, sh)
	out := ^a&b | (^a|b)&r
	over := (a ^ b) & (a ^ r)
	c.setRes(r, 0, out>>63|(a^b^r)&x86.FlagAF|over>>63<<11)
	return r
}

// opAluEG is op r/m, r.
func opAluEG(c *cpu, in *inst) bool {
	return c.aluRM(in, c.gpr(in.reg, in.size))
}

// opAluEI is op r/m, imm.
func opAluEI(c *cpu, in *inst) bool { return c.aluRM(in, in.imm) }

func (c *cpu) aluRM(in *inst, b uint64) bool {
	if in.op == aluCmp {
		a, ok := c.readRM(in)
		if ok {
			c.alu(aluCmp, a, b, in.sh)
		}
		return ok
	}
	a, ok := c.modifyRM(in)
	if !ok {
		return false
	}
	if in.mem {
		return c.aluStore(in, a, b)
	}
	c.setGPR(in.rm, in.size, c.alu(in.op, a, b, in.sh))
	return true
}

// aluStore stores the result to memory before the flags change: the store can
// still become an exit.
func (c *cpu) aluStore(in *inst, a, b uint64) bool {
	old := c.saveCC()
	r := c.alu(in.op, a, b, in.sh)
	if !c.store(c.ea(in), in.size, r) {
		c.restoreCC(old)
		return false
	}
	return true
}

type savedCC struct {
	dst, a, b, flags uint64
	kind             uint8
}

func (c *cpu) saveCC() savedCC { return savedCC{c.ccDst, c.ccA, c.ccB, c.flags, c.ccKind} }

func (c *cpu) restoreCC(s savedCC) {
	c.ccDst, c.ccA, c.ccB, c.flags, c.ccKind = s.dst, s.a, s.b, s.flags, s.kind
}

// opAluGE is op r, r/m.
func opAluGE(c *cpu, in *inst) bool {
	b, ok := c.readRM(in)
	if !ok {
		return false
	}
	r := c.alu(in.op, c.gpr(in.reg, in.size), b, in.sh)
	if in.op != aluCmp {
		c.setGPR(in.reg, in.size, r)
	}
	return true
}

// opTest is TEST r/m, r.
func opTest(c *cpu, in *inst) bool {
	a, ok := c.readRM(in)
	if ok {
		c.setLogic(a&c.gpr(in.reg, in.size), in.sh)
	}
	return ok
}

// opTestI is TEST r/m, imm.
func opTestI(c *cpu, in *inst) bool {
	a, ok := c.readRM(in)
	if ok {
		c.setLogic(a&in.imm, in.sh)
	}
	return ok
}

// opIncDec is INC (op 0) and DEC (op 1) r/m: CF stays.
func opIncDec(c *cpu, in *inst) bool {
	a, ok := c.modifyRM(in)
	if !ok {
		return false
	}
	a = signExtend(a, in.sh)
	cf := bit(c.cf())
	var r, over uint64
	if in.op == 0 {
		r = signExtend(a+1, in.sh)
		over = (r &^ a) >> 63
	} else {
		r = signExtend(a-1, in.sh)
		over = (a &^ r) >> 63
	}
	if !c.writeRM(in, r) {
		return false
	}
	c.setRes(r, 0, cf|(a^r^1)&x86.FlagAF|over<<11)
	return true
}

func opNot(c *cpu, in *inst) bool {
	a, ok := c.modifyRM(in)
	return ok && c.writeRM(in, ^a)
}

func opNeg(c *cpu, in *inst) bool {
	a, ok := c.modifyRM(in)
	if !ok || !c.writeRM(in, -a) {
		return false
	}
	c.alu(aluSub, 0, a, in.sh)
	return true
}

// opMul is MUL: the double-width product of the accumulator and r/m.
func opMul(c *cpu, in *inst) bool {
	b, ok := c.readRM(in)
	if !ok {
		return false
	}
	a := c.gpr(rAX, in.size)
	hi, lo := mulWide(a, b)
	var over bool
	switch in.size {
	case 1:
		c.setGPR(rAX, 2, lo)
		over = lo>>8 != 0
	case 8:
		c.regs[rAX], c.regs[rDX] = lo, hi
		over = hi != 0
	default:
		c.setGPR(rAX, in.size, lo)
		hi = lo >> (8 * in.size)
		c.setGPR(rDX, in.size, hi)
		over = hi != 0
	}
	c.mulFlags(lo, in.sh, over)
	return true
}

// mulFlags: CF and OF say that the high half matters, the rest is undefined.
func (c *cpu) mulFlags(lo uint64, sh uint8, over bool) {
	c.setRes(lo, sh, bit(over)|bit(over)<<11)
}

// opIMul1 is IMUL with one operand.
func opIMul1(c *cpu, in *inst) bool {
	b, ok := c.readRM(in)
	if !ok {
		return false
	}
	a := signExtend(c.gpr(rAX, in.size), in.sh)
	b = signExtend(b, in.sh)
	hi, lo := imulWide(a, b)
	switch in.size {
	case 1:
		c.setGPR(rAX, 2, lo)
	case 8:
		c.regs[rAX], c.regs[rDX] = lo, hi
	default:
		c.setGPR(rAX, in.size, lo)
		c.setGPR(rDX, in.size, lo>>(8*in.size))
	}
	c.mulFlags(lo, in.sh, imulOver(hi, lo, in.sh))
	return true
}

// imulOver says whether the product does not fit its low half.
func imulOver(hi, lo uint64, sh uint8) bool {
	low := signExtend(lo, sh)
	return low != lo || hi != uint64(int64(low)>>63)
}

// opIMul2 is IMUL r, r/m.
func opIMul2(c *cpu, in *inst) bool {
	b, ok := c.readRM(in)
	if ok {
		c.imul(in, c.gpr(in.reg, in.size), b)
	}
	return ok
}

// opIMul3 is IMUL r, r/m, imm.
func opIMul3(c *cpu, in *inst) bool {
	b, ok := c.readRM(in)
	if ok {
		c.imul(in, b, in.imm)
	}
	return ok
}

func (c *cpu) imul(in *inst, a, b uint64) {
	hi, lo := imulWide(signExtend(a, in.sh), signExtend(b, in.sh))
	c.setGPR(in.reg, in.size, lo)
	c.mulFlags(lo, in.sh, imulOver(hi, lo, in.sh))
}

// opDiv is DIV; the flags are undefined and stay.
func opDiv(c *cpu, in *inst) bool {
	b, ok := c.readRM(in)
	if !ok {
		return false
	}
	if b == 0 {
		return c.raise(vectorDE)
	}
	if in.size == 8 {
		if c.regs[rDX] >= b {
			return c.raise(vectorDE)
		}
		c.regs[rAX], c.regs[rDX] = divWide(c.regs[rDX], c.regs[rAX], b)
		return true
	}
	a := c.dividend(in.size)
	q, r := a/b, a%b
	if q>>(8*in.size) != 0 {
		return c.raise(vectorDE)
	}
	c.setQuotient(in.size, q, r)
	return true
}

// dividend is AX, DX:AX or EDX:EAX.
func (c *cpu) dividend(size uint8) uint64 {
	switch size {
	case 1:
		return c.regs[rAX] & 0xffff
	case 2:
		return c.regs[rDX]&0xffff<<16 | c.regs[rAX]&0xffff
	}
	return c.regs[rDX]<<32 | c.regs[rAX]&0xffffffff
}

func (c *cpu) setQuotient(size uint8, q, r uint64) {
	if size == 1 {
		c.setGPR(rAX, 2, q&0xff|r&0xff<<8)
		return
	}
	c.setGPR(rAX, size, q)
	c.setGPR(rDX, size, r)
}

func opIDiv(c *cpu, in *inst) bool {
	b, ok := c.readRM(in)
	if !ok {
		return false
	}
	d := int64(signExtend(b, in.sh))
	if d == 0 {
		return c.raise(vectorDE)
	}
	if in.size == 8 {
		q, r, ok := idivWide(int64(c.regs[rDX]), c.regs[rAX], d)
		if !ok {
			return c.raise(vectorDE)
		}
		c.regs[rAX], c.regs[rDX] = uint64(q), uint64(r)
		return true
	}
	a := int64(signExtend(c.dividend(in.size), 64-16*in.size))
	if d == -1 && a == -1<<63 {
		return c.raise(vectorDE)
	}
	q, r := a/d, a%d
	if signExtend(uint64(q), in.sh) != uint64(q) {
		return c.raise(vectorDE)
	}
	c.setQuotient(in.size, uint64(q), uint64(r))
	return true
}

// opCbw is CBW, CWDE, CDQE; opCwd is CWD, CDQ, CQO.
func opCbw(c *cpu, in *inst) bool {
	half := in.size / 2
	c.setGPR(rAX, in.size, signExtend(c.regs[rAX], 64-8*half))
	return true
}

func opCwd(c *cpu, in *inst) bool {
	c.setGPR(rDX, in.size, uint64(int64(signExtend(c.regs[rAX], in.sh))>>63))
	return true
}
