package softcpu

import (
	"github.com/vitrine-vmm/vitrine/vmm/softcpu/internal/float"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Moves between XMM registers, memory and general registers (SDM vol. 1,
// chapters 10 to 12; vol. 2).

// vec is an XMM register: the low and the high half.
type vec [2]uint64

type sse struct {
	xmm   [16]vec
	mxcsr uint32
}

// MXCSR (SDM vol. 1, 10.2.3).
const (
	mxcsrReset = 0x1f80
	mxcsrMask  = 0xffff
	mxcsrDAZ   = 1 << 6
	mxcsrMasks = 0x1f80
	mxcsrFTZ   = 1 << 15
)

func (s *sse) reset() { *s = sse{mxcsr: mxcsrReset} }

// env is the floating-point environment of MXCSR.
func (s *sse) env() float.Env {
	return float.Env{
		Mode:              float.Rounding(s.mxcsr >> 13 & 3),
		FlushToZero:       s.mxcsr&mxcsrFTZ != 0,
		DenormalsAreZero:  s.mxcsr&mxcsrDAZ != 0,
		UnderflowUnmasked: s.mxcsr>>7&float.Underflow == 0,
	}
}

// raiseFP merges the flags of an operation into MXCSR. It returns false, with
// #XM raised, if one of them is not masked: the destination then stays.
func (c *cpu) raiseFP(flags uint8) bool {
	if flags == 0 {
		return true
	}
	unmasked := flags &^ uint8(c.sse.mxcsr>>7)
	if unmasked&(float.Invalid|float.Denormal|float.DivByZero) != 0 {
		flags &= float.Invalid | float.Denormal | float.DivByZero
	}
	c.sse.mxcsr |= uint32(flags & 0x3f)
	if unmasked&0x3f == 0 {
		return true
	}
	if c.cr4&x86.CR4OSXMMEXCPT == 0 {
		return c.raise(vectorUD)
	}
	return c.raise(vectorXM)
}

func (c *cpu) load128(a uint64) (v vec, ok bool) {
	if v[0], ok = c.load64(a); !ok {
		return v, false
	}
	v[1], ok = c.load64(a + 8)
	return v, ok
}

func (c *cpu) store128(a uint64, v vec) bool {
	if a&pageMask > pageSize-16 && !c.probe(a, 16, accWrite) {
		return false
	}
	return c.store64(a, v[0]) && c.store64(a+8, v[1])
}

// aligned raises #GP(0) for an operand that has to be on a 16-byte boundary.
func (c *cpu) aligned(a uint64) bool {
	return a&15 == 0 || c.raiseCode(vectorGP, 0)
}

// source128 is the xmm/m128 operand of an instruction that wants it aligned.
func (c *cpu) source128(in *inst) (v vec, ok bool) {
	if !in.mem {
		return c.sse.xmm[in.rm&15], true
	}
	a := c.ea(in)
	if !c.aligned(a) {
		return v, false
	}
	return c.load128(a)
}

func (c *cpu) source128u(in *inst) (v vec, ok bool) {
	if !in.mem {
		return c.sse.xmm[in.rm&15], true
	}
	return c.load128(c.ea(in))
}

// source64 and source32 are the low part of a register, or memory.
func (c *cpu) source64(in *inst) (uint64, bool) {
	if !in.mem {
		return c.sse.xmm[in.rm&15][0], true
	}
	return c.load64(c.ea(in))
}

func (c *cpu) source32(in *inst) (uint64, bool) {
	if !in.mem {
		return c.sse.xmm[in.rm&15][0] & 0xffffffff, true
	}
	return c.load32(c.ea(in))
}

func (c *cpu) dest(in *inst) *vec { return &c.sse.xmm[in.reg&15] }

// setLow32 replaces the low doubleword of a register.
func (v *vec) setLow32(x uint64) { v[0] = v[0]&^0xffffffff | x&0xffffffff }

// opMovX is MOVUPS, MOVUPD, MOVDQU, LDDQU xmm, xmm/m128; opMovA the aligned
// ones.
func opMovX(c *cpu, in *inst) bool {
	v, ok := c.source128u(in)
	if ok {
		*c.dest(in) = v
	}
	return ok
}

func opMovA(c *cpu, in *inst) bool {
	v, ok := c.source128(in)
	if ok {
		*c.dest(in) = v
	}
	return ok
}

func opMovXStore(c *cpu, in *inst) bool {
	if in.mem {
		return c.store128(c.ea(in), *c.dest(in))
	}
	c.sse.xmm[in.rm&15] = *c.dest(in)
	return true
}

// opMovAStore is MOVAPS and its like, and the non-temporal stores.
func opMovAStore(c *cpu, in *inst) bool {
	if in.mem && !c.aligned(c.ea(in)) {
		return false
	}
	return opMovXStore(c, in)
}

// opMovss and opMovsd: from memory the rest is cleared, from a register it
// stays.
func opMovss(c *cpu, in *inst) bool {
	v, ok := c.source32(in)
	if !ok {
		return false
	}
	if in.mem {
		*c.dest(in) = vec{v}
		return true
	}
	c.dest(in).setLow32(v)
	return true
}

func opMovsd(c *cpu, in *inst) bool {
	v, ok := c.source64(in)
	if !ok {
		return false
	}
	d := c.dest(in)
	d[0] = v
	if in.mem {
		d[1] = 0
	}
	return true
}

func opMovssStore(c *cpu, in *inst) bool {
	v := c.dest(in)[0]
	if in.mem {
		return c.store32(c.ea(in), v)
	}
	c.sse.xmm[in.rm&15].setLow32(v)
	return true
}

func opMovsdStore(c *cpu, in *inst) bool {
	v := c.dest(in)[0]
	if in.mem {
		return c.store64(c.ea(in), v)
	}
	c.sse.xmm[in.rm&15][0] = v
	return true
}

// opMovlps is MOVLPS and MOVLPD from memory, and MOVHLPS; opMovhps is MOVHPS,
// MOVHPD and MOVLHPS.
func opMovlps(c *cpu, in *inst) bool {
	if !in.mem {
		c.dest(in)[0] = c.sse.xmm[in.rm&15][1]
		return true
	}
	v, ok := c.load64(c.ea(in))
	if ok {
		c.dest(in)[0] = v
	}
	return ok
}

func opMovhps(c *cpu, in *inst) bool {
	v, ok := c.source64(in)
	if ok {
		c.dest(in)[1] = v
	}
	return ok
}

func opMovlpsStore(c *cpu, in *inst) bool { return c.store64(c.ea(in), c.dest(in)[0]) }
func opMovhpsStore(c *cpu, in *inst) bool { return c.store64(c.ea(in), c.dest(in)[1]) }

// opMovq is MOVQ xmm, xmm/m64; opMovqStore is MOVQ xmm/m64, xmm.
func opMovq(c *cpu, in *inst) bool {
	v, ok := c.source64(in)
	if ok {
		*c.dest(in) = vec{v}
	}
	return ok
}

func opMovqStore(c *cpu, in *inst) bool {
	v := c.dest(in)[0]
	if in.mem {
		return c.store64(c.ea(in), v)
	}
	c.sse.xmm[in.rm&15] = vec{v}
	return true
}

// opMovd is MOVD and MOVQ xmm, r/m; opMovdStore the other way.
func opMovd(c *cpu, in *inst) bool {
	v, ok := c.readRM(in)
	if ok {
		*c.dest(in) = vec{v}
	}
	return ok
}

func opMovdStore(c *cpu, in *inst) bool { return c.writeRM(in, c.dest(in)[0]) }

// opMovnti is MOVNTI.
func opMovnti(c *cpu, in *inst) bool { return c.writeRM(in, c.gpr(in.reg, in.size)) }

// opMovdup is MOVDDUP (op 0), MOVSLDUP (1), MOVSHDUP (2).
func opMovdup(c *cpu, in *inst) bool {
	if in.op == 0 {
		v, ok := c.source64(in)
		if ok {
			*c.dest(in) = vec{v, v}
		}
		return ok
	}
	v, ok := c.source128(in)
	if !ok {
		return false
	}
	for i, x := range v {
		if in.op == 1 {
			x &= 0xffffffff
			v[i] = x | x<<32
		} else {
			x >>= 32
			v[i] = x | x<<32
		}
	}
	*c.dest(in) = v
	return true
}

// opMovmsk is MOVMSKPS (op 0) and MOVMSKPD (op 1).
func opMovmsk(c *cpu, in *inst) bool {
	v := c.sse.xmm[in.rm&15]
	m := v[0]>>63 | v[1]>>63<<1
	if in.op == 0 {
		m = v[0]>>31&1 | v[0]>>63<<1 | v[1]>>31&1<<2 | v[1]>>63<<3
	}
	c.regs[in.reg&31] = m
	return true
}

// opPmovmskb is PMOVMSKB of an XMM register.
func opPmovmskb(c *cpu, in *inst) bool {
	v := c.sse.xmm[in.rm&15]
	c.regs[in.reg&31] = signBits(v[0]) | signBits(v[1])<<8
	return true
}

// signBits gathers the top bit of each byte.
func signBits(v uint64) uint64 {
	return (v >> 7 & 0x0101010101010101) * 0x0102040810204080 >> 56
}

// opMaskmov is MASKMOVDQU: stores the bytes that the mask selects at DS:rDI.
func opMaskmov(c *cpu, in *inst) bool {
	return c.maskmov(in, *c.dest(in), c.sse.xmm[in.rm&15], 16)
}

func (c *cpu) maskmov(in *inst, v, mask vec, n int) bool {
	base := c.regs[rDI] & in.amask
	for i := range n {
		if mask[i/8]>>(8*(i%8)+7)&1 == 0 {
			continue
		}
		a, ok := c.segAddr(in, (base+uint64(i))&in.amask, 1, true)
		if !ok || !c.store8(a, v[i/8]>>(8*(i%8))) {
			return false
		}
	}
	return true
}
