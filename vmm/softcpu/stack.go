package softcpu

import "github.com/vitrine-vmm/vitrine/vmm/x86"

// stack is a stack being pushed to or popped from. Registers change at commit,
// when nothing can fault any more.
type stack struct {
	c      *cpu
	seg    segment
	sp     uint64
	width  uint8 // bytes of the stack pointer
	check  bool  // the segment's limit and type count
	newSeg bool  // commit loads SS
	code   uint32
}

// stackNow is the stack in use.
func (c *cpu) stackNow() stack {
	s := stack{c: c, seg: c.seg[segSS], sp: c.regs[rSP], width: 2}
	switch {
	case c.code64():
		s.width, s.seg.base = 8, 0
	case s.seg.attr&attrDB != 0:
		s.width = 4
	}
	s.check = c.mode&modeChecks != 0
	return s
}

// stackOf is a stack that the CPU switches to, outside of 64-bit mode.
func (c *cpu) stackOf(seg segment, sp uint64) stack {
	s := stack{c: c, seg: seg, sp: sp, width: 2, check: true, newSeg: true}
	if seg.attr&attrDB != 0 {
		s.width = 4
	}
	return s
}

// addr is the linear address of the n bytes at offset off of the stack.
func (s *stack) addr(off uint64, n uint8) (uint64, bool) {
	if s.width == 8 {
		return off, true
	}
	if s.width == 2 {
		off &= 0xffff
	} else {
		off &= 0xffffffff
	}
	if s.check && !s.seg.holds(off, uint64(n)) {
		return 0, s.c.raiseCode(vectorSS, s.code)
	}
	return uint64(uint32(s.seg.base + off)), true
}

func (s *stack) push(n uint8, v uint64) bool {
	sp := s.sp - uint64(n)
	a, ok := s.addr(sp, n)
	if !ok {
		return false
	}
	if !s.c.store(a, n, v) {
		s.c.stackFault()
		return false
	}
	s.sp = sp
	return true
}

func (s *stack) pop(n uint8) (uint64, bool) {
	a, ok := s.addr(s.sp, n)
	if !ok {
		return 0, false
	}
	v, ok := s.c.load(a, n)
	if !ok {
		s.c.stackFault()
		return 0, false
	}
	s.sp += uint64(n)
	return v, true
}

// commit makes the stack the one in use.
func (s *stack) commit() {
	c := s.c
	if s.newSeg {
		c.setSeg(segSS, s.seg)
	}
	switch s.width {
	case 8:
		c.regs[rSP] = s.sp
	case 4:
		c.regs[rSP] = uint64(uint32(s.sp))
	default:
		c.regs[rSP] = c.regs[rSP]&^0xffff | s.sp&0xffff
	}
}

// stackFault turns the #GP of a non-canonical stack pointer into #SS.
func (c *cpu) stackFault() {
	if c.exc.canonical {
		c.exc.vector, c.exc.canonical = vectorSS, false
	}
}

// push and pop are for single instructions.
func (c *cpu) push(n uint8, v uint64) bool {
	if c.code64() {
		sp := c.regs[rSP] - uint64(n)
		if !c.store(sp, n, v) {
			c.stackFault()
			return false
		}
		c.regs[rSP] = sp
		return true
	}
	s := c.stackNow()
	if !s.push(n, v) {
		return false
	}
	s.commit()
	return true
}

func (c *cpu) pop(n uint8) (uint64, bool) {
	s := c.stackNow()
	v, ok := s.pop(n)
	if ok {
		s.commit()
	}
	return v, ok
}

// Rows of the tables: PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE
// (SDM vol. 2).

func opPushR(c *cpu, in *inst) bool { return c.push(in.size, c.regs[in.rm&31]) }

func opPushR64(c *cpu, in *inst) bool {
	sp := c.regs[rSP] - 8
	if !c.store64(sp, c.regs[in.rm&31]) {
		c.stackFault()
		return false
	}
	c.regs[rSP] = sp
	return true
}

func opPopR64(c *cpu, in *inst) bool {
	v, ok := c.load64(c.regs[rSP])
	if !ok {
		c.stackFault()
		return false
	}
	c.regs[rSP] += 8
	c.regs[in.rm&31] = v
	return true
}

func opPopR(c *cpu, in *inst) bool {
	v, ok := c.pop(in.size)
	if ok {
		c.setGPR(in.rm, in.size, v)
	}
	return ok
}

func opPushImm(c *cpu, in *inst) bool { return c.push(in.size, in.imm) }

func opPushM(c *cpu, in *inst) bool {
	v, ok := c.readRM(in)
	return ok && c.push(in.size, v)
}

// opPopM is POP r/m. An address that uses RSP uses its value behind the pop.
func opPopM(c *cpu, in *inst) bool {
	s := c.stackNow()
	v, ok := s.pop(in.size)
	if !ok {
		return false
	}
	old := c.regs[rSP]
	s.commit()
	if !c.writeRM(in, v) {
		c.regs[rSP] = old
		return false
	}
	return true
}

