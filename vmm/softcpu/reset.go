package softcpu

import (
	gc "runtime/debug"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// eventState is what a CPU waits for or is in the middle of.
type eventState struct {
	inhibit    uint8 // 2: the next instruction runs without interrupts; 1: it has run
	nmiBlocked bool  // until IRET
	waitSIPI   bool
	inject     injection
	entering   bool // an exception or interrupt is being delivered
	trap       bool // a single step is to be reported before the next instruction
}

// reset is power-up and INIT (SDM vol. 3, table 9-1).
func (c *cpu) reset() {
	c.regs = [32]uint64{rDX: signature}
	c.flags, c.ccKind = x86.Flag1, ccEager
	data := segment{limit: 0xffff, attr: attrP | attrS | attrWritable | attrAccessed}
	for i := range c.seg {
		c.setSeg(i, data)
	}
	code := data
	code.sel, code.base, code.attr = 0xf000, 0xffff0000, code.attr|attrCode
	c.setSeg(segCS, code)
	c.tss = segment{limit: 0xffff, attr: attrP | 11}
	c.ldt = segment{limit: 0xffff, attr: attrP | 2}
	c.gdt, c.idt = x86.DTable{Limit: 0xffff}, x86.DTable{Limit: 0xffff}
	c.cr0, c.cr2, c.cr3, c.cr4, c.efer = x86.CR0ET|x86.CR0CD|x86.CR0NW, 0, 0, 0, 0
	c.xcr0 = 1
	c.dr = [8]uint64{6: dr6Ones, 7: dr7Ones}
	c.msr.reset(c.id == 0)
	c.fpu.reset()
	c.sse.reset()
	c.rip, c.next, c.linkTo = 0xfff0, nil, -1
	c.cpl = 0
	c.tlb.flushAll()
	c.setMode()
	c.setMMU()
}

// initReset is INIT: as reset, but the FPU, and the TSC and the memory-type
// registers, keep what they have; the CPU then waits for a start-up IPI.
func (c *cpu) initReset() {
	m, fpu, sse, xcr0 := c.msr, c.fpu, c.sse, c.xcr0
	c.reset()
	base := c.msr.apicBase
	c.msr, c.fpu, c.sse, c.xcr0 = m, fpu, sse, xcr0
	c.msr.apicBase = base
	c.halted = false
	c.apic.Reset()
	c.event = eventState{waitSIPI: c.id != 0}
	c.attn.Or(attnHalt)
}

// startup is the start-up IPI: real mode at vector<<12 (SDM vol. 3, 9.4.3).
func (c *cpu) startup() {
	if !c.event.waitSIPI {
		return
	}
	c.event.waitSIPI = false
	c.loadSegReal(segCS, uint16(c.sipi.Load())<<8)
	c.rip = 0
	c.setMode()
}

// wakes are the reasons to wake up from HLT, or to look whether to.
const wakes = attnKick | attnIRQ | attnNMI | attnInit | attnSIPI | attnFlush | attnTimer

// sleep waits until something is signalled. It returns false for a kick.
func (c *cpu) sleep() bool {
	for c.attn.Load()&wakes == 0 {
		c.rest()
		if !c.vm.turns.sleep(c) {
			return false
		}
	}
	if c.attn.Load()&attnFlush != 0 {
		c.attn.And(^uint32(attnFlush))
		c.flushDirty()
	}
	return true
}

// rest gives the host memory back that a CPU with little to do does not need.
// Go's collector would not run by itself: an idle machine allocates nothing.
// Where the same run is to do the same again there is no rest: where blocks
// begin decides between which instructions an interrupt comes.
func (c *cpu) rest() {
	if !c.vm.turns.det && len(c.code.pieces) > 1 && c.resting(time.Now()) {
		go gc.FreeOSMemory()
	}
}

// setUntil computes the instruction at which the holder of the turn has to
// look at the turn or at a timer.
func (c *cpu) setUntil() {
	c.until = c.endOfTurn
	t := &c.vm.turns
	if !t.det {
		return
	}
	if due := t.due(); due != never {
		now := t.now()
		c.until = min(c.until, c.icount+(due-min(due, now)+ticksPerInstruction-1)/ticksPerInstruction)
	}
	if t.stopCount != never {
		n := t.executed()
		c.until = min(c.until, c.icount+t.stopCount-min(t.stopCount, n))
	}
}

// untilNow is what happens when icount has got to until. It returns false for
// a kick.
func (c *cpu) untilNow() bool {
	t := &c.vm.turns
	if t.det && t.due() <= t.now() {
		t.expire()
	}
	if t.det && t.stopDue() {
		t.stop()
		c.setUntil()
		return false
	}
	if c.icount >= c.endOfTurn && !t.pass(c) {
		return false
	}
	c.setUntil()
	return true
}

// irqsOn looks for interrupts when they become enabled.
func (c *cpu) irqsOn() {
	if c.irq.Load() {
		c.attn.Or(attnIRQ)
	}
}

// interrupts delivers what the interrupt controller has.
func (c *cpu) interrupts() bool {
	if c.attn.And(^uint32(attnIRQ|attnTimer))&attnTimer != 0 {
		c.apic.Tick()
		c.attn.And(^uint32(attnIRQ))
	}
	if c.flags&x86.FlagIF == 0 {
		return true
	}
	vector, ok := c.vm.acknowledge(c)
	if !ok {
		return true
	}
	c.halted = false
	return c.deliver(vector, event{kind: eventHardware})
}
