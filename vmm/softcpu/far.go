package softcpu

import "github.com/vitrine-vmm/vitrine/vmm/x86"

// Far transfers of control (SDM vol. 2, CALL, JMP, RET, IRET; vol. 3, 5.8).
// Task gates and task switches are not provided: #GP, as a task gate's
// selector without a task would give.

// codeTarget checks the code segment sel as the target of a far JMP or CALL,
// or, with ret, of a far return to privilege rpl.
func (c *cpu) codeTarget(sel uint16, ret bool) (s segment, ok bool) {
	if sel&^3 == 0 {
		return s, c.raiseCode(vectorGP, 0)
	}
	raw, at, ok := c.descriptor(sel, vectorGP, 0)
	if !ok {
		return s, false
	}
	s = makeSegment(sel, raw)
	code, rpl, dpl := uint32(sel&^3), uint8(sel&3), s.dpl()
	if s.attr&(attrS|attrCode) != attrS|attrCode || c.long() && s.attr&(attrL|attrDB) == attrL|attrDB {
		return s, c.raiseCode(vectorGP, code)
	}
	conforming := s.attr&attrConforming != 0
	var bad bool
	switch {
	case ret:
		bad = rpl < c.cpl || conforming && dpl > rpl || !conforming && dpl != rpl
	case conforming:
		bad = dpl > c.cpl
	default:
		bad = rpl > c.cpl || dpl != c.cpl
	}
	if bad {
		return s, c.raiseCode(vectorGP, code)
	}
	if !s.usable() {
		return s, c.raiseCode(vectorNP, code)
	}
	if !ret {
		s.sel = sel&^3 | uint16(c.cpl)
	}
	return s, c.markAccessed(&s, at)
}

// systemTarget says whether sel names a system descriptor, a gate.
func (c *cpu) systemTarget(sel uint16) (raw uint64, isGate, ok bool) {
	if sel&^3 == 0 {
		return 0, false, c.raiseCode(vectorGP, 0)
	}
	raw, _, ok = c.descriptor(sel, vectorGP, 0)
	return raw, raw>>44&1 == 0, ok
}

// setCode makes s the code segment and goes to ip.
func (c *cpu) setCode(s segment, ip uint64) bool {
	c.setSeg(segCS, s)
	c.setMode()
	c.stop = stopDone
	return c.branch(ip & c.ipMask)
}

// ipFits checks a target against the segment's limit, or for being canonical.
func (c *cpu) ipFits(s *segment, ip uint64) bool {
	if c.long() && s.attr&attrL != 0 {
		if uint64(int64(ip<<16)>>16) == ip {
			return true
		}
	} else if ip <= uint64(s.limit) {
		return true
	}
	return c.raiseCode(vectorGP, 0)
}

// farPointer reads m16:16, m16:32 or m16:64.
func (c *cpu) farPointer(in *inst) (sel uint16, ip uint64, ok bool) {
	a := c.ea(in)
	if ip, ok = c.load(a, in.size); !ok {
		return 0, 0, false
	}
	v, ok := c.load16(a + uint64(in.size))
	return uint16(v), ip, ok
}

func opJmpFar(c *cpu, in *inst) bool {
	return c.jumpFar(uint16(in.imm>>32), in.imm&0xffffffff)
}

func opJmpFarM(c *cpu, in *inst) bool {
	sel, ip, ok := c.farPointer(in)
	return ok && c.jumpFar(sel, ip)
}

func (c *cpu) jumpFar(sel uint16, ip uint64) bool {
	if !c.protected() || c.vm86() {
		if ip > uint64(c.seg[segCS].limit) {
			return c.raiseCode(vectorGP, 0)
		}
		c.loadSegReal(segCS, sel)
		c.setMode()
		c.stop = stopDone
		return c.branch(ip)
	}
	raw, isGate, ok := c.systemTarget(sel)
	if !ok {
		return false
	}
	if isGate {
		if sel, ip, _, ok = c.callGate(sel, raw); !ok {
			return false
		}
	}
	s, ok := c.codeTarget(sel&^3|uint16(c.cpl), false)
	if !ok || !c.ipFits(&s, ip) {
		return false
	}
	if !isGate && uint8(sel&3) > c.cpl && s.attr&attrConforming == 0 {
		return c.raiseCode(vectorGP, uint32(sel&^3))
	}
	return c.setCode(s, ip)
}

