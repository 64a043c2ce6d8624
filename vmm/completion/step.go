package completion

import (
	"errors"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// CPU is all that a completion needs of a virtual CPU; *kvm.VCPU provides it.
type CPU interface {
	Env
	Regs() (x86.Regs, error)
	SetRegs(*x86.Regs) error
	Sregs() (x86.Sregs, error)
	SetSregs(*x86.Sregs) error
	Events() (x86.Events, error)
	SetEvents(*x86.Events) error
}

// Completer completes instructions on a virtual CPU: it reads the registers,
// has an Engine execute, and writes back what has changed. It belongs to the
// CPU's goroutine.
type Completer struct {
	Engine *Engine
	cpu    CPU
	soft   *interpreter // made when first needed

	// Here and not on the stack, because what goes through an interface
	// would be allocated each time.
	regs   x86.Regs
	sregs  x86.Sregs
	events x86.Events
}

// NewCompleter returns a completer for a CPU with the given CPUID table, whose
// XSAVE area is xsaveSize bytes (0: KVM's ordinary size).
func NewCompleter(cpu CPU, mem *memory.Guest, cpuid []x86.CPUIDEntry, xsaveSize int) *Completer {
	return &Completer{Engine: New(cpu, mem, cpuid, xsaveSize), cpu: cpu}
}

// Step completes the instruction at RIP, whose bytes are code as far as the
// host knows them. On ErrUnknown the CPU is as it was.
//
// The registers are written back even where they have not changed: doing so
// takes back the #UD that KVM has queued for an instruction it does not know.
func (c *Completer) Step(code []byte) (Result, error) {
	var err error
	if c.regs, err = c.cpu.Regs(); err != nil {
		return Result{}, err
	}
	if c.sregs, err = c.cpu.Sregs(); err != nil {
		return Result{}, err
	}
	result, err := c.Engine.Complete(code, &c.regs, &c.sregs)
	if errors.Is(err, ErrUnknown) {
		result, err = c.interpret()
	}
	if err != nil {
		return Result{}, err
	}
	return result, c.apply(&result)
}

func (c *Completer) apply(result *Result) error {
	if err := c.cpu.SetRegs(&c.regs); err != nil {
		return err
	}
	if result.Sregs {
		if err := c.cpu.SetSregs(&c.sregs); err != nil {
			return err
		}
	}
	if result.FlushTLB {
		if err := c.flushTLB(); err != nil {
			return err
		}
	}
	switch {
	case result.Raised:
		return c.inject(result.Exception)
	case result.Interrupt:
		return c.interrupt(result.Exception.Vector)
	}
	return nil
}

// interrupt has a software interrupt delivered before the next instruction.
func (c *Completer) interrupt(vector uint8) (err error) {
	if c.events, err = c.cpu.Events(); err != nil {
		return err
	}
	c.events.Exception.Injected, c.events.Exception.Pending = 0, 0
	i := &c.events.Interrupt
	i.Injected, i.Nr, i.Soft, i.Shadow = 1, vector, 1, 0
	return c.cpu.SetEvents(&c.events)
}

// inject has the exception delivered before the next instruction.
func (c *Completer) inject(x Exception) (err error) {
	if c.events, err = c.cpu.Events(); err != nil {
		return err
	}
	e := &c.events.Exception
	e.Injected, e.Pending, e.Nr, e.ErrorCode = 1, 0, x.Vector, x.Code
	e.HasErrorCode = 0
	if x.HasCode {
		e.HasErrorCode = 1
	}
	return c.cpu.SetEvents(&c.events)
}

// flushTLB has the host forget the CPU's translations. No call of KVM's is for
// that, but it does so when a bit of EFER that paging depends on changes: here
// for no time at all.
func (c *Completer) flushTLB() error {
	efer := c.sregs.EFER
	return c.cpu.SetMSRs([]x86.MSR{{Index: x86.MSREFER, Data: efer ^ x86.EFERNXE}, {Index: x86.MSREFER, Data: efer}})
}
