package softcpu

import (
	"fmt"
	"slices"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// What a debugger, a trace or the guest itself (SDM vol. 3, chapter 17) wants
// to see of single instructions. While anything of it is on, blocks have one
// instruction, with a look (opLook) in front of it, and pages with watched
// bytes are in no TLB, so that every access to them is seen; nothing of it
// costs anything while it is off.

// Debug is what a debugger wants of a CPU. Each of it ends Run with ExitDebug.
type Debug struct {
	// Step: after one instruction.
	Step bool
	// NoInterrupts holds external interrupts back, so that a step is not into
	// a handler.
	NoInterrupts bool
	// Int3: at an INT3, instead of raising #BP in the guest.
	Int3 bool
	// Breakpoints are linear addresses: before the instruction there, except
	// when Run begins with it.
	Breakpoints []uint64
	// Watchpoints: behind an instruction that accesses one.
	Watchpoints []Watchpoint
}

// Watchpoint is Len bytes at a linear address, at most a page.
type Watchpoint struct {
	Addr, Len   uint64
	Read, Write bool
}

// Event is an exception or an interrupt on its way to its handler.
type Event struct {
	CPU      int
	Vector   uint8
	Software bool // INT n, INT3, INTO
	External bool // from the interrupt controllers
	HasCode  bool
	Code     uint32
	RIP      uint64 // of the instruction it interrupts
}

// debug is the CPU's part of it.
type debug struct {
	Debug
	looking  bool // opLook stands before each instruction
	watching bool // pages of watch are not in the TLBs
	watch    []watchpoint
	each     func(rip uint64, code []byte)
	event    func(Event)
	system   func(System)
	guest    bool // DR7 has something enabled

	skip    uint64 // the breakpoint that Run begins at, plus 1
	stepped bool   // an instruction has been executed since Step was set up
	hits    uint8  // guest's watchpoints that were hit, as in DR6
	hit     bool   // a debugger's was
	hitAt   uint64
	code    [maxInstruction]byte // fetched's
}

// watchpoint is one of the debugger's or of the guest's; dr is the bit of the
// latter in DR6.
type watchpoint struct {
	Watchpoint
	dr uint8
}

// SetDebug sets what a debugger wants, in place of what it wanted before.
func (v *VCPU) SetDebug(d Debug) error {
	for _, w := range d.Watchpoints {
		if w.Len == 0 || w.Len > pageSize || !w.Read && !w.Write {
			return fmt.Errorf("watchpoint at %#x: %d bytes, read %v, write %v: want 1 to %d bytes and an access", w.Addr, w.Len, w.Read, w.Write, pageSize)
		}
	}
	c := v.c
	d.Breakpoints, d.Watchpoints = slices.Clone(d.Breakpoints), slices.Clone(d.Watchpoints)
	c.debug.Debug = d
	c.debug.stepped, c.debug.hit = false, false
	c.debugChanged()
	return nil
}

// OnInstruction has f called before each instruction is executed, with its
// bytes, which are good until f returns; the registers are as the instruction
// finds them. nil ends that. f runs
// in Run, and may read the CPU's state.
func (v *VCPU) OnInstruction(f func(rip uint64, code []byte)) {
	v.c.debug.each = f
	v.c.debugChanged()
}

// OnEvent has f called for each exception and interrupt before it is
// delivered. nil ends that. f runs in Run.
func (v *VCPU) OnEvent(f func(Event)) { v.c.debug.event = f }

// System is a CPUID, RDMSR, WRMSR or HLT that was executed.
type System struct {
	Op    SystemOp
	RIP   uint64
	Index uint32 // CPUID: the leaf; MSRs: which
	Sub   uint32 // CPUID: the subleaf
	// CPUID: EAX, EBX, ECX, EDX. MSRs: the value's halves in the first two.
	Result [4]uint32
}

// SystemOp is which instruction a System is about.
type SystemOp uint8

// Instructions of a System.
const (
	SystemCPUID SystemOp = iota
	SystemReadMSR
	SystemWriteMSR
	SystemHalt
)

// OnSystem has f called after each instruction that a System can be about. nil
// ends that. f runs in Run.
func (v *VCPU) OnSystem(f func(System)) { v.c.debug.system = f }

// tellSystem tells whoever wants to know of an MSR's or of a halt.
func (c *cpu) tellSystem(in *inst, op SystemOp, index uint32, v uint64) {
	if f := c.debug.system; f != nil {
		f(System{Op: op, RIP: c.ipAt(in.off), Index: index, Result: [4]uint32{uint32(v), uint32(v >> 32)}})
	}
}

// Kinds of the conditions in DR7's R/W fields (SDM vol. 3, 17.2.4).
const (
	drExecute   = 0
	drWrite     = 1
	drReadWrite = 3
)

// debugChanged brings the run loop in line with what is wanted.
func (c *cpu) debugChanged() {
	d := &c.debug
	d.watch, d.guest = d.watch[:0], false
	for _, w := range d.Watchpoints {
		d.watch = append(d.watch, watchpoint{Watchpoint: w})
	}
	for n := range 4 {
		kind, length, on := c.guestBreakpoint(n)
		if !on {
			continue
		}
		d.guest = true
		if kind != drExecute {
			d.watch = append(d.watch, watchpoint{Watchpoint{c.dr[n] &^ (length - 1), length, kind == drReadWrite, true}, 1 << n})
		}
	}
	looked := d.looking
	d.watching = len(d.watch) > 0
	d.looking = d.watching || d.guest || d.each != nil || len(d.Breakpoints) > 0
	if d.Step {
		c.attn.Or(attnStep)
	}
	if looked || d.looking {
		c.dropCode()
		c.tlb.flushAll()
	}
	c.setMode()
}

// guestBreakpoint is DR7's fields for breakpoint n.
func (c *cpu) guestBreakpoint(n int) (kind uint64, length uint64, on bool) {
	dr7 := c.dr[7]
	length = [4]uint64{1, 2, 8, 4}[dr7>>(18+4*n)&3]
	return dr7 >> (16 + 4*n) & 3, length, dr7>>(2*n)&3 != 0
}

// opLook stands before an instruction while anybody looks at single ones.
func opLook(c *cpu, in *inst) bool {
	if c.io.n != 0 {
		return true // the instruction is under way
	}
	d := &c.debug
	ip := c.ipAt(in.off)
	c.rip = ip
	lin := ip + c.regs[rSeg+segCS]
	resumed, skipped := c.flags&x86.FlagRF != 0, d.skip == lin+1
	c.flags &^= x86.FlagRF
	d.skip = 0
	if !skipped && slices.Contains(d.Breakpoints, lin) {
		d.skip = lin + 1
		c.debugExit(vectorDB, 0)
		return false
	}
	if d.guest && !resumed {
		var hits uint64
		for n := range 4 {
			if kind, _, on := c.guestBreakpoint(n); on && kind == drExecute && c.dr[n] == lin {
				hits |= 1 << n
			}
		}
		if hits != 0 {
			c.dr[6] |= hits
			return c.raise(vectorDB)
		}
	}
	if d.each != nil {
		d.each(ip, c.fetched(lin, int(in.next)-int(in.off)))
	}
	return true
}

// debugExit leaves Run for the debugger.
func (c *cpu) debugExit(vector uint32, dr6 uint64) {
	c.io.exit = x86.Exit{Reason: x86.ExitDebug, Exception: vector, DR6: dr6, Addr: c.rip + c.regs[rSeg+segCS], Hardware: c.debug.hitAt}
	c.stop = stopOut
}

// fetched is n bytes of code, as far as they are in the TLB for fetches, which
// code that was just decoded is. They are good until the next call.
func (c *cpu) fetched(lin uint64, n int) []byte {
	code := c.debug.code[:0]
	for i := range uint64(min(n, len(c.debug.code))) {
		a := (lin + i) & c.ipMask
		e := &c.tx[a>>12&tlbMask]
		if e.tag != a&^pageMask || e.page == nil {
			break
		}
		code = append(code, e.page[a&pageMask])
	}
	return code
}

// watched says whether the page of a has watched bytes.
func (d *debug) watched(a uint64) bool {
	for i := range d.watch {
		w := &d.watch[i]
		if a&^pageMask == w.Addr&^pageMask || a&^pageMask == (w.Addr+w.Len-1)&^pageMask {
			return true
		}
	}
	return false
}

// accessed notes an access to watched bytes.
func (c *cpu) accessed(a uint64, size uint8, write bool) {
	d := &c.debug
	for i := range d.watch {
		w := &d.watch[i]
		if a-w.Addr >= w.Len && w.Addr-a >= uint64(size) || write && !w.Write || !write && !w.Read {
			continue
		}
		d.hits |= w.dr
		if w.dr == 0 {
			d.hit, d.hitAt = true, w.Addr
		}
		c.attn.Or(attnStep)
	}
}

// traps reports what the last instruction did: a single step or accesses to
// watched bytes, to the guest as #DB, to the debugger by leaving Run. It
// returns false to leave.
func (c *cpu) traps() bool {
	d := &c.debug
	if d.hit || d.Step && d.stepped {
		dr6 := uint64(0)
		if !d.hit {
			dr6 = dr6BS
			d.hitAt = 0
		}
		d.hit, d.stepped = false, false
		c.debugExit(vectorDB, dr6)
		c.stop = stopNone
		return false
	}
	if !c.event.trap && d.hits == 0 {
		return true
	}
	if c.event.trap {
		c.dr[6] |= dr6BS
	}
	c.dr[6] |= uint64(d.hits)
	c.event.trap, d.hits = false, 0
	return c.deliver(vectorDB, event{kind: eventTrap})
}

// steps prepares a single step, of the guest's or of the debugger's.
func (c *cpu) steps() bool {
	if c.attn.Load()&attnStep == 0 {
		return true
	}
	tf := c.flags&x86.FlagTF != 0
	if !tf && !c.debug.Step {
		c.attn.And(^uint32(attnStep))
		return true
	}
	c.event.trap, c.debug.stepped = tf, c.debug.Step
	c.mode |= modeStep
	return true
}

// noteEvent is called for each vector before it is delivered.
func (c *cpu) noteEvent(vector uint8, ev event) {
	c.event.trap, c.debug.hits = false, 0
	if f := c.debug.event; f != nil {
		f(Event{CPU: c.id, Vector: vector, Software: ev.kind == eventSoft, External: ev.kind == eventHardware,
			HasCode: ev.hasCode, Code: ev.code, RIP: c.rip})
	}
}

// unknown reports an instruction that is about to get #UD.
func (c *cpu) unknown(in *inst) {
	if f := c.vm.opts.Unknown; f != nil {
		rip := c.ipAt(in.off)
		f(c.id, rip, c.fetched(rip+c.regs[rSeg+segCS], maxInstruction))
	}
}