// callGate reads a call gate (SDM vol. 3, 5.8.3).
func (c *cpu) callGate(sel uint16, raw uint64) (target uint16, ip uint64, size uint8, ok bool) {
	code := uint32(sel &^ 3)
	kind, dpl := raw>>40&15, uint8(raw>>45&3)
	if kind != 12 && (kind != 4 || c.long()) || dpl < c.cpl || dpl < uint8(sel&3) {
		return 0, 0, 0, c.raiseCode(vectorGP, code)
	}
	if raw>>47&1 == 0 {
		return 0, 0, 0, c.raiseCode(vectorNP, code)
	}
	target, ip, size = uint16(raw>>16), raw&0xffff, 2
	if kind == 12 {
		ip |= raw >> 32 & 0xffff0000
		size = 4
	}
	if c.long() {
		_, at, _ := c.descriptor(sel, vectorGP, 0)
		var hi uint64
		if !c.sysLoad(at+8, &hi) {
			return 0, 0, 0, false
		}
		ip |= hi << 32
		size = 8
	}
	return target, ip, size, true
}

func opCallFar(c *cpu, in *inst) bool {
	return c.callFar(in, uint16(in.imm>>32), in.imm&0xffffffff)
}

func opCallFarM(c *cpu, in *inst) bool {
	sel, ip, ok := c.farPointer(in)
	return ok && c.callFar(in, sel, ip)
}

func (c *cpu) callFar(in *inst, sel uint16, ip uint64) bool {
	st, ret, cs := c.stackNow(), c.nextIP(in), uint64(c.seg[segCS].sel)
	if !c.protected() || c.vm86() {
		if !st.push(in.size, cs) || !st.push(in.size, ret) {
			return false
		}
		st.commit()
		c.loadSegReal(segCS, sel)
		c.setMode()
		c.stop = stopDone
		return c.branch(ip)
	}
	raw, isGate, ok := c.systemTarget(sel)
	if !ok {
		return false
	}
	size := in.size
	if isGate {
		if sel, ip, size, ok = c.callGate(sel, raw); !ok {
			return false
		}
		if s, inner, ok := c.innerTarget(sel); !ok || inner {
			return ok && c.callInner(in, s, ip, size, raw>>32&31)
		}
		sel = sel&^3 | uint16(c.cpl)
	}
	s, ok := c.codeTarget(sel, false)
	if !ok || !c.ipFits(&s, ip) || !st.push(size, cs) || !st.push(size, ret) {
		return false
	}
	st.commit()
	return c.setCode(s, ip)
}

// innerTarget says whether a call gate's target is code of an inner privilege,
// and returns its segment if so.
func (c *cpu) innerTarget(sel uint16) (s segment, inner, ok bool) {
	if sel&^3 == 0 {
		return s, false, c.raiseCode(vectorGP, 0)
	}
	raw, at, ok := c.descriptor(sel, vectorGP, 0)
	if !ok {
		return s, false, false
	}
	s = makeSegment(sel, raw)
	if s.attr&(attrS|attrCode|attrConforming) != attrS|attrCode || s.dpl() >= c.cpl {
		return s, false, true // the checks of a call in the same privilege apply
	}
	code := uint32(sel &^ 3)
	if c.long() && s.attr&(attrL|attrDB) != attrL {
		return s, false, c.raiseCode(vectorGP, code)
	}
	if !s.usable() {
		return s, false, c.raiseCode(vectorNP, code)
	}
	s.sel = sel&^3 | uint16(s.dpl())
	return s, true, c.markAccessed(&s, at)
}

