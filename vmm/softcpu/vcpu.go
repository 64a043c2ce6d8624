package softcpu

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// VCPU is a virtual CPU. All methods but Kick are for one goroutine.
type VCPU struct{ c *cpu }

// CreateVCPU makes the CPU with this APIC id and CPUID table. CPU 0 starts at
// the reset vector, the others wait for INIT and SIPI.
func (vm *VM) CreateVCPU(id int, cpuid []x86.CPUIDEntry) (*VCPU, error) {
	if vm.mem == nil {
		return nil, fmt.Errorf("vcpu %d: the machine has no memory yet", id)
	}
	c := &cpu{id: id, vm: vm, cpuid: cpuid, wake: make(chan struct{}, 1), linkTo: -1}
	c.tlb.flushAll()
	c.reset()
	c.event.waitSIPI = id != 0
	c.attn.Store(attnHalt)
	vm.mu.Lock()
	defer vm.mu.Unlock()
	vm.addAPIC(c)
	vm.cpus = append(vm.cpus, c)
	vm.turns.add(c)
	return &VCPU{c}, nil
}

// Run executes guest code until there is something for the VMM to do.
func (v *VCPU) Run() (x86.Exit, error) {
	c := v.c
	if !c.vm.turns.take(c) {
		return c.kicked(), nil
	}
	if c.code.table == nil {
		c.code.init(len(c.vm.turns.all))
	}
	if c.io.pending {
		c.io.answer()
		if !c.replay() {
			return c.io.exit, nil
		}
	}
	c.loop()
	return c.io.exit, nil
}

// kicked is the exit for a kick.
func (c *cpu) kicked() x86.Exit {
	c.attn.And(^uint32(attnKick))
	c.io.exit = x86.Exit{Reason: x86.ExitInterrupted}
	return c.io.exit
}

// Kick makes the Run that is under way, or the next one, return
// ExitInterrupted.
func (v *VCPU) Kick() error {
	v.c.signal(attnKick)
	return nil
}

// Close releases the CPU: the others go on without it.
func (v *VCPU) Close() error {
	v.c.timer.Stop()
	v.c.vm.turns.remove(v.c)
	return nil
}

// replay executes the instruction whose access the VMM has answered. It
// returns false if there is another exit.
func (c *cpu) replay() bool {
	c.setMode()
	c.mode |= modeStep
	defer c.setMode()
	c.next, c.linkTo = nil, -1
	if !c.findBlock() {
		c.io.reset()
		c.stop = stopNone
		return c.deliverFault()
	}
	b := c.next
	c.cur, c.next = b, nil
	i := 0
	for i = range b.ins {
		in := &b.ins[i]
		if !in.fn(c, in) {
			break
		}
	}
	c.icount += uint64(b.n)
	if c.stop != stopNone && !c.halt(b, i) {
		if !c.io.pending {
			c.io.reset()
		}
		return false
	}
	c.io.reset()
	if c.next != nil {
		c.rip, c.next = c.ipAt(c.next.off), nil
	}
	c.linkTo = -1
	return true
}

// Regs returns the general registers.
func (v *VCPU) Regs() (x86.Regs, error) {
	c := v.c
	r := x86.Regs{RIP: c.rip, RFLAGS: c.rflags()}
	for n := range uint8(16) {
		*r.GPR(n) = c.regs[n]
	}
	return r, nil
}

// SetRegs sets the general registers.
func (v *VCPU) SetRegs(r *x86.Regs) error {
	c := v.c
	for n := range uint8(16) {
		c.regs[n] = *r.GPR(n)
	}
	c.rip, c.next, c.linkTo = r.RIP, nil, -1
	c.flags, c.ccKind = r.RFLAGS&^(1<<3|1<<5|1<<15)|x86.Flag1, ccEager
	if c.flags&x86.FlagTF != 0 {
		c.attn.Or(attnStep)
	}
	c.io.pending = false
	c.io.reset()
	c.irqsOn()
	c.setMode()
	c.setMMU()
	return nil
}

