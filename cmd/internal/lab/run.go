package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Where a program is loaded and begins, in real mode, in memory that is zero.
const (
	loadAddr   = 0x8000
	maxProgram = 0x8000
	guestSize  = vmm.MinMemory
	keepEvents = 4096
)

// Start is what a program begins with.
type Start struct {
	AX, BX uint64
	Input  string // what COM1 receives
}

// Options say how programs run.
type Options struct {
	Accel string        // as vmm.Config.Accel
	Limit time.Duration // after which a program that has not halted is stopped
}

// Result is how a program ended.
type Result struct {
	Start  Start
	Halted bool // HLT with interrupts off: the end that every lab's program has
	Why    string
	Output string
	Regs   x86.Regs
	Sregs  x86.Sregs
	Mem    *memory.Guest // until Close
	Events []trace.Event // exits to devices, the last few thousand
	m      *vmm.Machine
}

// Close releases the machine.
func (r *Result) Close() error { return r.m.Close() }

// output collects what COM1 sends; one that never ends is cut.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	const longest = 4096
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(p[:min(len(p), longest-o.b.Len())])
	return len(p), nil
}

func (o *output) String() string { o.mu.Lock(); defer o.mu.Unlock(); return o.b.String() }

// Run runs a program until it halts with interrupts off, the CPU gives up or
// the time is over. An error is the host's; how the guest ended is the result.
func Run(ctx context.Context, program []byte, s Start, o Options) (r *Result, err error) {
	if len(program) == 0 || len(program) > maxProgram {
		return nil, fmt.Errorf("lab: a program of %d bytes: want 1 to %d", len(program), maxProgram)
	}
	out := &output{}
	m, err := newMachine(program, s, o, out)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	r = &Result{Start: s, Mem: m.Memory(), m: m}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	events := m.Observe(keepEvents).NewMerger()
	defer m.Unobserve()
	if err := m.Pause(ctx); err != nil { // parks the CPU before its first instruction
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	if err := r.follow(ctx, ended, o.Limit); err != nil {
		return nil, err
	}
	r.Output = out.String()
	r.Events = events.Drain(nil, keepEvents)
	return r, nil
}

// newMachine makes a machine with the program in its memory and nothing else.
// The kernel that vmm.New wants is a HLT that never runs.
func newMachine(program []byte, s Start, o Options, out *output) (*vmm.Machine, error) {
	dir, err := os.MkdirTemp("", "vitrine-lab")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	kernel := filepath.Join(dir, "halt.elf")
	if err := os.WriteFile(kernel, haltKernel(), 0o600); err != nil {
		return nil, err
	}
	m, err := vmm.New(vmm.Config{Name: "lab", Memory: guestSize, Accel: o.Accel, Kernel: kernel,
		Console: vmm.Serial{In: strings.NewReader(s.Input), Out: out}})
	if err != nil {
		return nil, err
	}
	ram, err := m.Memory().WritableBytes(0, guestSize)
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	clear(ram)
	copy(ram[loadAddr:], program)
	return m, nil
}

// begin brings the CPU into real mode at the program.
func (r *Result) begin(c vmm.VCPU) error {
	s, err := c.Sregs()
	if err != nil {
		return err
	}
	real := x86.Segment{Limit: 0xffff, Type: 3, Present: 1, S: 1} // SDM vol. 3, "Processor State After Reset"
	s.DS, s.ES, s.SS, s.FS, s.GS = real, real, real, real, real
	s.CS = real
	s.CS.Type = 11
	s.CR0, s.CR3, s.CR4, s.EFER = x86.CR0ET, 0, 0, 0
	// Without vectors any exception ends in a triple fault, and is explained,
	// where it would otherwise jump into memory that is zero.
	s.GDT, s.IDT = x86.DTable{}, x86.DTable{}
	if err := c.SetSregs(&s); err != nil {
		return err
	}
	return c.SetRegs(&x86.Regs{RAX: r.Start.AX, RBX: r.Start.BX, RIP: loadAddr, RSP: 0x7000, RFLAGS: x86.Flag1})
}

// follow lets the machine run and looks at it now and then until it has ended.
func (r *Result) follow(ctx context.Context, ended <-chan error, limit time.Duration) error {
	step := func() error { return r.m.OnCPU(0, r.begin) }
	deadline := time.Now().Add(limit)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := step()
		if err == nil {
			err = r.m.Resume()
		}
		if err != nil {
			r.m.Stop(err)
			<-ended
			return err
		}
		select {
		case err := <-ended:
			return r.crashed(err)
		case <-time.After(wait):
		}
		if err := r.m.Pause(ctx); err != nil {
			return r.crashed(<-ended)
		}
		over := time.Now().After(deadline)
		halted := false
		step = func() error {
			return r.m.OnCPU(0, func(c vmm.VCPU) (err error) { halted, err = r.look(c); return err })
		}
		if err := step(); err != nil {
			r.m.Stop(err)
			<-ended
			return err
		}
		r.Halted = halted && r.Regs.RFLAGS&x86.FlagIF == 0
		if r.Halted || over {
			r.m.Stop(nil)
			<-ended
			if over && !r.Halted {
				r.Why = r.overdue(halted, limit)
			}
			return nil
		}
	}
}

// look reads the CPU and says whether it is in HLT.
func (r *Result) look(c vmm.VCPU) (halted bool, err error) {
	if r.Regs, err = c.Regs(); err != nil {
		return false, err
	}
	if r.Sregs, err = c.Sregs(); err != nil {
		return false, err
	}
	p, ok := c.(interface{ MPState() (x86.MPState, error) })
	if !ok {
		return false, errors.New("the accelerator does not tell whether the CPU is halted")
	}
	state, err := p.MPState()
	return state == x86.MPHalted, err
}

// crashed is for a run that ended by itself.
func (r *Result) crashed(err error) error {
	var stop *vmm.StopError
	switch {
	case err == nil:
		r.Why = "the program turned the machine off instead of halting"
	case errors.As(err, &stop) && stop.Cause != vmm.CauseHost && stop.Cause != vmm.CauseStopped:
		r.Why = stop.Error()
	default:
		return err
	}
	return nil
}

// overdue says what a program that has not halted is doing.
func (r *Result) overdue(halted bool, limit time.Duration) string {
	if halted {
		return fmt.Sprintf("after %v it sleeps in HLT before rip %#x with interrupts on: it waits for an interrupt that does not come", limit, r.Regs.RIP)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "after %v it has not halted; it is here, at rip %#x:", limit, r.Regs.RIP)
	for _, l := range clinic.Disassemble(&clinic.State{Regs: r.Regs, Sregs: r.Sregs, Mem: r.Mem}, 2, 3) {
		fmt.Fprintf(&b, "\n    %v", l)
	}
	return b.String()
}