// callInner calls code of an inner privilege on that privilege's stack, with
// so many parameters copied from the caller's (SDM vol. 3, 5.8.5).
func (c *cpu) callInner(in *inst, s segment, ip uint64, size uint8, params uint64) bool {
	cpl, old := s.dpl(), c.stackNow()
	if !c.ipFits(&s, ip) {
		return false
	}
	st, ok := c.callStack(cpl)
	if !ok {
		return false
	}
	var copied [31]uint64
	if c.long() {
		params = 0
	}
	for i := range params {
		a, ok := old.addr(old.sp+i*uint64(size), size)
		if !ok {
			return false
		}
		if copied[i], ok = c.load(a, size); !ok {
			return false
		}
	}
	pushed := c.asLevel(cpl, func() bool {
		if !st.push(size, uint64(c.seg[segSS].sel)) || !st.push(size, c.regs[rSP]) {
			return false
		}
		for i := params; i > 0; i-- {
			if !st.push(size, copied[i-1]) {
				return false
			}
		}
		return st.push(size, uint64(c.seg[segCS].sel)) && st.push(size, c.nextIP(in))
	})
	if !pushed {
		return false
	}
	c.cpl = cpl
	st.commit()
	c.setCode(s, ip)
	c.setMMU()
	return false
}

// callStack is the stack that the TSS has for a privilege level.
func (c *cpu) callStack(cpl uint8) (stack, bool) {
	if !c.long() {
		seg, sp, ok := c.innerStack(cpl, 0)
		if !ok {
			return stack{}, false
		}
		return c.stackOf(seg, sp), true
	}
	st, ok := c.longStack(stack{c: c, width: 8}, &gate{cpl: cpl}, 4+8*uint64(cpl))
	if !ok {
		return st, false
	}
	// Unlike an interrupt's, it is not aligned.
	return st, c.sysLoad(c.tss.base+4+8*uint64(cpl), &st.sp)
}

// opRetFar is RETF; the immediate is the number of bytes of parameters.
func opRetFar(c *cpu, in *inst) bool {
	st := c.stackNow()
	ip, ok := st.pop(in.size)
	if !ok {
		return false
	}
	v, ok := st.pop(in.size)
	if !ok {
		return false
	}
	sel := uint16(v)
	if !c.protected() || c.vm86() {
		st.sp += in.imm
		st.commit()
		c.loadSegReal(segCS, sel)
		c.setMode()
		c.stop = stopDone
		return c.branch(ip)
	}
	s, ok := c.codeTarget(sel, true)
	if !ok || !c.ipFits(&s, ip) {
		return false
	}
	st.sp += in.imm
	if uint8(sel&3) == c.cpl {
		st.commit()
		return c.setCode(s, ip)
	}
	return c.returnOuter(&st, in.size, s, ip, in.imm)
}

// returnOuter finishes a return to less privilege: the outer stack is popped
// from the inner one, and segments that the outer level may not use become
// null (SDM vol. 2, RET, "RETURN-TO-OUTER-PRIVILEGE-LEVEL").
func (c *cpu) returnOuter(st *stack, size uint8, cs segment, ip, params uint64) bool {
	sp, ok := st.pop(size)
	if !ok {
		return false
	}
	sel, ok := st.pop(size)
	if !ok {
		return false
	}
	rpl := uint8(cs.sel & 3)
	ss, ok := c.outerStack(uint16(sel), rpl, cs.attr&attrL != 0 && c.long())
	if !ok {
		return false
	}
	c.cpl = rpl
	c.setSeg(segSS, ss)
	c.setCode(cs, ip)
	n := c.stackNow()
	n.sp = sp + params
	n.commit()
	for _, k := range []int{segES, segDS, segFS, segGS} {
		s := &c.seg[k]
		if s.attr&(attrCode|attrConforming) != attrCode|attrConforming && s.dpl() < rpl && s.sel&^3 != 0 {
			c.setSeg(k, segment{})
		}
	}
	c.setMode()
	c.setMMU()
	return false
}

