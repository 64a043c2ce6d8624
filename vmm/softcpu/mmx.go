package softcpu

import "github.com/vitrine-vmm/vitrine/vmm/softcpu/internal/float"

// MMX instructions: the packed integer operations of SSE on the 64-bit
// registers that are the x87 registers' significands (SDM vol. 1, chapter 9).

// mmxRead is the mm/m64 operand. Every MMX instruction empties the x87's
// top-of-stack and marks its registers as in use (9.5).
func (c *cpu) mmxRead(in *inst) (uint64, bool) {
	if in.mem {
		v, ok := c.load64(c.ea(in))
		if ok {
			c.fpu.mmx()
		}
		return v, ok
	}
	c.fpu.mmx()
	return c.fpu.reg[in.rm&7].frac, true
}

func (c *cpu) mmxPending() bool {
	if c.fpu.sw&swES != 0 {
		return !c.raise(vectorMF)
	}
	return false
}

func (c *cpu) mmxWrite(n uint8, v uint64) bool {
	c.fpu.reg[n&7] = ext{0xffff, v}
	return true
}

// opMmx applies a halfOp.
func opMmx(c *cpu, in *inst) bool {
	if c.mmxPending() {
		return false
	}
	b, ok := c.mmxRead(in)
	return ok && c.mmxWrite(in.reg, halfOps[in.op](c.fpu.reg[in.reg&7].frac, b))
}

// opMmxVec applies what would be a vecOp, on half the width.
func opMmxVec(c *cpu, in *inst) bool {
	if c.mmxPending() {
		return false
	}
	var b uint64
	var ok bool
	if in.mem && in.op <= vUnpackLD { // PUNPCKL takes mm/m32
		if b, ok = c.load32(c.ea(in)); ok {
			c.fpu.mmx()
		}
	} else {
		b, ok = c.mmxRead(in)
	}
	if !ok {
		return false
	}
	a := c.fpu.reg[in.reg&7].frac
	return c.mmxWrite(in.reg, mmxVec(in.op, a, b, uint8(in.imm)))
}

func mmxVec(op uint8, a, b uint64, imm uint8) uint64 {
	switch op {
	case vUnpackLB, vUnpackLW, vUnpackLD:
		return vecOps[op](vec{a}, vec{b}, 0)[0]
	case vUnpackHB, vUnpackHW, vUnpackHD:
		return vecOps[op-vUnpackHB+vUnpackLB](vec{a}, vec{b}, 0)[1]
	case vPackSSWB, vPackUSWB, vPackSSDW, vPhaddw, vPhaddsw, vPhsubw, vPhsubsw, vPhaddd, vPhsubd:
		return vecOps[op](vec{a, b}, vec{}, 0)[0]
	case vPshufb:
		return shuffleBytes(vec{a, a}, vec{b & 0x8787878787878787})[0]
	case vPalignr:
		return alignRight(vec{}, vec{b, a}, imm)[0]
	}
	return pick16(b, imm) // PSHUFW
}

func opMmxShift(c *cpu, in *inst) bool {
	if c.mmxPending() {
		return false
	}
	b, ok := c.mmxRead(in)
	return ok && c.mmxWrite(in.reg, shiftHalf(in.op, c.fpu.reg[in.reg&7].frac, b))
}

func opMmxShiftI(c *cpu, in *inst) bool {
	if c.mmxPending() {
		return false
	}
	c.fpu.mmx()
	return c.mmxWrite(in.rm, shiftHalf(in.op, c.fpu.reg[in.rm&7].frac, in.imm))
}

// opMmxMov is MOVD and MOVQ between MMX registers, memory and general
// registers, by op.
const (
	mmxFromRM = iota
	mmxToRM
	mmxFromMM
	mmxToMM
	mmxFromXMM // MOVDQ2Q
	mmxToXMM   // MOVQ2DQ
	mmxPmovmskb
	mmxPextrw
	mmxPinsrw
	mmxMaskmov
)

