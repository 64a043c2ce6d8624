// Package gdb serves GDB's remote protocol for a virtual machine (GDB manual,
// appendix E, "GDB Remote Serial Protocol"): CPUs are threads, memory is
// addressed by the virtual addresses of the selected CPU, the target
// description has the segment and control registers too.
//
// All CPUs stop together. A step executes one instruction on one CPU while the
// others stand still. What a target cannot do is answered as unsupported, so
// that GDB says so.
package gdb

import (
	"context"
	"errors"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// ErrUnsupported is what a Target returns for what it cannot do.
var ErrUnsupported = errors.New("not supported by this accelerator")

// Target is the machine as a debugger sees it. Its methods are called from one
// goroutine; all but CPUs, Memory, Pause, Stops and Kill only while the machine
// is stopped.
type Target interface {
	CPUs() int
	Memory() *memory.Guest
	// Pause stops all CPUs; it does nothing if they have stopped already.
	Pause(context.Context) error
	// Resume lets all CPUs run, until Pause or a Stop.
	Resume() error
	// Step executes one instruction on one CPU and stops again.
	Step(ctx context.Context, cpu int) (Stop, error)
	Registers(cpu int) (*Registers, error)
	SetRegisters(cpu int, r *Registers) error
	Insert(Breakpoint) error
	Remove(Breakpoint) error
	// Stops delivers why the machine stopped by itself.
	Stops() <-chan Stop
	// Kill ends the machine.
	Kill() error
}

// Registers is a CPU's registers. FX is the 512 bytes of FXSAVE (SDM vol. 1,
// 10.5.1), where HasFX says that there are any.
type Registers struct {
	x86.Regs
	x86.Sregs
	FX    [512]byte
	HasFX bool
}

// Kind of a breakpoint, with the numbers of the Z packets.
type Kind uint8

// Kinds.
const (
	Software    Kind = iota // an instruction, by whatever means
	Hardware                // an instruction, without a change to memory
	WriteWatch              // a store
	ReadWatch               // a load
	AccessWatch             // either
)

// Breakpoint is where the machine is to stop. Addr is virtual; Len is the bytes
// that a watchpoint covers.
type Breakpoint struct {
	Kind Kind
	Addr uint64
	Len  uint64
}

// Reason is why a machine stopped.
type Reason uint8

// Reasons.
const (
	Paused   Reason = iota // it was asked to
	Stepped                // after one instruction
	AtSoft                 // at a Software breakpoint
	AtHard                 // at a Hardware breakpoint
	AtWatch                // behind an access to a watched place
	Exited                 // the machine has ended; Status says how
	Trapped                // by a breakpoint instruction of the guest's own
	Signaled               // the machine has ended by a fault
)

// Stop is one stop.
type Stop struct {
	CPU    int
	Reason Reason
	Watch  Breakpoint // AtWatch: which
	Status uint8      // Exited: the status of the machine's end
}

// ended says whether the machine is no more.
func (s Stop) ended() bool { return s.Reason == Exited || s.Reason == Signaled }
