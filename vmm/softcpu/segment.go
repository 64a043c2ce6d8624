package softcpu

import (
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Segmentation: SDM vol. 3, chapters 3 and 5.

// holds says whether the n bytes at off are inside the segment.
func (s *segment) holds(off, n uint64) bool {
	if !s.usable() {
		return false
	}
	last, limit := off+n-1, uint64(s.limit)
	if s.attr&(attrCode|attrExpandDown) == attrExpandDown {
		top := uint64(0xffff)
		if s.attr&attrDB != 0 {
			top = 0xffffffff
		}
		return off > limit && last <= top
	}
	return last <= limit
}

// flat says whether the segment allows every read and write, so that accesses
// through it need no check.
func (s *segment) flat() bool {
	return s.limit == ^uint32(0) && s.attr&(attrP|attrS|attrCode|attrWritable|attrExpandDown) == attrP|attrS|attrWritable
}

// setMode recomputes what depends on the control registers, CS and SS.
func (c *cpu) setMode() {
	cs := &c.seg[segCS]
	m := mode16
	c.ipMask = 0xffffffff
	switch {
	case c.long() && cs.attr&attrL != 0:
		m = mode64
		c.ipMask = ^uint64(0)
	case cs.attr&attrDB != 0:
		m = mode32
	}
	if !c.protected() || c.flags&x86.FlagVM != 0 {
		m |= modeReal
	}
	if m&modeSize != mode64 && !(c.seg[segSS].flat() && c.seg[segDS].flat() && c.seg[segES].flat()) {
		m |= modeChecks
	}
	if c.cr0&(x86.CR0EM|x86.CR0TS) != 0 {
		m |= modeNoFPU | modeNoSSE
	}
	if c.cr4&x86.CR4OSFXSR == 0 {
		m |= modeNoSSE
	}
	if c.cpl != 0 {
		m |= modeUser
	}
	if c.debug.looking {
		m |= modeStep
	}
	c.mode = m
	c.regs[rSeg+segCS] = cs.base
	if m&modeSize == mode64 {
		c.regs[rSeg+segCS] = 0
	}
}

// setSeg loads a segment register with its hidden part.
func (c *cpu) setSeg(n int, s segment) {
	c.seg[n] = s
	c.regs[rSeg+n] = s.base
}

// loadSegReal is a load in real or virtual-8086 mode. Real mode leaves limit
// and type alone (SDM vol. 3, 21.1.1), as "unreal" programs know.
func (c *cpu) loadSegReal(n int, sel uint16) {
	s := c.seg[n]
	s.sel, s.base = sel, uint64(sel)<<4
	switch {
	case c.vm86():
		s.limit, s.attr = 0xffff, attrP|attrS|attrWritable|attrAccessed|3<<5
	case n == segCS:
		s.attr = attrP | attrS | attrWritable | attrAccessed
	}
	c.setSeg(n, s)
}

// makeSegment unpacks a descriptor (SDM vol. 3, 3.4.5).
func makeSegment(sel uint16, raw uint64) segment {
	s := segment{
		sel:   sel,
		base:  raw>>16&0xffffff | raw>>32&0xff000000,
		limit: uint32(raw&0xffff | raw>>32&0xf0000),
		attr:  uint16(raw >> 40 & 0xf0ff),
	}
	if s.attr&attrG != 0 {
		s.limit = s.limit<<12 | 0xfff
	}
	return s
}

// descriptor reads the descriptor that sel names. Outside of its table it
// raises vector with the selector and ext as error code.
func (c *cpu) descriptor(sel uint16, vector uint8, ext uint32) (raw, at uint64, ok bool) {
	base, limit := c.gdt.Base, uint32(c.gdt.Limit)
	if sel&4 != 0 {
		base, limit = c.ldt.base, c.ldt.limit
		if !c.ldt.usable() {
			limit = 0
		}
	}
	if uint32(sel|7) > limit {
		return 0, 0, c.raiseCode(vector, uint32(sel&^3)|ext)
	}
	at = base + uint64(sel&^7)
	if !c.sysLoad(at, &raw) {
		return 0, 0, false
	}
	return raw, at, true
}

// markAccessed sets the accessed bit of a code or data descriptor.
func (c *cpu) markAccessed(s *segment, at uint64) bool {
	if s.attr&(attrAccessed|attrS) != attrS {
		return true
	}
	s.attr |= attrAccessed
	return c.system(func() bool { return c.store8(at+5, uint64(s.attr&0xff)) })
}

// loadSeg loads a data segment register or SS (SDM vol. 2, MOV; vol. 3, 5.6).
func (c *cpu) loadSeg(n int, sel uint16) bool {
	if !c.protected() || c.vm86() {
		c.loadSegReal(n, sel)
		c.setMode()
		return true
	}
	if sel&^3 == 0 {
		return c.loadNull(n, sel)
	}
	raw, at, ok := c.descriptor(sel, vectorGP, 0)
	if !ok {
		return false
	}
	s := makeSegment(sel, raw)
	code := uint32(sel &^ 3)
	rpl := uint8(sel & 3)
	data := s.attr&(attrS|attrCode) == attrS
	if n == segSS {
		if !data || s.attr&attrWritable == 0 || rpl != c.cpl || s.dpl() != c.cpl {
			return c.raiseCode(vectorGP, code)
		}
		if !s.usable() {
			return c.raiseCode(vectorSS, code)
		}
	} else {
		readable := s.attr&attrS != 0 && s.attr&(attrCode|attrReadable) != attrCode
		conforming := s.attr&(attrCode|attrConforming) == attrCode|attrConforming
		if !readable || !conforming && (rpl > s.dpl() || c.cpl > s.dpl()) {
			return c.raiseCode(vectorGP, code)
		}
		if !s.usable() {
			return c.raiseCode(vectorNP, code)
		}
	}
	if !c.markAccessed(&s, at) {
		return false
	}
	c.setSeg(n, s)
	c.setMode()
	return true
}

// loadNull loads a null selector: SS may be null only in 64-bit mode, inside
// the kernel.
func (c *cpu) loadNull(n int, sel uint16) bool {
	if n == segSS && (!c.code64() || c.cpl == 3 || uint8(sel&3) != c.cpl) {
		return c.raiseCode(vectorGP, 0)
	}
	s := segment{sel: sel}
	if n == segSS {
		s.attr = attrS | attrWritable | uint16(c.cpl)<<5
	}
	c.setSeg(n, s)
	c.setMode()
	return true
}

// checkSegment is what the decoder puts before an instruction whose memory
// operand goes through a segment that does not allow everything.
func checkSegment(c *cpu, in *inst) bool {
	n := int(in.seg) - rSeg
	if n < 0 || n > segGS {
		return true
	}
	s := &c.seg[n]
	vector := uint8(vectorGP)
	if n == segSS {
		vector = vectorSS
	}
	if !s.holds(c.offset(in), uint64(in.size)) {
		return c.raiseCode(vector, 0)
	}
	if !c.protected() || c.vm86() {
		return true
	}
	write := in.op != 0
	if write && s.attr&(attrCode|attrWritable) != attrWritable ||
		!write && s.attr&(attrCode|attrReadable) == attrCode {
		return c.raiseCode(vectorGP, 0)
	}
	return true
}

// insertCheck puts checkSegment before the last decoded instruction.
func (c *cpu) insertCheck(d *decoder, in *inst) {
	check := *in
	check.fn, check.op, check.flags = checkSegment, 0, in.flags|flagImplied
	if d.op.attr&aStore != 0 {
		check.op = 1
	}
	check.size = memorySize(in, d.op)
	main := *in
	*in = check
	c.code.insts = append(c.code.insts, main)
}

// memorySize is the number of bytes of the memory operand.
func memorySize(in *inst, op *opcode) uint8 {
	switch {
	case op.attr&aMem8 != 0:
		return 1
	case op.attr&aMem16 != 0:
		return 2
	case op.attr&aMem32 != 0:
		return 4
	case op.attr&aMem64 != 0:
		return 8
	case op.attr&aMem128 != 0:
		return 16
	}
	return in.size
}

// opMovFromSeg is MOV r/m, Sreg.
func opMovFromSeg(c *cpu, in *inst) bool {
	if in.reg&7 > segGS {
		return c.raise(vectorUD)
	}
	v := uint64(c.seg[in.reg&7].sel)
	if in.mem {
		return c.store16(c.ea(in), v)
	}
	c.setGPR(in.rm, in.size, v)
	return true
}

// opMovToSeg is MOV Sreg, r/m.
func opMovToSeg(c *cpu, in *inst) bool {
	n := int(in.reg & 7)
	if n == segCS || n > segGS {
		return c.raise(vectorUD)
	}
	v := c.regs[in.rm&31]
	if in.mem {
		var ok bool
		if v, ok = c.load16(c.ea(in)); !ok {
			return false
		}
	}
	if !c.loadSeg(n, uint16(v)) {
		return false
	}
	if n == segSS {
		return c.shadowed(in)
	}
	return c.done(in)
}

// shadowed ends an instruction behind which interrupts are held back for one
// more.
func (c *cpu) shadowed(in *inst) bool {
	c.event.inhibit = 2
	c.attn.Or(attnShadow)
	return c.done(in)
}

// opLoadFar is LDS, LES, LSS, LFS, LGS.
func opLoadFar(c *cpu, in *inst) bool {
	a := c.ea(in)
	off, ok := c.load(a, in.size)
	if !ok {
		return false
	}
	sel, ok := c.load16(a + uint64(in.size))
	if !ok || !c.loadSeg(int(in.op), uint16(sel)) {
		return false
	}
	c.setGPR(in.reg, in.size, off)
	return c.done(in)
}
