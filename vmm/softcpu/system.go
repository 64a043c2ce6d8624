package softcpu

import (
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// System instructions (SDM vol. 2 and vol. 3, 2.8).

// Bits of the control registers that may be set.
const (
	cr0Mask = x86.CR0PE | x86.CR0MP | x86.CR0EM | x86.CR0TS | x86.CR0ET | x86.CR0NE |
		x86.CR0WP | x86.CR0AM | x86.CR0NW | x86.CR0CD | x86.CR0PG
	cr4Mask = x86.CR4TSD | x86.CR4DE | x86.CR4PSE | x86.CR4PAE |
		x86.CR4PGE | x86.CR4PCE | x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4UMIP | x86.CR4FSGSBASE |
		x86.CR4PCIDE | x86.CR4OSXSAVE | x86.CR4SMEP | x86.CR4SMAP
)

// setCR0 is MOV to CR0 and LMSW (SDM vol. 3, 2.5, 9.8.5, 4.1.2).
func (c *cpu) setCR0(v uint64) bool {
	bad := v>>32 != 0 || v&x86.CR0PG != 0 && v&x86.CR0PE == 0 || v&x86.CR0NW != 0 && v&x86.CR0CD == 0 ||
		v&x86.CR0PG == 0 && c.cr4&x86.CR4PCIDE != 0
	enable := v&x86.CR0PG != 0 && c.cr0&x86.CR0PG == 0
	if enable && c.efer&x86.EFERLME != 0 && (c.cr4&x86.CR4PAE == 0 || c.seg[segCS].attr&attrL != 0) {
		bad = true
	}
	if bad || v&x86.CR0PG == 0 && c.code64() {
		return c.raiseCode(vectorGP, 0)
	}
	old := c.cr0
	c.cr0 = v&cr0Mask | x86.CR0ET
	switch {
	case enable && c.efer&x86.EFERLME != 0:
		c.efer |= x86.EFERLMA
	case v&x86.CR0PG == 0:
		c.efer &^= x86.EFERLMA
	}
	if (old^c.cr0)&(x86.CR0PG|x86.CR0WP|x86.CR0PE) != 0 {
		c.tlb.flushAll()
	}
	if old&x86.CR0PE != 0 && c.cr0&x86.CR0PE == 0 || old&x86.CR0PE == 0 {
		c.cpl = 0
	}
	c.setMode()
	c.setMMU()
	return true
}

func (c *cpu) setCR3(v uint64) bool {
	keep := c.cr4&x86.CR4PCIDE != 0 && v>>63 != 0
	if c.long() {
		if v&^(1<<63)>>physBits != 0 || v>>63 != 0 && !keep {
			return c.raiseCode(vectorGP, 0)
		}
		v &^= 1 << 63
	} else {
		v = uint64(uint32(v))
	}
	// Translations of other PCIDs are not kept: dropping is always allowed.
	c.cr3 = v
	c.tlb.flushLocal()
	return true
}

func (c *cpu) setCR4(v uint64) bool {
	bad := v&^cr4Mask != 0 || c.long() && v&x86.CR4PAE == 0
	if v&x86.CR4PCIDE != 0 && c.cr4&x86.CR4PCIDE == 0 && (!c.long() || c.cr3&0xfff != 0) {
		bad = true
	}
	if bad {
		return c.raiseCode(vectorGP, 0)
	}
	const paging = x86.CR4PSE | x86.CR4PAE | x86.CR4PGE | x86.CR4PCIDE | x86.CR4SMEP | x86.CR4SMAP
	if (c.cr4^v)&paging != 0 {
		c.tlb.flushAll()
	}
	c.cr4 = v
	c.setMode()
	c.setMMU()
	return true
}

func opMovFromCR(c *cpu, in *inst) bool {
	var v uint64
	switch in.reg {
	case 0:
		v = c.cr0
	case 2:
		v = c.cr2
	case 3:
		v = c.cr3
	case 4:
		v = c.cr4
	case 8:
		v = c.taskPriority()
	default:
		return c.raise(vectorUD)
	}
	c.setGPR(in.rm, c.wordSize(), v)
	return true
}

// wordSize is the operand size of instructions that take no prefix for it.
func (c *cpu) wordSize() uint8 {
	if c.code64() {
		return 8
	}
	return 4
}

func opMovToCR(c *cpu, in *inst) bool {
	v := c.gpr(in.rm, c.wordSize())
	ok := true
	switch in.reg {
	case 0:
		ok = c.setCR0(v)
	case 2:
		c.cr2 = v
	case 3:
		ok = c.setCR3(v)
	case 4:
		ok = c.setCR4(v)
	case 8:
		if v > 15 {
			return c.raiseCode(vectorGP, 0)
		}
		c.setTaskPriority(v)
	default:
		return c.raise(vectorUD)
	}
	return ok && c.done(in)
}

func opMovFromDR(c *cpu, in *inst) bool {
	n, ok := c.debugRegister(in)
	if ok {
		c.setGPR(in.rm, c.wordSize(), c.dr[n])
	}
	return ok
}

// DR6 and DR7 have bits that read as one (SDM vol. 3, 17.2).
const (
	dr6Ones  = 0xffff0ff0
	dr6Mask  = 0xe00f
	dr7Ones  = 0x400
	dr7Mask  = 0xffff2bff
	dr7GD    = 1 << 13
	dr6BS    = 1 << 14
	dr6BD    = 1 << 13
	drBroken = 0xffffffff_00000000
)

// debugRegister checks an access to a debug register.
func (c *cpu) debugRegister(in *inst) (int, bool) {
	n := int(in.reg)
	if n == 4 || n == 5 {
		if c.cr4&x86.CR4DE != 0 {
			return 0, c.raise(vectorUD)
		}
		n += 2
	}
	if n > 7 {
		return 0, c.raise(vectorUD)
	}
	if c.dr[7]&dr7GD != 0 {
		c.dr[6] |= dr6BD
		c.dr[7] &^= dr7GD
		return 0, c.raise(vectorDB)
	}
	return n, true
}

func opMovToDR(c *cpu, in *inst) bool {
	n, ok := c.debugRegister(in)
	if !ok {
		return false
	}
	v := c.gpr(in.rm, c.wordSize())
	switch n {
	case 6:
		if v&drBroken != 0 {
			return c.raiseCode(vectorGP, 0)
		}
		v = v&dr6Mask | dr6Ones
	case 7:
		if v&drBroken != 0 {
			return c.raiseCode(vectorGP, 0)
		}
		v = v&dr7Mask | dr7Ones
	}
	c.dr[n] = v
	ip := c.nextIP(in)
	if n != 6 {
		c.debugChanged()
	}
	c.stop = stopDone
	return c.branch(ip)
}

// opStoreTable is SGDT (op 0) and SIDT (op 1).
func opStoreTable(c *cpu, in *inst) bool {
	if c.userUMIP() {
		return c.raiseCode(vectorGP, 0)
	}
	t := c.gdt
	if in.op == 1 {
		t = c.idt
	}
	a := c.ea(in)
	return c.store16(a, uint64(t.Limit)) && c.store(a+2, c.wordSize(), t.Base)
}

func (c *cpu) userUMIP() bool { return c.cpl != 0 && c.cr4&x86.CR4UMIP != 0 }

// opLoadTable is LGDT (op 0) and LIDT (op 1).
func opLoadTable(c *cpu, in *inst) bool {
	a := c.ea(in)
	limit, ok := c.load16(a)
	if !ok {
		return false
	}
	base, ok := c.load(a+2, c.wordSize())
	if !ok {
		return false
	}
	if c.code64() && uint64(int64(base<<16)>>16) != base {
		return c.raiseCode(vectorGP, 0)
	}
	if in.size == 2 {
		base &= 0xffffff
	}
	t := x86.DTable{Base: base, Limit: uint16(limit)}
	if in.op == 0 {
		c.gdt = t
	} else {
		c.idt = t
	}
	return true
}

// opStoreSel is SLDT (op 0) and STR (op 1).
func opStoreSel(c *cpu, in *inst) bool {
	if c.userUMIP() {
		return c.raiseCode(vectorGP, 0)
	}
	v := uint64(c.ldt.sel)
	if in.op == 1 {
		v = uint64(c.tss.sel)
	}
	if in.mem {
		return c.store16(c.ea(in), v)
	}
	c.setGPR(in.rm, in.size, v)
	return true
}

// opLoadSel is LLDT (op 0) and LTR (op 1).
func opLoadSel(c *cpu, in *inst) bool {
	if c.cpl != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	sel, ok := c.readWord(in)
	if !ok {
		return false
	}
	if sel&^3 == 0 {
		if in.op == 1 {
			return c.raiseCode(vectorGP, 0)
		}
		c.ldt = segment{sel: sel}
		return true
	}
	if sel&4 != 0 {
		return c.raiseCode(vectorGP, uint32(sel&^3))
	}
	s, at, ok := c.systemSegment(sel)
	if !ok {
		return false
	}
	if in.op == 0 {
		if s.attr&0x1f != 2 {
			return c.raiseCode(vectorGP, uint32(sel&^3))
		}
		c.ldt = s
		return true
	}
	kind := s.attr & 0x1f
	if kind != 9 && (kind != 1 || c.long()) {
		return c.raiseCode(vectorGP, uint32(sel&^3))
	}
	s.attr |= 2 // busy
	if !c.system(func() bool { return c.store8(at+5, uint64(s.attr&0xff)) }) {
		return false
	}
	c.tss = s
	return true
}

// readWord reads a 16-bit operand.
func (c *cpu) readWord(in *inst) (uint16, bool) {
	if in.mem {
		v, ok := c.load16(c.ea(in))
		return uint16(v), ok
	}
	return uint16(c.regs[in.rm&31]), true
}

// systemSegment reads an LDT or TSS descriptor: 16 bytes in long mode.
func (c *cpu) systemSegment(sel uint16) (s segment, at uint64, ok bool) {
	raw, at, ok := c.descriptor(sel, vectorGP, 0)
	if !ok {
		return s, 0, false
	}
	s = makeSegment(sel, raw)
	if !s.usable() {
		return s, 0, c.raiseCode(vectorNP, uint32(sel&^3))
	}
	if c.long() {
		var hi uint64
		if !c.sysLoad(at+8, &hi) {
			return s, 0, false
		}
		s.base |= hi << 32
	}
	return s, at, true
}

func opSmsw(c *cpu, in *inst) bool {
	if c.userUMIP() {
		return c.raiseCode(vectorGP, 0)
	}
	if in.mem {
		return c.store16(c.ea(in), c.cr0)
	}
	c.setGPR(in.rm, in.size, c.cr0)
	return true
}

func opLmsw(c *cpu, in *inst) bool {
	if c.cpl != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	v, ok := c.readWord(in)
	if !ok {
		return false
	}
	return c.setCR0(c.cr0&^0xe|uint64(v)&0xf) && c.done(in)
}

func opClts(c *cpu, in *inst) bool {
	c.cr0 &^= x86.CR0TS
	c.setMode()
	return c.done(in)
}

func opInvlpg(c *cpu, in *inst) bool {
	if c.cpl != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	c.tlb.flushPage(c.ea(in))
	return c.done(in)
}

// opInvpcid is INVPCID: types 0 and 1 drop too much here, which is allowed.
func opInvpcid(c *cpu, in *inst) bool {
	kind := c.gpr(in.reg, c.wordSize())
	a := c.ea(in)
	d, ok := c.load64(a)
	if !ok {
		return false
	}
	lin, ok := c.load64(a + 8)
	if !ok {
		return false
	}
	if kind > 3 || kind < 2 && d>>12 != 0 || kind == 0 && uint64(int64(lin<<16)>>16) != lin {
		return c.raiseCode(vectorGP, 0)
	}
	switch kind {
	case 0:
		c.tlb.flushPage(lin)
	case 1, 3:
		c.tlb.flushLocal()
	default:
		c.tlb.flushAll()
	}
	return c.done(in)
}

func opHlt(c *cpu, in *inst) bool {
	c.halted = true
	c.attn.Or(attnHalt)
	c.tellSystem(in, SystemHalt, 0, 0)
	return c.done(in)
}

func (c *cpu) mayIF() bool { return c.cpl <= c.iopl() }

func opCli(c *cpu, in *inst) bool {
	if c.protected() && !c.mayIF() {
		return c.raiseCode(vectorGP, 0)
	}
	c.flags &^= x86.FlagIF
	return true
}

// opSTI enables interrupts behind the next instruction, which the decoder puts
// into the same block: one that arrives now may as well arrive at its end. One
// that waits already is taken exactly there, or a program that opens a window
// of one instruction would never see it.
func opSTI(c *cpu, in *inst) bool {
	if c.protected() && !c.mayIF() {
		return c.raiseCode(vectorGP, 0)
	}
	if c.flags&x86.FlagIF == 0 {
		c.flags |= x86.FlagIF
		c.irqsOn()
		if c.irq.Load() {
			return c.shadowed(in)
		}
	}
	return true
}

// opSTIEnd is STI at the end of a block.
func opSTIEnd(c *cpu, in *inst) bool {
	if !opSTI(c, in) {
		return false // with a fault, or with the shadow made
	}
	return c.shadowed(in)
}

func opCld(c *cpu, in *inst) bool { c.flags &^= x86.FlagDF; return true }
func opStd(c *cpu, in *inst) bool { c.flags |= x86.FlagDF; return true }
func opClc(c *cpu, in *inst) bool { c.setCF(0); return true }
func opStc(c *cpu, in *inst) bool { c.setCF(1); return true }
func opCmc(c *cpu, in *inst) bool { c.setCF(bit(!c.cf())); return true }

// opAC is CLAC (op 0) and STAC (op 1).
func opAC(c *cpu, in *inst) bool {
	if c.cpl != 0 {
		return c.raise(vectorUD)
	}
	c.flags &^= x86.FlagAC
	if in.op == 1 {
		c.flags |= x86.FlagAC
	}
	c.setMMU()
	return true
}

func opNop(*cpu, *inst) bool { return true }

// opPause ends the block, so that a CPU that spins is interruptible soon and,
// where CPUs take turns, gives up its own.
func opPause(c *cpu, in *inst) bool {
	if len(c.vm.turns.all) > 1 {
		c.endOfTurn = c.icount
		c.setUntil()
	}
	return c.done(in)
}

func opUndefined(c *cpu, in *inst) bool {
	c.unknown(in)
	return c.raise(vectorUD)
}

// opUD is UD0, UD1 and UD2: undefined by definition.
func opUD(c *cpu, in *inst) bool { return c.raise(vectorUD) }

func opGP0(c *cpu, in *inst) bool { return c.raiseCode(vectorGP, 0) }

// opNoSSE raises what an SSE instruction does when SSE is off.
func opNoSSE(c *cpu, in *inst) bool {
	if c.cr0&x86.CR0EM != 0 || c.cr4&x86.CR4OSFXSR == 0 {
		return c.raise(vectorUD)
	}
	return c.raise(vectorNM)
}

// opNoFPU raises what an x87 (op 0) or MMX (op 1) instruction does when the
// FPU is off.
func opNoFPU(c *cpu, in *inst) bool {
	if in.op == 1 && c.cr0&x86.CR0EM != 0 {
		return c.raise(vectorUD)
	}
	return c.raise(vectorNM)
}

func opSwapgs(c *cpu, in *inst) bool {
	if !c.code64() {
		return c.raise(vectorUD)
	}
	if c.cpl != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	s := &c.seg[segGS]
	s.base, c.msr.kernelGS = c.msr.kernelGS, s.base
	c.regs[rSeg+segGS] = s.base
	return true
}

// opFSGSBase is RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE by bits 0 and 1 of op.
func opFSGSBase(c *cpu, in *inst) bool {
	if !c.code64() || c.cr4&x86.CR4FSGSBASE == 0 {
		return c.raise(vectorUD)
	}
	n := segFS + int(in.op&1)
	if in.op&2 == 0 {
		c.setGPR(in.rm, in.size, c.seg[n].base)
		return true
	}
	v := c.gpr(in.rm, in.size)
	if uint64(int64(v<<16)>>16) != v {
		return c.raiseCode(vectorGP, 0)
	}
	c.seg[n].base = v
	c.regs[rSeg+n] = v
	return true
}

// opVerify is VERR (op 0) and VERW (op 1).
func opVerify(c *cpu, in *inst) bool {
	sel, ok := c.readWord(in)
	if !ok {
		return false
	}
	s, found, ok := c.peekSegment(sel)
	if !ok {
		return false
	}
	f := c.rflags() &^ x86.FlagZF
	if found && c.verify(&s, sel, in.op == 1) {
		f |= x86.FlagZF
	}
	c.flags = f
	return true
}

func (c *cpu) verify(s *segment, sel uint16, write bool) bool {
	if s.attr&attrS == 0 {
		return false
	}
	conforming := s.attr&(attrCode|attrConforming) == attrCode|attrConforming
	if !conforming && (s.dpl() < c.cpl || s.dpl() < uint8(sel&3)) {
		return false
	}
	if write {
		return s.attr&(attrCode|attrWritable) == attrWritable
	}
	return s.attr&(attrCode|attrReadable) != attrCode
}

// peekSegment reads a descriptor without raising anything for a bad selector.
func (c *cpu) peekSegment(sel uint16) (s segment, found, ok bool) {
	if sel&^3 == 0 {
		return s, false, true
	}
	raw, _, ok := c.descriptor(sel, vectorGP, 0)
	if !ok {
		if c.exc.vector == vectorPF {
			return s, false, false
		}
		c.stop = stopNone
		return s, false, true
	}
	return makeSegment(sel, raw), true, true
}

// opLar is LAR (op 0) and LSL (op 1).
func opLar(c *cpu, in *inst) bool {
	sel, ok := c.readWord(in)
	if !ok {
		return false
	}
	s, found, ok := c.peekSegment(sel)
	if !ok {
		return false
	}
	f := c.rflags() &^ x86.FlagZF
	if found && c.visible(&s, sel, in.op) {
		f |= x86.FlagZF
		v := uint64(s.limit)
		if in.op == 0 {
			raw, _, ok := c.descriptor(sel, vectorGP, 0)
			if !ok {
				return false
			}
			v = raw >> 32 & 0x00ffff00
		}
		c.setGPR(in.reg, in.size, v)
	}
	c.flags = f
	return true
}

// visible says whether LAR or LSL may look at the descriptor.
func (c *cpu) visible(s *segment, sel uint16, op uint8) bool {
	if s.attr&attrS == 0 {
		kinds := uint16(1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<9 | 1<<11 | 1<<12)
		switch {
		case c.long():
			kinds = 1<<2 | 1<<9 | 1<<11 | 1<<12
		}
		if op == 1 {
			kinds &^= 1<<4 | 1<<5 | 1<<12
		}
		if kinds>>(s.attr&15)&1 == 0 {
			return false
		}
	}
	conforming := s.attr&(attrS|attrCode|attrConforming) == attrS|attrCode|attrConforming
	return conforming || s.dpl() >= c.cpl && s.dpl() >= uint8(sel&3)
}

func opArpl(c *cpu, in *inst) bool {
	v, ok := c.modifyRM(in)
	if !ok {
		return false
	}
	f := c.rflags() &^ x86.FlagZF
	if rpl := c.regs[in.reg&31] & 3; v&3 < rpl {
		if !c.writeRM(in, v&^3|rpl) {
			return false
		}
		f |= x86.FlagZF
	}
	c.flags = f
	return true
}

// opTouch is CLFLUSH and its like: nothing is cached, but the address must be
// one that can be read.
func opTouch(c *cpu, in *inst) bool {
	_, ok := c.load8(c.ea(in))
	return ok
}

func opBound(c *cpu, in *inst) bool {
	a := c.ea(in)
	lo, ok := c.load(a, in.size)
	if !ok {
		return false
	}
	hi, ok := c.load(a+uint64(in.size), in.size)
	if !ok {
		return false
	}
	v := int64(signExtend(c.regs[in.reg&31], in.sh))
	if v < int64(signExtend(lo, in.sh)) || v > int64(signExtend(hi, in.sh)) {
		return c.raise(vectorBR)
	}
	return true
}

// opInt1 is INT1: a debug exception that no gate's DPL keeps out.
func opInt1(c *cpu, in *inst) bool {
	c.rip = c.nextIP(in)
	if !c.deliver(vectorDB, event{kind: eventTrap}) {
		c.stop = stopOut
		return false
	}
	c.stop = stopDone
	return false
}
