package softcpu

import (
	"math/bits"
)

// Moves and address arithmetic (SDM vol. 2: MOV, MOVZX, MOVSX, LEA, XCHG,
// CMOVcc, SETcc, BSWAP, MOVBE, XLAT, LAHF, SAHF).

func opMovEG(c *cpu, in *inst) bool { return c.writeRM(in, c.gpr(in.reg, in.size)) }

func opMovGE(c *cpu, in *inst) bool {
	v, ok := c.readRM(in)
	if ok {
		c.setGPR(in.reg, in.size, v)
	}
	return ok
}

func opMovEI(c *cpu, in *inst) bool { return c.writeRM(in, in.imm) }

// opMovAcc is MOV between the accumulator and an absolute address.
func opMovFromMoffs(c *cpu, in *inst) bool {
	v, ok := c.load(c.ea(in), in.size)
	if ok {
		c.setGPR(rAX, in.size, v)
	}
	return ok
}

func opMovToMoffs(c *cpu, in *inst) bool {
	return c.store(c.ea(in), in.size, c.gpr(rAX, in.size))
}

// opMovx is MOVZX, MOVSX and MOVSXD: op has the bytes of the source, and bit 4
// to extend the sign.
func opMovx(c *cpu, in *inst) bool {
	n := in.op & 15
	var v uint64
	switch {
	case in.mem:
		var ok bool
		if v, ok = c.load(c.ea(in), n); !ok {
			return false
		}
	case n == 1 && in.flags&flagREX == 0 && in.rm >= 4:
		v = c.regs[in.rm&3] >> 8 & 0xff
	default:
		v = c.gpr(in.rm, n)
	}
	if in.op&16 != 0 {
		v = signExtend(v, 64-8*n)
	}
	c.setGPR(in.reg, in.size, v)
	return true
}

func opLea(c *cpu, in *inst) bool {
	c.setGPR(in.reg, in.size, c.offset(in))
	return true
}

func opLea64(c *cpu, in *inst) bool {
	c.regs[in.reg&31] = c.regs[in.base&31] + c.regs[in.index&31]<<(in.scale&63) + in.disp
	return true
}

func specLea(in *inst) handler {
	if in.size == 8 && in.asize == 8 {
		return opLea64
	}
	return nil
}

func opXchg(c *cpu, in *inst) bool {
	v, ok := c.modifyRM(in)
	if !ok || !c.writeRM(in, c.gpr(in.reg, in.size)) {
		return false
	}
	c.setGPR(in.reg, in.size, v)
	return true
}

// opXchgAcc is XCHG rAX, r.
func opXchgAcc(c *cpu, in *inst) bool {
	a, b := c.gpr(rAX, in.size), c.gpr(in.rm, in.size)
	c.setGPR(rAX, in.size, b)
	c.setGPR(in.rm, in.size, a)
	return true
}

func opCmov(c *cpu, in *inst) bool {
	v, ok := c.readRM(in)
	if !ok {
		return false
	}
	switch {
	case c.cond(in.op):
		c.setGPR(in.reg, in.size, v)
	case in.size == 4: // the upper half is cleared even if nothing is moved
		c.setGPR(in.reg, 4, c.regs[in.reg&31])
	}
	return true
}

func opSetcc(c *cpu, in *inst) bool { return c.writeRM(in, bit(c.cond(in.op))) }

func opBswap(c *cpu, in *inst) bool {
	switch in.size {
	case 8:
		c.regs[in.rm&31] = bits.ReverseBytes64(c.regs[in.rm&31])
	case 4:
		c.regs[in.rm&31] = uint64(bits.ReverseBytes32(uint32(c.regs[in.rm&31])))
	default: // undefined; the processors clear it
		c.setGPR(in.rm, 2, 0)
	}
	return true
}

func swapBytes(v uint64, size uint8) uint64 { return bits.ReverseBytes64(v) >> (64 - 8*size) }

func opMovbeGM(c *cpu, in *inst) bool {
	v, ok := c.readRM(in)
	if ok {
		c.setGPR(in.reg, in.size, swapBytes(v, in.size))
	}
	return ok
}

func opMovbeMG(c *cpu, in *inst) bool {
	return c.writeRM(in, swapBytes(c.gpr(in.reg, in.size), in.size))
}

// opXlat is XLAT: its address is BX + AL, which the decoder has no form for.
func opXlat(c *cpu, in *inst) bool {
	off := (c.regs[rBX] + c.regs[rAX]&0xff) & in.amask
	a, ok := c.segAddr(in, off, 1, false)
	if !ok {
		return false
	}
	v, ok := c.load8(a)
	if ok {
		c.setGPR(rAX, 1, v)
	}
	return ok
}

// segAddr is the linear address of off in the segment of a string instruction
// or XLAT, checked where segments need it.
func (c *cpu) segAddr(in *inst, off uint64, n uint8, write bool) (uint64, bool) {
	return c.segmentAddr(int(in.seg)-rSeg, in.seg, off, n, write)
}

func (c *cpu) segmentAddr(n int, reg uint8, off uint64, size uint8, write bool) (uint64, bool) {
	if n >= 0 && n <= segGS && c.checked(reg) {
		check := inst{seg: reg, base: rZero, index: rZero, disp: off, amask: ^uint64(0), size: size, op: uint8(bit(write))}
		if !checkSegment(c, &check) {
			return 0, false
		}
	}
	return off + c.regs[reg&31], true
}

func opLahf(c *cpu, in *inst) bool {
	c.setGPR(rHigh, 1, c.rflags()&0xd5|2)
	return true
}

func opSahf(c *cpu, in *inst) bool {
	c.settleFlags()
	c.flags = c.flags&^0xd5 | c.regs[rAX]>>8&0xd5
	return true
}
