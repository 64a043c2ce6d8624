package vmm

import (
	"errors"
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/completion"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// completer executes the instructions that a CPU's accelerator gives up on. It
// is made when that first happens, which on most hosts is never.
type completer = completion.Completer

// newCompleter returns nil where the CPU cannot be helped: a software CPU
// lacks what a completion needs, and needs none.
func newCompleter(c *vcpu) *completer {
	cpu, ok := c.cpu.(completion.CPU)
	if !ok {
		return nil
	}
	size := 0
	if v, ok := c.m.vm.(interface{ XSaveSize() int }); ok {
		size = v.XSaveSize()
	}
	return completion.NewCompleter(cpu, c.m.mem, cpuidFor(c.m.cpuid, c.id, c.m.cfg.CPUs), size)
}

// complete executes the instruction that the accelerator's emulator could not,
// or explains the internal error.
func (c *vcpu) complete(x *x86.Exit) *StopError {
	if x.SubError != x86.InternalErrorEmulation {
		return c.diagnose(CauseFault, func(s clinic.State) clinic.Report { return clinic.InternalError(s, x) })
	}
	if c.atBreakpoint(x) {
		return nil
	}
	if c.fix == nil {
		c.fix = newCompleter(c)
		c.m.paceTimers()
	}
	err := completion.ErrUnknown
	if c.fix != nil {
		_, err = c.fix.Step(x.Instruction)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, completion.ErrUnknown):
		return c.diagnose(CauseFault, func(s clinic.State) clinic.Report { return clinic.Instruction(s, x.Instruction) })
	}
	return &StopError{Cause: CauseHost, VCPU: c.id, Err: fmt.Errorf("vcpu %d: %w", c.id, err)}
}

// tripleFault explains why the CPU gave up. KVM resets nothing, so that the
// state in which it happened can still be read.
func (c *vcpu) tripleFault() *StopError { return c.diagnose(CauseTripleFault, clinic.TripleFault) }

// entryFailure explains a state that the processor refuses to run.
func (c *vcpu) entryFailure(reason uint64) *StopError {
	return c.diagnose(CauseFault, func(s clinic.State) clinic.Report { return clinic.EntryFailure(s, reason) })
}

// diagnose has the fault clinic look at the CPU.
func (c *vcpu) diagnose(cause Cause, examine func(clinic.State) clinic.Report) *StopError {
	end := &StopError{Cause: cause, VCPU: c.id}
	s := clinic.State{Mem: c.m.mem, Events: c.recent.lines(c)}
	var err error
	if s.Regs, err = c.cpu.Regs(); err == nil {
		s.Sregs, err = c.cpu.Sregs()
	}
	if err != nil {
		end.Detail, end.Err = "its registers cannot be read", err
		return end
	}
	end.RIP, end.Detail = s.Regs.RIP, examine(s).String()+c.crashCore()
	return end
}