// outerStack checks SS for a return to privilege rpl.
func (c *cpu) outerStack(sel uint16, rpl uint8, to64 bool) (s segment, ok bool) {
	if sel&^3 == 0 {
		if to64 && rpl != 3 && uint8(sel&3) == rpl {
			return segment{sel: sel, attr: attrS | attrWritable | uint16(rpl)<<5}, true
		}
		return s, c.raiseCode(vectorGP, 0)
	}
	raw, at, ok := c.descriptor(sel, vectorGP, 0)
	if !ok {
		return s, false
	}
	s = makeSegment(sel, raw)
	code := uint32(sel &^ 3)
	if uint8(sel&3) != rpl || s.dpl() != rpl || s.attr&(attrS|attrCode|attrWritable) != attrS|attrWritable {
		return s, c.raiseCode(vectorGP, code)
	}
	if !s.usable() {
		return s, c.raiseCode(vectorSS, code)
	}
	return s, c.markAccessed(&s, at)
}

// innerStack reads SS and the stack pointer for a privilege level from a 16-
// or 32-bit TSS (SDM vol. 3, 8.2.1).
func (c *cpu) innerStack(cpl uint8, ext uint32) (s segment, sp uint64, ok bool) {
	code := uint32(c.tss.sel&^3) | ext
	wide := c.tss.attr&8 != 0
	off, size := 2+4*uint64(cpl), uint64(2)
	if wide {
		off, size = 4+8*uint64(cpl), 4
	}
	if off+size+1 > uint64(c.tss.limit) {
		return s, 0, c.raiseCode(vectorTS, code)
	}
	var v uint64
	if !c.sysLoad(c.tss.base+off, &v) {
		return s, 0, false
	}
	sel := uint16(v >> (8 * size))
	sp = v & (1<<(8*size) - 1)
	if sel&^3 == 0 {
		return s, 0, c.raiseCode(vectorTS, ext)
	}
	raw, _, ok := c.descriptor(sel, vectorTS, ext)
	if !ok {
		return s, 0, false
	}
	s = makeSegment(sel, raw)
	code = uint32(sel&^3) | ext
	if uint8(sel&3) != cpl || s.dpl() != cpl || s.attr&(attrS|attrCode|attrWritable) != attrS|attrWritable {
		return s, 0, c.raiseCode(vectorTS, code)
	}
	if !s.usable() {
		return s, 0, c.raiseCode(vectorSS, code)
	}
	return s, sp, true
}

// opIret is IRET, IRETD and IRETQ.
func opIret(c *cpu, in *inst) bool {
	if c.vm86() && c.iopl() < 3 {
		return c.raiseCode(vectorGP, 0)
	}
	if c.flags&x86.FlagNT != 0 && c.protected() && !c.vm86() {
		return c.raiseCode(vectorGP, 0) // a return to another task
	}
	st := c.stackNow()
	var v [3]uint64
	for i := range v {
		var ok bool
		if v[i], ok = st.pop(in.size); !ok {
			return false
		}
	}
	ip, sel, flags := v[0], uint16(v[1]), v[2]
	if !c.protected() || c.vm86() {
		return c.iretReal(&st, in, ip, sel, flags)
	}
	if flags&x86.FlagVM != 0 && c.cpl == 0 && in.size == 4 && !c.long() {
		return c.iretVM(&st, ip, sel, flags)
	}
	s, ok := c.codeTarget(sel, true)
	if !ok || !c.ipFits(&s, ip) {
		return false
	}
	if uint8(sel&3) == c.cpl && !c.code64() {
		st.commit()
		c.setIretFlags(flags, in.size)
		return c.setCode(s, ip)
	}
	return c.iretStack(&st, in.size, s, ip, flags)
}

// iretStack finishes an IRET that also pops the stack: to less privilege, and
// always in 64-bit mode.
func (c *cpu) iretStack(st *stack, size uint8, s segment, ip, flags uint64) bool {
	if uint8(s.sel&3) > c.cpl {
		cpl := c.cpl
		c.event.nmiBlocked = false
		if c.returnOuterPeek(st, size, s) {
			// Flags as the old privilege allows, then the new privilege.
			c.setIretFlags(flags, size)
			return c.returnOuter(st, size, s, ip, 0)
		}
		c.cpl = cpl
		return false
	}
	sp, ok := st.pop(size)
	if !ok {
		return false
	}
	sel, ok := st.pop(size)
	if !ok {
		return false
	}
	ss, ok := c.outerStack(uint16(sel), c.cpl, s.attr&attrL != 0)
	if !ok {
		return false
	}
	c.setIretFlags(flags, size)
	c.setSeg(segSS, ss)
	c.setCode(s, ip)
	n := c.stackNow()
	n.sp = sp
	n.commit()
	return false
}

