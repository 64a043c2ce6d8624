//go:build linux && amd64

// Package vmtest runs tiny guests in tests: a few bytes of machine code in a
// chosen mode, on KVM or on the software CPU, with descriptor tables and
// handlers laid out so that every ending, exceptions too, comes back as a
// value.
//
// Memory is 4 MiB, mapped one to one:
//
//	0x0000    real mode: the interrupt vector table
//	0x1000    GDT; 0x2000 IDT; 0x3000 TSS
//	0x4000    a handler for each exception: it writes to the port with the vector's number
//	0x7000    end of the handlers' stack
//	0x8000    real mode: code
//	0x9000    end of real mode's stack
//	0x10000   page tables
//	0x100000  code in the other modes
//	0x180000  end of the code's stack
//	0x200000  Data: for the code to read and write, for every privilege level
//	0x300000  Absent: not mapped; 0x301000 ReadOnly; 0x302000 Kernel: not for user mode
//
// On hosts whose KVM gives up on an instruction, package completion executes
// it, as in a real machine.
package vmtest

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"runtime"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/completion"
	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Addresses in a guest, linear and physical.
const (
	GDT       = 0x1000
	IDT       = 0x2000
	TSS       = 0x3000
	handlers  = 0x4000
	HandStack = 0x7000
	realCode  = 0x8000
	realStack = 0x9000
	PML4      = 0x10000
	code      = 0x100000
	stack     = 0x180000
	Data      = 0x200000
	DataSize  = 0x8000
	Absent    = 0x300000
	ReadOnly  = 0x301000
	Kernel    = 0x302000
	size      = 4 << 20
)

// Accel is what executes a guest.
type Accel uint8

// Accelerators.
const (
	KVM Accel = iota
	Soft
)

func (a Accel) String() string { return [...]string{"kvm", "soft"}[a] }

// Mode is the mode in which a guest's code runs.
type Mode uint8

// Modes.
const (
	Real     Mode = iota
	Kernel32      // protected mode without paging, CPL 0
	Kernel64      // 64-bit mode, CPL 0
	User64        // 64-bit mode, CPL 3
)

func (m Mode) String() string { return [...]string{"real", "kernel32", "kernel64", "user64"}[m] }

// CPU is the guest's processor.
type CPU interface {
	Run() (x86.Exit, error)
	Regs() (x86.Regs, error)
	SetRegs(*x86.Regs) error
	Sregs() (x86.Sregs, error)
	SetSregs(*x86.Sregs) error
	MSRs(index ...uint32) ([]x86.MSR, error)
	SetMSRs([]x86.MSR) error
}

// Guest is a tiny guest. It belongs to the goroutine that made it.
type Guest struct {
	T     testing.TB
	Accel Accel
	Mode  Mode
	CPU   CPU
	VCPU  *kvm.VCPU // nil with Soft
	Mem   *memory.Guest
	RAM   []byte
	CPUID []x86.CPUIDEntry
	// Fix completes instructions; nil with Soft. Completions counts them.
	Fix         *completion.Completer
	Completions int
	sregs       x86.Sregs
}

// End is how a run ended.
type End struct {
	Exit   x86.Exit
	Vector int // of the exception that the code raised; -1 where it ran to its end; -2 for another exit
	Code   uint32
	CR2    uint64
	Regs   x86.Regs // after the code; with an exception, of the instruction that raised it
}

// Vectors of an End that are none.
const (
	Finished = -1
	Other    = -2
)

// New makes a guest, or skips the test where the host has no KVM. The calling
// goroutine stays on its thread.
func New(t testing.TB, a Accel, m Mode) *Guest {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	mem, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	g := &Guest{T: t, Accel: a, Mode: m, Mem: mem, RAM: mem.Regions()[0].Bytes}
	g.layOut()
	if a == Soft {
		g.openSoft()
	} else {
		g.openKVM()
	}
	if g.sregs, err = g.CPU.Sregs(); err != nil {
		t.Fatal(err)
	}
	g.enter(&g.sregs)
	return g
}

func (g *Guest) openSoft() {
	vm, err := softcpu.New(softcpu.Options{})
	if err != nil {
		g.T.Fatal(err)
	}
	if err := vm.MapMemory(g.Mem); err != nil {
		g.T.Fatal(err)
	}
	if g.CPUID, err = vm.SupportedCPUID(); err != nil {
		g.T.Fatal(err)
	}
	c, err := vm.CreateVCPU(0, g.CPUID)
	if err != nil {
		g.T.Fatal(err)
	}
	g.T.Cleanup(func() { _ = c.Close(); _ = vm.Close() })
	g.CPU = c
}

