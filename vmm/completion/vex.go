package completion

import (
	"math/bits"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// vex executes the VEX-coded integer instructions (BMI1 and BMI2; SDM vol. 2)
// and hands vector moves to sseMove.
func (e *Engine) vex() verdict {
	if e.s.CR0&x86.CR0PE == 0 || e.r.RFLAGS&x86.FlagVM != 0 {
		return e.ud()
	}
	in := &e.in
	switch {
	case in.table == map0F && in.op == 0x77:
		return e.vzero()
	case in.table == map0F:
		return e.sseMove()
	case in.table == map0F38 && in.op >= 0xf2 && in.op <= 0xf7, in.table == map0F3A && in.op == 0xf0:
		if in.long {
			return e.ud()
		}
		return e.bmi()
	}
	return unknown
}

func (e *Engine) bmi() verdict {
	in := &e.in
	size := in.size(e.mode)
	op := bmiOp(in)
	if op == OpNone {
		return unknown
	}
	e.op(op)
	src, v := e.source(size)
	if v != done {
		return v
	}
	second := e.reg(in.vvvv, size)
	switch op {
	case OpANDN:
		e.logic(in.reg, size, ^second&src)
	case OpBLSR:
		e.lowest(size, src, src&(src-1), src == 0)
	case OpBLSMSK:
		e.lowest(size, src, src^(src-1), src == 0)
	case OpBLSI:
		e.lowest(size, src, src&-src, src != 0)
	case OpBZHI:
		e.bzhi(size, src, uint8(second))
	case OpBEXTR:
		e.bextr(size, src, uint8(second), uint8(second>>8))
	case OpPDEP:
		e.setReg(in.reg, size, deposit(second, src))
	case OpPEXT:
		e.setReg(in.reg, size, extract(second, src))
	case OpMULX:
		e.mulx(size, src)
	case OpRORX:
		e.setReg(in.reg, size, rotateRight(src, in.imm, size))
	default:
		e.setReg(in.reg, size, shift(op, src, uint8(second), size))
	}
	return done
}

// bmiOp finds the operation by opcode and prefix.
func bmiOp(in *inst) Op {
	const none, p66, pF3, pF2 = 0, 1, 2, 3
	prefix := none
	switch {
	case in.opSize:
		prefix = p66
	case in.rep == 0xf3:
		prefix = pF3
	case in.rep == 0xf2:
		prefix = pF2
	}
	if in.table == map0F3A {
		if prefix == pF2 {
			return OpRORX
		}
		return OpNone
	}
	switch in.op {
	case 0xf2:
		return [4]Op{none: OpANDN}[prefix]
	case 0xf3:
		if prefix == none {
			return [8]Op{1: OpBLSR, 2: OpBLSMSK, 3: OpBLSI}[in.reg&7]
		}
	case 0xf5:
		return [4]Op{none: OpBZHI, pF3: OpPEXT, pF2: OpPDEP}[prefix]
	case 0xf6:
		return [4]Op{pF2: OpMULX}[prefix]
	case 0xf7:
		return [4]Op{none: OpBEXTR, p66: OpSHLX, pF3: OpSARX, pF2: OpSHRX}[prefix]
	}
	return OpNone
}

// zeroSign is ZF and SF of a result.
func zeroSign(v uint64, size int) uint64 {
	v &= sizeMask(size)
	return flagIf(x86.FlagZF, v == 0) | flagIf(x86.FlagSF, v>>(8*size-1) != 0)
}

// definedBMI are the flags that BMI instructions define; PF and AF are not.
const definedBMI = x86.FlagCF | x86.FlagZF | x86.FlagSF | x86.FlagOF

func (e *Engine) logic(reg uint8, size int, v uint64) {
	e.setReg(reg, size, v)
	e.setFlags(definedBMI, zeroSign(v, size))
}

// lowest is BLSR, BLSMSK and BLSI, whose destination is VEX.vvvv.
func (e *Engine) lowest(size int, src, v uint64, carry bool) {
	e.setReg(e.in.vvvv, size, v)
	e.setFlags(definedBMI, zeroSign(v, size)|flagIf(x86.FlagCF, carry))
}

func (e *Engine) bzhi(size int, src uint64, n uint8) {
	over := int(n) >= 8*size
	if !over {
		src &= 1<<n - 1
	}
	e.setReg(e.in.reg, size, src)
	e.setFlags(definedBMI, zeroSign(src, size)|flagIf(x86.FlagCF, over))
}

func (e *Engine) bextr(size int, src uint64, start, length uint8) {
	v := src >> start // Go: 0 for 64 and more
	if length < 64 {
		v &= 1<<length - 1
	}
	e.setReg(e.in.reg, size, v)
	// ZF is defined; CF and OF are cleared; SF is not defined.
	e.setFlags(x86.FlagCF|x86.FlagOF|x86.FlagZF, flagIf(x86.FlagZF, v&sizeMask(size) == 0))
}

// mulx multiplies by RDX: the low half goes to VEX.vvvv, then the high half to
// the first operand, which wins if they are the same register.
func (e *Engine) mulx(size int, src uint64) {
	y := e.reg(2, size)
	hi, lo := bits.Mul64(src, y)
	if size == 4 {
		hi = lo >> 32
	}
	e.setReg(e.in.vvvv, size, lo)
	e.setReg(e.in.reg, size, hi)
}

func rotateRight(x uint64, n uint8, size int) uint64 {
	if size == 4 {
		return uint64(bits.RotateLeft32(uint32(x), -int(n&31)))
	}
	return bits.RotateLeft64(x, -int(n&63))
}

// shift is SHLX, SHRX and SARX: no flags.
func shift(op Op, x uint64, n uint8, size int) uint64 {
	n &= uint8(8*size - 1)
	switch op {
	case OpSHLX:
		return x << n
	case OpSHRX:
		return x >> n
	}
	if size == 4 {
		return uint64(int32(x) >> n)
	}
	return uint64(int64(x) >> n)
}

// deposit scatters the low bits of x to the places of mask's bits.
func deposit(x, mask uint64) (v uint64) {
	for ; mask != 0; mask &= mask - 1 {
		if x&1 != 0 {
			v |= mask & -mask
		}
		x >>= 1
	}
	return v
}

// extract gathers the bits of x at the places of mask's bits.
func extract(x, mask uint64) (v uint64) {
	for n := 0; mask != 0; mask &= mask - 1 {
		if x&(mask&-mask) != 0 {
			v |= 1 << n
		}
		n++
	}
	return v
}