// returnOuterPeek checks that returnOuter will succeed.
func (c *cpu) returnOuterPeek(st *stack, size uint8, cs segment) bool {
	peek := *st
	if _, ok := peek.pop(size); !ok {
		return false
	}
	sel, ok := peek.pop(size)
	if !ok {
		return false
	}
	_, ok = c.outerStack(uint16(sel), uint8(cs.sel&3), cs.attr&attrL != 0 && c.long())
	return ok
}

// setIretFlags loads RFLAGS; unlike POPF, IRET also restores RF.
func (c *cpu) setIretFlags(v uint64, size uint8) {
	c.event.nmiBlocked = false
	c.setFlags(v, size)
	if size > 2 {
		c.flags |= v & x86.FlagRF
	}
}

func (c *cpu) iretReal(st *stack, in *inst, ip uint64, sel uint16, flags uint64) bool {
	if ip > uint64(c.seg[segCS].limit) {
		return c.raiseCode(vectorGP, 0)
	}
	st.commit()
	c.loadSegReal(segCS, sel)
	mask := uint64(flagsUser | x86.FlagIF | x86.FlagRF)
	if !c.vm86() {
		mask |= x86.FlagIOPL
	}
	if in.size == 2 {
		mask &= 0xffff
	}
	c.event.nmiBlocked = false
	c.changeFlags(flags, mask)
	c.setMode()
	c.stop = stopDone
	return c.branch(ip)
}

// iretVM enters virtual-8086 mode.
func (c *cpu) iretVM(st *stack, ip uint64, sel uint16, flags uint64) bool {
	var v [6]uint64 // ESP, SS, ES, DS, FS, GS
	for i := range v {
		var ok bool
		if v[i], ok = st.pop(4); !ok {
			return false
		}
	}
	c.changeFlags(flags, flagsUser|x86.FlagIOPL|x86.FlagIF|x86.FlagVM|x86.FlagRF)
	c.cpl = 3
	c.loadSegReal(segCS, sel)
	c.loadSegReal(segSS, uint16(v[1]))
	for i, n := range []int{segES, segDS, segFS, segGS} {
		c.loadSegReal(n, uint16(v[2+i]))
	}
	c.regs[rSP] = v[0] & 0xffffffff
	c.setMode()
	c.setMMU()
	c.stop = stopDone
	return c.branch(ip & 0xffff)
}

// opInt is INT n; INT3 has its vector in op and no IOPL check.
func opInt(c *cpu, in *inst) bool {
	if c.vm86() && c.iopl() < 3 {
		return c.raiseCode(vectorGP, 0)
	}
	return c.softInterrupt(uint8(in.imm), in)
}

func opInt3(c *cpu, in *inst) bool {
	if c.debug.Int3 {
		c.rip = c.ipAt(in.off)
		c.debugExit(vectorBP, 0)
		return false
	}
	return c.softInterrupt(vectorBP, in)
}

func opInto(c *cpu, in *inst) bool {
	if !c.of() {
		return true
	}
	return c.softInterrupt(vectorOF, in)
}

// softInterrupt delivers a vector behind the instruction. If that faults, the
// fault is the instruction's.
func (c *cpu) softInterrupt(vector uint8, in *inst) bool {
	c.rip = c.nextIP(in)
	c.noteEvent(vector, event{kind: eventSoft})
	if !c.enter(vector, event{kind: eventSoft}) {
		return false
	}
	c.setMode()
	c.setMMU()
	c.next, c.linkTo = nil, -1
	c.stop = stopDone
	return false
}