func opPushSeg(c *cpu, in *inst) bool {
	if in.size == 4 { // only the low half is written (SDM vol. 2, PUSH)
		s := c.stackNow()
		a, ok := s.addr(s.sp-4, 4)
		if !ok || !c.store16(a, uint64(c.seg[in.op].sel)) {
			return false
		}
		s.sp -= 4
		s.commit()
		return true
	}
	return c.push(in.size, uint64(c.seg[in.op].sel))
}

func opPopSeg(c *cpu, in *inst) bool {
	s := c.stackNow()
	v, ok := s.pop(in.size)
	if !ok || !c.loadSeg(int(in.op), uint16(v)) {
		return false
	}
	if in.op == segSS { // SS is new: only the pointer moves
		sp := s.sp
		s = c.stackNow()
		s.sp = sp
		s.commit()
		return c.shadowed(in)
	}
	s.commit()
	return c.done(in)
}

func opPusha(c *cpu, in *inst) bool {
	s := c.stackNow()
	for n := rAX; n <= rDI; n++ {
		if !s.push(in.size, c.regs[n]) {
			return false
		}
	}
	s.commit()
	return true
}

func opPopa(c *cpu, in *inst) bool {
	s := c.stackNow()
	var v [8]uint64
	for n := rDI; n >= rAX; n-- {
		var ok bool
		if v[n], ok = s.pop(in.size); !ok {
			return false
		}
	}
	s.commit()
	for n := rAX; n <= rDI; n++ {
		if n != rSP {
			c.setGPR(uint8(n), in.size, v[n])
		}
	}
	return true
}

func (c *cpu) iopl() uint8 { return uint8(c.flags >> 12 & 3) }

func opPushf(c *cpu, in *inst) bool {
	if c.vm86() && c.iopl() < 3 {
		return c.raiseCode(vectorGP, 0)
	}
	return c.push(in.size, c.rflags()&^(x86.FlagVM|x86.FlagRF))
}

func opPopf(c *cpu, in *inst) bool {
	if c.vm86() && c.iopl() < 3 {
		return c.raiseCode(vectorGP, 0)
	}
	v, ok := c.pop(in.size)
	if !ok {
		return false
	}
	c.setFlags(v, in.size)
	if v&x86.FlagTF == 0 && c.attn.Load() == 0 && v&x86.FlagAC == 0 {
		return true
	}
	return c.done(in)
}

// flagsUser can be changed by anybody.
const flagsUser = arith | x86.FlagTF | x86.FlagDF | x86.FlagNT | x86.FlagAC | x86.FlagID

// setFlags is POPF's and IRET's change of RFLAGS, as far as the CPL allows
// (SDM vol. 2, POPF).
func (c *cpu) setFlags(v uint64, size uint8) {
	mask := uint64(flagsUser)
	if c.cpl == 0 {
		mask |= x86.FlagIOPL
	}
	if c.cpl <= c.iopl() {
		mask |= x86.FlagIF
	}
	if size == 2 {
		mask &= 0xffff
	}
	c.changeFlags(v, mask)
}

// changeFlags replaces the bits of mask in RFLAGS and has the run loop look
// at what that allows.
func (c *cpu) changeFlags(v, mask uint64) {
	c.settleFlags()
	old := c.flags
	c.flags = old&^mask | v&mask | x86.Flag1
	c.flags &^= x86.FlagRF &^ (mask & v)
	now := c.flags &^ old
	if now&x86.FlagTF != 0 {
		c.attn.Or(attnStep)
	}
	if now&x86.FlagIF != 0 {
		c.irqsOn()
	}
	if (old^c.flags)&x86.FlagAC != 0 {
		c.setMMU()
	}
}

func opEnter(c *cpu, in *inst) bool {
	size, level := uint64(in.imm&0xffff), int(in.imm>>16&31)
	s := c.stackNow()
	if !s.push(in.size, c.regs[rBP]) {
		return false
	}
	frame := s.sp
	bp := c.regs[rBP]
	for i := 1; i < level; i++ {
		bp -= uint64(in.size)
		a, ok := s.addr(bp, in.size)
		if !ok {
			return false
		}
		v, ok := c.load(a, in.size)
		if !ok || !s.push(in.size, v) {
			return false
		}
	}
	if level > 0 && !s.push(in.size, frame) {
		return false
	}
	s.sp -= size
	// The new top must be writable, although nothing is written there.
	a, ok := s.addr(s.sp, in.size)
	if !ok {
		return false
	}
	if !c.probe(a, uint64(in.size), accWrite) {
		c.stackFault()
		return false
	}
	s.commit()
	c.setGPR(rBP, in.size, frame)
	return true
}

func opLeave(c *cpu, in *inst) bool {
	s := c.stackNow()
	s.sp = c.regs[rBP]
	v, ok := s.pop(in.size)
	if !ok {
		return false
	}
	s.commit()
	c.setGPR(rBP, in.size, v)
	return true
}