func (g *Guest) openKVM() {
	sys, err := kvm.Open()
	if errors.Is(err, fs.ErrNotExist) {
		g.T.Skip("SKIP-NO-KVM: /dev/kvm is missing; tests of tiny guests need it")
	}
	if err != nil {
		g.T.Fatal(err)
	}
	g.T.Cleanup(func() { _ = sys.Close() })
	vm, err := sys.CreateVM()
	if err != nil {
		g.T.Fatal(err)
	}
	if err := vm.MapMemory(g.Mem); err != nil {
		g.T.Fatal(err)
	}
	if g.CPUID, err = sys.SupportedCPUID(); err != nil {
		g.T.Fatal(err)
	}
	c, err := vm.CreateVCPU(0, g.CPUID)
	if err != nil {
		g.T.Fatal(err)
	}
	g.T.Cleanup(func() { _ = c.Close(); _ = vm.Close() })
	g.CPU, g.VCPU = c, c
	g.Fix = completion.NewCompleter(c, g.Mem, g.CPUID, vm.XSaveSize())
}

// Entry is where code is placed.
func (g *Guest) Entry() uint64 {
	if g.Mode == Real {
		return realCode
	}
	return code
}

// Stack is the stack pointer at the start of a run.
func (g *Guest) Stack() uint64 {
	if g.Mode == Real {
		return realStack
	}
	return stack
}

// Sregs are the system registers that every run starts with; a test may change
// them.
func (g *Guest) Sregs() *x86.Sregs { return &g.sregs }

// endPort is written to by the code that Run puts behind the test's.
const endPort = 0xf0

// Run executes insns from the given registers, of which RIP, RSP (if 0) and
// RFLAGS' fixed bit are set here. It fails the test on an exit that cannot be
// gone on from, unless it is the guest's own.
func (g *Guest) Run(insns []byte, r x86.Regs) End {
	g.T.Helper()
	at := g.Entry()
	n := len(insns)
	ending := []byte{0xe6, endPort, 0xf4}
	if g.Mode == User64 {
		ending = []byte{0x0f, 0x0b} // ports are not for user mode
	}
	// Through the guest's memory: a software CPU forgets what it had decoded.
	if err := g.Mem.WriteAt(append(append([]byte(nil), insns...), ending...), memory.Addr(at)); err != nil {
		g.T.Fatal(err)
	}
	r.RIP = at
	if r.RSP == 0 {
		r.RSP = g.Stack()
	}
	r.RFLAGS |= x86.Flag1
	if err := g.CPU.SetSregs(&g.sregs); err != nil {
		g.T.Fatal(err)
	}
	if err := g.CPU.SetRegs(&r); err != nil {
		g.T.Fatal(err)
	}
	return g.Resume(at + uint64(n))
}

// Resume runs on to the next ending; end is where the code's is.
func (g *Guest) Resume(end uint64) End {
	g.T.Helper()
	for {
		x, err := g.CPU.Run()
		if err != nil {
			g.T.Fatal(err)
		}
		switch {
		case x.Reason == x86.ExitInterrupted:
			continue
		case x.Reason == x86.ExitInternalError && g.Fix != nil:
			if _, err := g.Fix.Step(x.Instruction); err != nil {
				r, _ := g.CPU.Regs()
				g.T.Fatalf("%v: suberror %d, % x at %#x", err, x.SubError, x.Instruction, r.RIP)
			}
			g.Completions++
			continue
		}
		return g.ended(x, end)
	}
}

func (g *Guest) ended(x x86.Exit, end uint64) End {
	r, err := g.CPU.Regs()
	if err != nil {
		g.T.Fatal(err)
	}
	e := End{Exit: x, Vector: Other, Regs: r}
	if x.Reason != x86.ExitIO || !x.Write {
		return e
	}
	if x.Port == endPort {
		e.Vector = Finished
		e.Regs.RIP = end
		return e
	}
	if x.Port >= 32 {
		return e
	}
	e.Vector = int(x.Port)
	g.frame(&e)
	if g.Mode == User64 && e.Vector == x86.VectorUD && e.Regs.RIP == end {
		e.Vector = Finished
	}
	return e
}

// frame takes an exception's frame off the handler's stack.
func (g *Guest) frame(e *End) {
	at := e.Regs.RSP
	word := func(n uint64) (v uint64) {
		b := g.RAM[at&(size-1):]
		switch n {
		case 2:
			v = uint64(binary.LittleEndian.Uint16(b))
		case 4:
			v = uint64(binary.LittleEndian.Uint32(b))
		default:
			v = binary.LittleEndian.Uint64(b)
		}
		at += n
		return v
	}
	width := map[Mode]uint64{Real: 2, Kernel32: 4, Kernel64: 8, User64: 8}[g.Mode]
	if g.Mode != Real && hasCode(e.Vector) {
		e.Code = uint32(word(width))
	}
	e.Regs.RIP = word(width)
	word(width) // CS
	e.Regs.RFLAGS = word(width) &^ x86.FlagRF
	e.Regs.RSP = at
	if width == 8 {
		e.Regs.RSP = word(8)
	}
	if s, err := g.CPU.Sregs(); err == nil {
		e.CR2 = s.CR2
	}
}

func hasCode(v int) bool { return v == 8 || v >= 10 && v <= 14 || v == 17 }