// opSyscall is SYSCALL (SDM vol. 2).
func opSyscall(c *cpu, in *inst) bool {
	if c.efer&x86.EFERSCE == 0 || !c.code64() {
		return c.raise(vectorUD)
	}
	f := c.rflags()
	c.regs[rCX] = c.nextIP(in)
	c.regs[rR11] = f &^ x86.FlagRF
	c.flags = f&^c.msr.fmask&^x86.FlagRF | x86.Flag1
	c.cpl = 0
	c.flatCode(uint16(c.msr.star>>32)&^3, 0, true)
	c.flatStack(uint16(c.msr.star>>32)&^3+8, 0)
	c.setMode()
	c.setMMU()
	return c.resume(c.msr.lstar)
}

// resume goes on at ip after a change of privilege; the run loop looks at
// attn because the new flags may allow an interrupt.
func (c *cpu) resume(ip uint64) bool {
	c.rip, c.next, c.linkTo = ip, nil, -1
	return false
}

// flatCode loads CS as SYSCALL, SYSRET, SYSENTER and SYSEXIT do, without a
// descriptor.
func (c *cpu) flatCode(sel uint16, dpl uint8, l64 bool) {
	a := uint16(attrP | attrS | attrCode | attrReadable | attrAccessed | attrG)
	if l64 {
		a |= attrL
	} else {
		a |= attrDB
	}
	c.setSeg(segCS, segment{sel: sel | uint16(dpl), limit: ^uint32(0), attr: a | uint16(dpl)<<5})
}

func (c *cpu) flatStack(sel uint16, dpl uint8) {
	c.setSeg(segSS, segment{sel: sel | uint16(dpl), limit: ^uint32(0),
		attr: attrP | attrS | attrWritable | attrAccessed | attrG | attrDB | uint16(dpl)<<5})
}

// opSysret is SYSRET. A non-canonical RCX faults here, in the kernel, as on
// Intel's processors.
func opSysret(c *cpu, in *inst) bool {
	if c.efer&x86.EFERSCE == 0 || !c.code64() {
		return c.raise(vectorUD)
	}
	ip := c.regs[rCX]
	wide := in.size == 8
	if wide && uint64(int64(ip<<16)>>16) != ip {
		return c.raiseCode(vectorGP, 0)
	}
	base := uint16(c.msr.star >> 48)
	if wide {
		c.flatCode((base+16)|3, 3, true)
	} else {
		c.flatCode(base|3, 3, false)
		ip &= 0xffffffff
	}
	c.changeFlags(c.regs[rR11], 0x3c7fd7&^x86.FlagRF)
	c.cpl = 3
	c.flatStack((base+8)|3, 3)
	c.setMode()
	c.setMMU()
	return c.resume(ip)
}

// opSysenter is SYSENTER (SDM vol. 2).
func opSysenter(c *cpu, in *inst) bool {
	if !c.protected() || c.msr.sysenterCS&^3 == 0 {
		return c.raiseCode(vectorGP, 0)
	}
	c.settleFlags()
	c.flags &^= x86.FlagVM | x86.FlagIF | x86.FlagRF
	ip, sp := c.msr.sysenterEIP, c.msr.sysenterESP
	sel := uint16(c.msr.sysenterCS) &^ 3
	c.cpl = 0
	c.flatCode(sel, 0, c.long())
	c.flatStack(sel+8, 0)
	if !c.long() {
		ip, sp = ip&0xffffffff, sp&0xffffffff
	}
	c.regs[rSP] = sp
	c.setMode()
	c.setMMU()
	return c.resume(ip)
}

func opSysexit(c *cpu, in *inst) bool {
	sel := uint16(c.msr.sysenterCS) &^ 3
	if !c.protected() || c.cpl != 0 || sel == 0 {
		return c.raiseCode(vectorGP, 0)
	}
	wide := in.size == 8
	ip, sp := c.regs[rDX], c.regs[rCX]
	if wide {
		if uint64(int64(ip<<16)>>16) != ip || uint64(int64(sp<<16)>>16) != sp {
			return c.raiseCode(vectorGP, 0)
		}
		sel += 16
	} else {
		ip, sp = ip&0xffffffff, sp&0xffffffff
	}
	c.cpl = 3
	c.flatCode(sel+16, 3, wide)
	c.flatStack(sel+24, 3)
	c.regs[rSP] = sp
	c.setMode()
	c.setMMU()
	return c.resume(ip)
}
