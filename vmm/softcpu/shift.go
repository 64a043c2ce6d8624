package softcpu

// Shifts and rotates (SDM vol. 2, RCL/RCR/ROL/ROR, SAL/SAR/SHL/SHR, SHLD,
// SHRD), in the order of ModRM.reg. Where OF is undefined (counts above 1), it
// is what the processors that were compared compute: as for a count of 1 of
// the last step.

const (
	shRol = iota
	shRor
	shRcl
	shRcr
	shShl
	shShr
	shSal
	shSar
)

// Handlers by where the count comes from.
func opShift1(c *cpu, in *inst) bool   { return c.shift(in, 1) }
func opShiftCL(c *cpu, in *inst) bool  { return c.shift(in, uint8(c.regs[rCX])) }
func opShiftImm(c *cpu, in *inst) bool { return c.shift(in, uint8(in.imm)) }

func (c *cpu) shift(in *inst, n uint8) bool {
	n &= 31 | in.size&8<<2
	a, ok := c.modifyRM(in)
	if !ok {
		return false
	}
	if n == 0 {
		// Flags and memory stay, but a 32-bit register's upper half is
		// cleared.
		if !in.mem {
			c.setGPR(in.rm, in.size, a)
		}
		return true
	}
	old := c.saveCC()
	if !c.writeRM(in, c.shiftValue(in.op, a, n, 8*in.size)) {
		c.restoreCC(old)
		return false
	}
	return true
}

// shiftValue shifts the zero-extended a of w bits by n, 0 < n < 64, and sets
// the flags.
func (c *cpu) shiftValue(op uint8, a uint64, n, w uint8) uint64 {
	switch op {
	case shRol, shRor, shRcl, shRcr:
		return c.rotate(op, a, n, w)
	case shShr:
		return c.shr(a, n, w)
	case shSar:
		return c.sar(a, n, w)
	}
	return c.shl(a, n, w)
}

func (c *cpu) shl(a uint64, n, w uint8) uint64 {
	r := a << n
	var cf uint64
	if n <= w {
		cf = a >> (w - n) & 1
	}
	of := cf ^ r>>(w-1)&1
	c.setRes(r, 64-w, cf|of<<11)
	return r
}

func (c *cpu) shr(a uint64, n, w uint8) uint64 {
	r := a >> n
	cf := a >> (n - 1) & 1
	of := (r ^ r<<1) >> (w - 1) & 1 // for a count of 1, the operand's top bit
	c.setRes(r, 64-w, cf|of<<11)
	return r
}

func (c *cpu) sar(a uint64, n, w uint8) uint64 {
	s := int64(signExtend(a, 64-w))
	cf := uint64(s>>(n-1)) & 1
	r := uint64(s >> n)
	c.setRes(r, 64-w, cf)
	return r
}

// rotate changes only CF and OF.
func (c *cpu) rotate(op uint8, a uint64, n, w uint8) uint64 {
	carry := bit(c.cf())
	var r, cf, of uint64
	switch op {
	case shRol:
		n %= w
		r = zeroExtend(a<<n|a>>(w-n), 64-w)
		cf = r & 1
		of = cf ^ r>>(w-1)
	case shRor:
		n %= w
		r = zeroExtend(a>>n|a<<(w-n), 64-w)
		cf = r >> (w - 1) & 1
		of = cf ^ r>>(w-2)&1
	default:
		r, cf, of = rotateCarry(op, a, carry, n%(w+1), w)
	}
	c.setCarries(cf&1 | of&1<<11)
	return r
}

// rotateCarry rotates through the carry, bit by bit: rare, and w+1 bits do not
// fit a word.
func rotateCarry(op uint8, a, carry uint64, n, w uint8) (r, cf, of uint64) {
	for range n {
		if op == shRcl {
			out := a >> (w - 1) & 1
			a, carry = zeroExtend(a<<1|carry, 64-w), out
		} else {
			out := a & 1
			a, carry = a>>1|carry<<(w-1), out
		}
	}
	if op == shRcl {
		return a, carry, carry ^ a>>(w-1)&1
	}
	return a, carry, a>>(w-1)&1 ^ a>>(w-2)&1
}

func opShldImm(c *cpu, in *inst) bool { return c.shiftDouble(in, uint8(in.imm)) }
func opShldCL(c *cpu, in *inst) bool  { return c.shiftDouble(in, uint8(c.regs[rCX])) }

// shiftDouble is SHLD (op 0) and SHRD (op 1).
func (c *cpu) shiftDouble(in *inst, n uint8) bool {
	n &= 31 | in.size&8<<2
	a, ok := c.modifyRM(in)
	if !ok {
		return false
	}
	b := c.gpr(in.reg, in.size)
	if n == 0 {
		if !in.mem {
			c.setGPR(in.rm, in.size, a)
		}
		return true
	}
	r, cf := doubleShift(in.op, a, b, n, 8*in.size)
	if !c.writeRM(in, r) {
		return false
	}
	w := 8 * in.size
	of := (a ^ r) >> (w - 1) & 1
	c.setRes(r, in.sh, cf|of<<11)
	return true
}

// doubleShift shifts a by n and fills it from b. With 16-bit operands and a
// count above 16, which is undefined, the operands go on being shifted in.
func doubleShift(op uint8, a, b uint64, n, w uint8) (r, cf uint64) {
	if w == 16 && n > 16 {
		wide := a<<32 | b<<16 | a
		if op == 0 {
			return wide << n >> 32 & 0xffff, wide >> (48 - n) & 1
		}
		wide = a<<32 | b<<16 | a
		return wide >> n & 0xffff, wide >> (n - 1) & 1
	}
	if op == 0 {
		return zeroExtend(a<<n|b>>(w-n), 64-w), a >> (w - n) & 1
	}
	return zeroExtend(a>>n|b<<(w-n), 64-w), a >> (n - 1) & 1
}