func exportSegment(s *segment) x86.Segment {
	return x86.Segment{
		Base: s.base, Limit: s.limit, Selector: s.sel, Type: uint8(s.attr & 15),
		S: uint8(s.attr >> 4 & 1), DPL: s.dpl(), Present: uint8(s.attr >> 7 & 1),
		AVL: uint8(s.attr >> 12 & 1), L: uint8(s.attr >> 13 & 1), DB: uint8(s.attr >> 14 & 1),
		G: uint8(s.attr >> 15), Unusable: uint8(^s.attr >> 7 & 1),
	}
}

func importSegment(s *x86.Segment) segment {
	r := segment{base: s.Base, limit: s.Limit, sel: s.Selector}
	r.attr = uint16(s.Type&15) | uint16(s.S&1)<<4 | uint16(s.DPL&3)<<5 | uint16(s.Present&1)<<7 |
		uint16(s.AVL&1)<<12 | uint16(s.L&1)<<13 | uint16(s.DB&1)<<14 | uint16(s.G&1)<<15
	if s.Unusable != 0 {
		r.attr &^= attrP
	}
	return r
}

// Sregs returns the system registers.
func (v *VCPU) Sregs() (x86.Sregs, error) {
	c := v.c
	s := x86.Sregs{
		TR: exportSegment(&c.tss), LDT: exportSegment(&c.ldt), GDT: c.gdt, IDT: c.idt,
		CR0: c.cr0, CR2: c.cr2, CR3: c.cr3, CR4: c.cr4, CR8: c.taskPriority(), EFER: c.efer, APICBase: c.msr.apicBase,
	}
	for i, p := range segments(&s) {
		*p = exportSegment(&c.seg[i])
	}
	s.SS.DPL = c.cpl
	return s, nil
}

// segments are the segment registers of s in the order of their encodings.
func segments(s *x86.Sregs) [6]*x86.Segment {
	return [6]*x86.Segment{&s.ES, &s.CS, &s.SS, &s.DS, &s.FS, &s.GS}
}

// SetSregs sets the system registers.
func (v *VCPU) SetSregs(s *x86.Sregs) error {
	c := v.c
	for i, p := range segments(s) {
		c.setSeg(i, importSegment(p))
	}
	c.tss, c.ldt = importSegment(&s.TR), importSegment(&s.LDT)
	c.gdt, c.idt = s.GDT, s.IDT
	c.cr0, c.cr2, c.cr3, c.cr4 = s.CR0&cr0Mask|x86.CR0ET, s.CR2, s.CR3, s.CR4&cr4Mask
	c.efer = s.EFER & (x86.EFERSCE | x86.EFERLME | x86.EFERLMA | x86.EFERNXE)
	c.msr.apicBase = s.APICBase
	c.apic.RestoreMode(apicModeOf(s.APICBase))
	c.setTaskPriority(s.CR8)
	c.cpl = s.SS.DPL & 3
	if c.cr0&x86.CR0PE == 0 {
		c.cpl = 0
	}
	c.next, c.linkTo = nil, -1
	c.tlb.flushAll()
	c.setMode()
	c.setMMU()
	return nil
}

// MSRs reads model-specific registers; one that does not exist ends the list.
func (v *VCPU) MSRs(index ...uint32) ([]x86.MSR, error) {
	list := make([]x86.MSR, 0, len(index))
	for _, i := range index {
		val, ok := v.c.readMSR(i)
		if !ok {
			return list, fmt.Errorf("read MSR %#x: not provided", i)
		}
		list = append(list, x86.MSR{Index: i, Data: val})
	}
	return list, nil
}

// SetMSRs writes model-specific registers. Unlike in the guest, a write of
// IA32_TSC leaves IA32_TSC_ADJUST alone, and the other way round, so that both
// can be restored.
func (v *VCPU) SetMSRs(list []x86.MSR) error {
	for _, m := range list {
		switch m.Index {
		case x86.MSRTSC:
			v.c.msr.tscOffset += m.Data - v.c.tsc()
			continue
		case msrTSCAdjust:
			v.c.msr.tscAdjust = m.Data
			continue
		}
		if !v.c.writeMSR(m.Index, m.Data) {
			return fmt.Errorf("write MSR %#x = %#x: refused", m.Index, m.Data)
		}
	}
	v.c.setMode()
	return nil
}