func opMmxMov(c *cpu, in *inst) bool {
	if c.mmxPending() {
		return false
	}
	reg := c.fpu.reg[in.reg&7].frac
	switch in.op {
	case mmxFromRM:
		v, ok := c.readRM(in)
		if !ok {
			return false
		}
		c.fpu.mmx()
		return c.mmxWrite(in.reg, v)
	case mmxToRM:
		if !c.writeRM(in, reg) {
			return false
		}
	case mmxFromMM:
		v, ok := c.mmxRead(in)
		return ok && c.mmxWrite(in.reg, v)
	case mmxToMM:
		if in.mem && !c.store64(c.ea(in), reg) {
			return false
		}
		if !in.mem {
			c.mmxWrite(in.rm, reg)
		}
	case mmxFromXMM:
		c.mmxWrite(in.reg, c.sse.xmm[in.rm&15][0])
	case mmxToXMM:
		*c.dest(in) = vec{c.fpu.reg[in.rm&7].frac}
	default:
		return c.mmxElement(in)
	}
	c.fpu.mmx()
	return true
}

// mmxElement is the moves of single elements.
func (c *cpu) mmxElement(in *inst) bool {
	shift := in.imm & 3 * 16
	switch in.op {
	case mmxPmovmskb:
		c.regs[in.reg&31] = signBits(c.fpu.reg[in.rm&7].frac)
	case mmxPextrw:
		c.regs[in.reg&31] = c.fpu.reg[in.rm&7].frac >> shift & 0xffff
	case mmxPinsrw:
		v := c.regs[in.rm&31]
		if in.mem {
			var ok bool
			if v, ok = c.load16(c.ea(in)); !ok {
				return false
			}
		}
		c.mmxWrite(in.reg, c.fpu.reg[in.reg&7].frac&^(0xffff<<shift)|v&0xffff<<shift)
	case mmxMaskmov:
		if !c.maskmov(in, vec{c.fpu.reg[in.reg&7].frac}, vec{c.fpu.reg[in.rm&7].frac}, 8) {
			return false
		}
	}
	c.fpu.mmx()
	return true
}

// opMmxCvt is CVTPI2PS (op 0), CVTPI2PD (1), CVTPS2PI (2), CVTPD2PI (3), and
// with 4 the truncating ones.
func opMmxCvt(c *cpu, in *inst) bool {
	e := c.sse.env()
	if in.op&4 != 0 {
		e.Mode = float.Zero
	}
	switch in.op & 3 {
	case 0, 1:
		return c.cvtFromMMX(in, &e)
	case 2:
		v, ok := c.source64(in)
		if !ok {
			return false
		}
		r := int32Of(&e, float.From32(uint32(v))) | int32Of(&e, float.From32(uint32(v>>32)))<<32
		return c.cvtToMMX(in, r, &e)
	}
	v, ok := c.source128(in)
	if !ok {
		return false
	}
	return c.cvtToMMX(in, int32Of(&e, float.From64(v[0]))|int32Of(&e, float.From64(v[1]))<<32, &e)
}

func (c *cpu) cvtToMMX(in *inst, r uint64, e *float.Env) bool {
	if c.mmxPending() || !c.raiseFP(e.Flags) {
		return false
	}
	c.fpu.mmx()
	return c.mmxWrite(in.reg, r)
}

func (c *cpu) cvtFromMMX(in *inst, e *float.Env) bool {
	var v uint64
	var ok bool
	if in.mem { // no MMX register takes part
		v, ok = c.load64(c.ea(in))
	} else if c.mmxPending() {
		return false
	} else {
		v, ok = c.mmxRead(in)
	}
	if !ok {
		return false
	}
	lo, hi := int64(int32(v)), int64(v)>>32
	if in.op&1 != 0 {
		return c.setVec(in, vec{intTo64(e, lo), intTo64(e, hi)}, e)
	}
	r := *c.dest(in)
	r[0] = intTo32(e, lo) | intTo32(e, hi)<<32
	return c.setVec(in, r, e)
}

func opEmms(c *cpu, in *inst) bool {
	if c.mmxPending() {
		return false
	}
	c.fpu.setTop(0)
	c.fpu.full = 0
	return true
}
