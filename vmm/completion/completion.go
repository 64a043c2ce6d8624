// Package completion executes, on a virtual CPU's registers and memory, the
// instructions that some hosts' KVM cannot.
//
// Where guest kernel code runs on the processor, none of this is ever called.
// Where KVM emulates it (real mode on old processors, or a KVM without
// hardware virtualisation), its emulator lacks instructions that a stock
// kernel needs: CLAC and STAC by the thousand, POPCNT, CMPXCHG16B, the XSAVE
// family, BMI. KVM_RUN then ends with KVM_EXIT_INTERNAL_ERROR and the bytes of
// the instruction. An [Engine] does what the processor would have done, faults
// included, and the guest goes on without knowing.
//
// One event needs the same: on such hosts SYSCALL from user mode arrives in
// the guest as a page fault at the address in LSTAR (see syscall.go).
//
// The functions are pure over registers, guest memory and the few things that
// [Env] gives. SDM is Intel's Software Developer's Manual.
package completion

import (
	"errors"
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Env is the state of a virtual CPU that is not in its general and system
// registers; *kvm.VCPU provides it.
type Env interface {
	// XSave and SetXSave exchange the extended state in the standard format
	// of XSAVE (SDM vol. 1, 13.4).
	XSave(p []byte) error
	SetXSave(p []byte) error
	XCR0() (uint64, error)
	SetXCR0(uint64) error
	MSRs(index ...uint32) ([]x86.MSR, error)
	SetMSRs([]x86.MSR) error
}

// ErrUnknown says that the instruction is none that this package completes.
// Nothing has been changed.
var ErrUnknown = errors.New("an instruction that the VMM cannot complete")

// Exception is what an instruction raised instead of completing.
type Exception struct {
	Vector  uint8
	HasCode bool
	Code    uint32
}

// Result says what a completion did, and what its caller has to write back
// beside the general registers, which always have to be.
type Result struct {
	Op        Op
	Sregs     bool      // the system registers have changed
	Raised    bool      // Exception is to be injected
	Exception Exception // CR2 is already in the system registers
	Interrupt bool      // a software interrupt is to be injected: the vector in Exception
	FlushTLB  bool      // the guest asked for its translations to be forgotten
}

// Engine completes instructions of one virtual CPU. It belongs to that CPU's
// goroutine and allocates nothing once made.
type Engine struct {
	env    Env
	mem    *memory.Guest
	layout layout
	area   []byte // an XSAVE area, for the exchange with Env
	calls  syscalls
	counts [opCount]uint64

	// The instruction under way.
	in   inst
	r    *x86.Regs
	s    *x86.Sregs
	cpu  paging.CPU
	mode mode
	res  Result
	err  error
}

// New returns an engine for a CPU with the given CPUID table, whose XSAVE area
// is xsaveSize bytes.
func New(env Env, mem *memory.Guest, cpuid []x86.CPUIDEntry, xsaveSize int) *Engine {
	return &Engine{env: env, mem: mem, layout: layoutOf(cpuid), area: make([]byte, max(xsaveSize, minXSaveArea)),
		cpu: paging.CPU{MaxPhys: maxPhys(cpuid)}}
}

func maxPhys(cpuid []x86.CPUIDEntry) uint8 {
	for _, e := range cpuid {
		if e.Function == 0x80000008 {
			return uint8(e.EAX)
		}
	}
	return 36 // SDM vol. 3, 4.1.4
}

// verdict is how the execution of an instruction ended.
type verdict uint8

const (
	done    verdict = iota
	moved           // done, and RIP is already where it goes on
	raised          // an exception, in e.res
	unknown         // not an instruction of this package's
	broken          // the host failed, or the operand is not in memory: e.err
)

// Complete executes the instruction at r.RIP, whose bytes are code as far as
// they are known, and changes *r and *s as the processor would. On an error
// nothing may be taken from them: ErrUnknown, or what failed on the host.
func (e *Engine) Complete(code []byte, r *x86.Regs, s *x86.Sregs) (Result, error) {
	e.begin(r, s)
	v := e.fetch(code)
	if v == done {
		v = e.execute()
	}
	switch v {
	case done:
		r.RIP = e.mode.ip(r.RIP + uint64(e.in.pos))
		r.RFLAGS &^= x86.FlagRF
	case unknown:
		return Result{}, ErrUnknown
	case broken:
		return Result{}, fmt.Errorf("complete %v: %w", e.res.Op, e.err)
	}
	e.counts[e.res.Op]++
	return e.res, nil
}

func (e *Engine) begin(r *x86.Regs, s *x86.Sregs) {
	e.r, e.s, e.res, e.err = r, s, Result{}, nil
	maxPhys := e.cpu.MaxPhys
	e.cpu = paging.Of(r, s)
	e.cpu.MaxPhys = maxPhys
	e.mode = modeOf(s)
	e.calls.see(s)
}

// Counts is how often each operation was completed, by name.
func (e *Engine) Counts() map[string]uint64 {
	m := make(map[string]uint64)
	for op, n := range e.counts {
		if n != 0 {
			m[Op(op).String()] = n
		}
	}
	return m
}

// Reset forgets what was learnt about the guest, for a guest that starts anew.
func (e *Engine) Reset() { e.calls = syscalls{} }

// raise ends the instruction with an exception that has no error code.
func (e *Engine) raise(vector uint8) verdict {
	e.res.Raised, e.res.Exception = true, Exception{Vector: vector}
	return raised
}

// raiseCode ends the instruction with an exception and its error code.
func (e *Engine) raiseCode(vector uint8, code uint32) verdict {
	e.res.Raised, e.res.Exception = true, Exception{Vector: vector, HasCode: true, Code: code}
	return raised
}

// gp is the commonest: a general-protection fault with error code 0.
func (e *Engine) gp() verdict { return e.raiseCode(x86.VectorGP, 0) }

func (e *Engine) ud() verdict { return e.raise(x86.VectorUD) }

func (e *Engine) fail(err error) verdict {
	e.err = err
	return broken
}

// op notes which operation it is that is being completed.
func (e *Engine) op(o Op) { e.res.Op = o }
