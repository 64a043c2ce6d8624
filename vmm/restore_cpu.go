package vmm

import (
	"fmt"
	"slices"

	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// load gives a new CPU the state that was saved. The order is KVM's: the local
// APIC needs its base, which is among the system registers; the deadline of its
// timer, an MSR, needs the local APIC.
func (c *vcpu) load(s *snapshot.CPU) error {
	cpu, ok := c.cpu.(statefulCPU)
	if !ok {
		return errStateless
	}
	area, err := fitXSave(s.XSave, c.m.xsaveSize())
	if err != nil {
		return err
	}
	c.setRate(s.TSCkHz)
	steps := []struct {
		what string
		do   func() error
	}{
		{"system registers", func() error { return cpu.SetSregs(&s.Sregs) }},
		{"page-directory pointers", func() error { return loadPDPTRs(cpu, s.PDPTRs) }},
		{"general registers", func() error { return cpu.SetRegs(&s.Regs) }},
		{"XCR0", func() error { return cpu.SetXCR0(s.XCR0) }},
		{"vector state", func() error { return cpu.SetXSave(area) }},
		{"debug registers", func() error { return cpu.SetDebugRegs(&s.Debug) }},
		{"local APIC", func() error { return cpu.SetLAPIC(&s.LAPIC) }},
		{"model-specific registers", func() error { return c.loadMSRs(cpu, s.MSRs) }},
		{"events", func() error { return cpu.SetEvents(&s.Events) }},
		{"MP state", func() error { return cpu.SetMPState(s.MP) }},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
	}
	if t, ok := c.cpu.(clockStopper); ok {
		return t.ClockStopped()
	}
	return nil
}

// fitXSave makes an XSAVE area (standard format, SDM vol. 1, 13.4) one of size
// bytes: what it is longer by must hold nothing, and what it is shorter by is of
// components in their initial state.
func fitXSave(area []byte, size int) ([]byte, error) {
	if len(area) == size {
		return area, nil
	}
	fit := make([]byte, size)
	n := copy(fit, area)
	for _, b := range area[n:] {
		if b != 0 {
			return nil, fmt.Errorf("an XSAVE area of %d bytes in use, and CPUs here have %d", len(area), size)
		}
	}
	return fit, nil
}

func loadPDPTRs(c statefulCPU, p *[4]uint64) error {
	if p == nil {
		return nil
	}
	k, ok := c.(pdptrKeeper)
	if !ok {
		return errStateless
	}
	return k.SetPDPTRs(*p)
}

// setRate sets the rate of the time-stamp counter where this host's is another.
// KVM itself takes a difference below 250 parts in a million for none. A guest
// with kvm-clock keeps the right time also where the host cannot do it.
func (c *vcpu) setRate(kHz uint32) {
	t, ok := c.cpu.(tscKeeper)
	if !ok || kHz == 0 {
		return
	}
	here := t.TSCkHz()
	if here == 0 || max(here, kHz)-min(here, kHz) <= kHz/4000 {
		return
	}
	if err := t.SetTSCkHz(kHz); err != nil {
		c.m.cfg.Log.Warn("the guest's time-stamp counter runs at another rate than before", "was", kHz, "is", here, "error", err)
	}
}

// loadMSRs writes the registers, the deadline of the timer last. One that is
// refused must have its value already.
func (c *vcpu) loadMSRs(cpu statefulCPU, list []snapshot.MSR) error {
	var deadline, counter uint64
	rest := make([]snapshot.MSR, 0, len(list))
	for _, m := range list {
		switch m.Index {
		case x86.MSRTSCDeadline:
			deadline = m.Data
			continue
		case x86.MSRTSC:
			counter = m.Data
		}
		rest = append(rest, m)
	}
	if setAll(cpu, rest) != nil {
		for _, m := range rest {
			if err := setMSR(cpu, m); err != nil {
				return err
			}
		}
	}
	if deadline == 0 {
		return nil
	}
	return setMSR(cpu, snapshot.MSR{Index: x86.MSRTSCDeadline, Data: shiftDeadline(cpu, deadline, counter)})
}

// setAll writes the registers in one call where none is refused.
func setAll(cpu statefulCPU, list []snapshot.MSR) error {
	values := make([]x86.MSR, len(list))
	for i, m := range list {
		values[i] = x86.MSR{Index: m.Index, Data: m.Data}
	}
	return cpu.SetMSRs(values)
}

// describes says whether a register does no more than describe the processor or
// its firmware (SDM vol. 4, table 2-2; HWCR: AMD's APM vol. 2, 3.2.10). A guest
// looks at them when it boots. 0x480 and up are of VMX.
func describes(index uint32) bool {
	switch index {
	case 0x17, 0x8b, 0xce, 0xfe, 0x10a, 0x345, 0xc0010015: // PLATFORM_ID, BIOS_SIGN_ID, PLATFORM_INFO, MTRRCAP, ARCH_CAPABILITIES, PERF_CAPABILITIES, HWCR
		return true
	}
	const kvmFirst, kvmLast = 0x4b564d00, 0x4b564dff // CheckCPUID sees to it that the guest was not shown them
	return index >= 0x480 && index <= 0x493 || index >= kvmFirst && index <= kvmLast
}

func setMSR(cpu statefulCPU, m snapshot.MSR) error {
	err := setAll(cpu, []snapshot.MSR{m})
	if err == nil {
		return nil
	}
	is, e := cpu.MSRs(m.Index)
	switch {
	case e == nil && slices.Contains(is, x86.MSR{Index: m.Index, Data: m.Data}):
		return nil
	case e != nil && (m.Data == 0 || describes(m.Index)): // another accelerator's
		return nil
	}
	return err
}

// counterSlack is how far a time-stamp counter may be from what was set, in
// ticks: what passes while a CPU is restored.
const counterSlack = 1 << 28

// shiftDeadline moves the deadline of the timer as far as the time-stamp
// counter has moved: some hosts take no value for it, and their counter has
// gone on since, or begun anew.
func shiftDeadline(cpu statefulCPU, deadline, counter uint64) uint64 {
	if counter == 0 {
		return deadline
	}
	now, err := cpu.MSRs(x86.MSRTSC)
	if err != nil || len(now) != 1 {
		return deadline
	}
	moved := now[0].Data - counter
	if moved < counterSlack {
		return deadline
	}
	return deadline + moved
}
