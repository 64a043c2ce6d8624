package softcpu

import (
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Exceptions and interrupts: SDM vol. 3, chapter 6.

// Vectors by the names that the handlers use.
const (
	vectorDE  = x86.VectorDE
	vectorDB  = x86.VectorDB
	vectorNMI = 2
	vectorBP  = x86.VectorBP
	vectorOF  = x86.VectorOF
	vectorBR  = x86.VectorBR
	vectorUD  = x86.VectorUD
	vectorNM  = x86.VectorNM
	vectorDF  = x86.VectorDF
	vectorTS  = x86.VectorTS
	vectorNP  = x86.VectorNP
	vectorSS  = x86.VectorSS
	vectorGP  = x86.VectorGP
	vectorPF  = x86.VectorPF
	vectorMF  = x86.VectorMF
	vectorAC  = x86.VectorAC
	vectorXM  = x86.VectorXM
)

// exception is what an instruction raised.
type exception struct {
	vector    uint8
	hasCode   bool
	canonical bool // #GP(0) for a non-canonical address: #SS(0) if it was the stack's
	code      uint32
	address   uint64 // #PF: for CR2
}

// event is how a vector comes to be delivered.
type event struct {
	kind    eventKind
	hasCode bool
	code    uint32
}

type eventKind uint8

const (
	eventFault    eventKind = iota // an exception of the instruction at RIP
	eventTrap                      // an exception behind the instruction: #DB
	eventHardware                  // an interrupt or NMI
	eventSoft                      // INT n, INT3, INTO: subject to the gate's DPL
)

// raise makes the running instruction fault. It returns false for the handler
// to return.
func (c *cpu) raise(vector uint8) bool {
	c.exc.vector, c.exc.hasCode, c.exc.code, c.exc.canonical = vector, false, 0, false
	c.stop = stopFault
	return false
}

// raiseCode is raise with an error code.
func (c *cpu) raiseCode(vector uint8, code uint32) bool {
	c.exc.vector, c.exc.hasCode, c.exc.code, c.exc.canonical = vector, true, code, false
	c.stop = stopFault
	return false
}

func (c *cpu) raiseCanonical() bool {
	c.raiseCode(vectorGP, 0)
	c.exc.canonical = true
	return false
}

// fixStackFault turns the #GP of a non-canonical address into #SS if in
// addressed the stack segment (SDM vol. 3, 6.15, "Interrupt 12").
func (c *cpu) fixStackFault(in *inst) {
	if c.exc.canonical && in.mem && in.flags&flagStack != 0 {
		c.exc.vector = vectorSS
	}
	c.exc.canonical = false
}

// deliverFault delivers the exception in cpu.exc. It returns false on a triple
// fault, with the exit prepared.
func (c *cpu) deliverFault() bool {
	e := c.exc
	if e.vector == vectorPF {
		c.cr2 = e.address
	}
	return c.deliver(e.vector, event{kind: eventFault, hasCode: e.hasCode, code: e.code})
}

// deliver takes the CPU to the handler of a vector. Exceptions on the way make
// it another vector, a double fault or a triple fault (SDM vol. 3, 6.15,
// "Interrupt 8").
func (c *cpu) deliver(vector uint8, ev event) bool {
	c.next, c.linkTo = nil, -1
	c.icount++ // time passes, even if every handler begins with a fault
	c.noteEvent(vector, ev)
	for {
		if c.enter(vector, ev) {
			c.stop = stopNone
			c.setMode()
			c.setMMU()
			return true
		}
		c.stop = stopNone
		nested := c.exc
		switch {
		case vector == vectorDF && ev.kind == eventFault:
			c.io.exit = x86.Exit{Reason: x86.ExitShutdown}
			return false
		case nested.vector == vectorPF:
			c.cr2 = nested.address
		}
		hard := ev.kind == eventFault
		if hard && contributory(nested.vector, vector == vectorPF) && (contributory(vector, true)) {
			vector, ev = vectorDF, event{kind: eventFault, hasCode: true}
			continue
		}
		vector = nested.vector
		ev = event{kind: eventFault, hasCode: nested.hasCode, code: nested.code}
	}
}

// contributory is the class of a vector in SDM vol. 3, table 6-4; withPF adds
// the page fault to it.
func contributory(vector uint8, withPF bool) bool {
	switch vector {
	case vectorDE, vectorTS, vectorNP, vectorSS, vectorGP:
		return true
	case vectorPF:
		return withPF
	}
	return false
}

// enter delivers a vector once. It returns false with cpu.exc set if that
// faults, having changed no registers. It cannot stop in the middle for the
// VMM: tables and stacks in the registers of a device float high.
func (c *cpu) enter(vector uint8, ev event) bool {
	c.event.entering = true
	defer c.entered()
	if !c.protected() {
		return c.enterReal(vector)
	}
	g, ok := c.gate(vector, ev)
	if !ok {
		return false
	}
	return c.enterGate(g, ev)
}

func (c *cpu) entered() { c.event.entering = false }

// enterReal is the delivery of real mode (SDM vol. 3, 21.1.4).
func (c *cpu) enterReal(vector uint8) bool {
	if uint32(vector)*4+3 > uint32(c.idt.Limit) {
		return c.raiseCode(vectorGP, 0)
	}
	v, ok := c.load32(c.idt.Base + uint64(vector)*4)
	if !ok {
		return false
	}
	s := c.stackNow()
	if !s.push(2, c.rflags()) || !s.push(2, uint64(c.seg[segCS].sel)) || !s.push(2, c.rip) {
		return false
	}
	s.commit()
	c.flags &^= x86.FlagIF | x86.FlagTF | x86.FlagAC | x86.FlagRF
	c.loadSegReal(segCS, uint16(v>>16))
	c.rip = v & 0xffff
	return true
}

// gate is a descriptor of the IDT that leads to a handler.
type gate struct {
	sel    uint16
	ist    uint8
	wide   uint8 // bytes of a push
	trap   bool  // leaves IF alone
	offset uint64
	cs     segment
	cpl    uint8
	ext    uint32
}

// gate reads and checks the gate and the code segment of a vector (SDM vol. 3,
// 6.12.1, 6.14.1; vol. 2, INT n).
func (c *cpu) gate(vector uint8, ev event) (g gate, ok bool) {
	size := uint64(8)
	if c.long() {
		size = 16
	}
	if ev.kind != eventSoft {
		g.ext = 1
	}
	code := uint32(vector)<<3 | 2 | g.ext
	if uint64(vector)*size+size-1 > uint64(c.idt.Limit) {
		return g, c.raiseCode(vectorGP, code)
	}
	at := c.idt.Base + uint64(vector)*size
	var lo, hi uint64
	if !c.sysLoad(at, &lo) || size == 16 && !c.sysLoad(at+8, &hi) {
		return g, false
	}
	attr := lo >> 40
	kind := attr & 0x1f
	if c.long() && kind != 0xe && kind != 0xf || kind&^9 != 6 {
		return g, c.raiseCode(vectorGP, code)
	}
	if ev.kind == eventSoft && uint8(attr>>5&3) < c.cpl {
		return g, c.raiseCode(vectorGP, code)
	}
	if attr&attrP == 0 {
		return g, c.raiseCode(vectorNP, code)
	}
	g.sel, g.offset, g.trap = uint16(lo>>16), lo&0xffff|lo>>32&0xffff0000, kind&1 != 0
	g.wide = 2
	switch {
	case c.long():
		g.offset |= hi << 32
		g.ist, g.wide = uint8(lo>>32&7), 8
	case kind&8 != 0:
		g.wide = 4
	default:
		g.offset &= 0xffff
	}
	return g, c.gateSegment(&g)
}

func (c *cpu) gateSegment(g *gate) bool {
	if g.sel&^3 == 0 {
		return c.raiseCode(vectorGP, g.ext)
	}
	raw, _, ok := c.descriptor(g.sel, vectorGP, g.ext)
	if !ok {
		return false
	}
	s := makeSegment(g.sel, raw)
	code := uint32(g.sel&^3) | g.ext
	if s.attr&(attrS|attrCode) != attrS|attrCode || s.dpl() > c.cpl ||
		c.long() && s.attr&(attrL|attrDB) != attrL {
		return c.raiseCode(vectorGP, code)
	}
	if !s.usable() {
		return c.raiseCode(vectorNP, code)
	}
	g.cpl = s.dpl()
	if s.attr&attrConforming != 0 {
		g.cpl = c.cpl
	}
	if c.vm86() && g.cpl != 0 {
		return c.raiseCode(vectorGP, code)
	}
	s.sel = g.sel&^3 | uint16(g.cpl)
	g.cs = s
	return true
}

// enterGate switches stacks where needed, pushes the frame and goes to the
// handler.
func (c *cpu) enterGate(g gate, ev event) bool {
	image := c.rflags()
	if ev.kind == eventFault {
		image |= x86.FlagRF
	}
	st, ok := c.handlerStack(&g)
	if !ok {
		return false
	}
	if !c.asLevel(g.cpl, func() bool { return c.pushFrame(&st, &g, ev, image) }) {
		return false
	}
	wasVM := c.vm86()
	c.settleFlags()
	c.flags &^= x86.FlagTF | x86.FlagNT | x86.FlagRF | x86.FlagVM
	if !g.trap {
		c.flags &^= x86.FlagIF
	}
	if wasVM {
		for _, s := range []int{segGS, segFS, segDS, segES} {
			c.setSeg(s, segment{})
		}
	}
	c.cpl = g.cpl
	c.setSeg(segCS, g.cs)
	st.commit()
	c.rip = g.offset
	return true
}

// handlerStack chooses the stack of a handler: the running one, the one of the
// new privilege level in the TSS, or one of the interrupt stack table.
func (c *cpu) handlerStack(g *gate) (stack, bool) {
	st := c.stackNow()
	if c.long() {
		st.width = 8
		st.seg.base = 0
		st.check = false
		switch {
		case g.ist != 0:
			return c.longStack(st, g, 0x24+8*uint64(g.ist-1))
		case g.cpl < c.cpl:
			return c.longStack(st, g, 4+8*uint64(g.cpl))
		}
		st.sp &^= 15
		return st, true
	}
	if g.cpl >= c.cpl && !c.vm86() {
		return st, true
	}
	seg, sp, ok := c.innerStack(g.cpl, g.ext)
	if !ok {
		return st, false
	}
	return c.stackOf(seg, sp), true
}

// longStack takes RSP from offset off of the 64-bit TSS. A change of privilege
// loads SS with null (SDM vol. 3, 6.14.2).
func (c *cpu) longStack(st stack, g *gate, off uint64) (stack, bool) {
	if off+7 > uint64(c.tss.limit) {
		return st, c.raiseCode(vectorTS, uint32(c.tss.sel&^3)|g.ext)
	}
	var sp uint64
	if !c.sysLoad(c.tss.base+off, &sp) {
		return st, false
	}
	if uint64(int64(sp<<16)>>16) != sp {
		return st, c.raiseCode(vectorSS, g.ext)
	}
	st.sp = sp &^ 15
	if g.cpl < c.cpl {
		st.seg = segment{sel: uint16(g.cpl), attr: attrP | attrS | attrWritable | attrAccessed | uint16(g.cpl)<<5 | attrDB | attrG, limit: ^uint32(0)}
		st.newSeg = true
	}
	return st, true
}

// pushFrame pushes what IRET pops, and the error code.
func (c *cpu) pushFrame(st *stack, g *gate, ev event, image uint64) bool {
	w := g.wide
	if c.vm86() {
		for _, s := range []int{segGS, segFS, segDS, segES} {
			if !st.push(w, uint64(c.seg[s].sel)) {
				return false
			}
		}
	}
	if c.long() || g.cpl < c.cpl || c.vm86() {
		if !st.push(w, uint64(c.seg[segSS].sel)) || !st.push(w, c.regs[rSP]) {
			return false
		}
	}
	if !st.push(w, image) || !st.push(w, uint64(c.seg[segCS].sel)) || !st.push(w, c.rip) {
		return false
	}
	return !ev.hasCode || st.push(w, uint64(ev.code))
}

// asLevel runs f with the memory privilege of a level.
func (c *cpu) asLevel(cpl uint8, f func() bool) bool {
	if cpl == 3 {
		return f()
	}
	return c.system(f)
}

// sysLoad reads 8 bytes of a system structure.
func (c *cpu) sysLoad(a uint64, v *uint64) bool {
	return c.system(func() (ok bool) {
		*v, ok = c.load64(a)
		return ok
	})
}
