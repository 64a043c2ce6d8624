// Package vmm is a virtual machine: configuration, assembly of memory, CPUs,
// buses and devices, the run loop, and its life from New to the end of Run.
package vmm

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// VM is what a machine needs of an accelerator. vmm/kvm and vmm/softcpu each
// provide one. It includes the interrupt controllers and the timer (PIC,
// I/O APIC, local APICs, PIT).
type VM interface {
	// Kind is the accelerator's name, as --accel takes it.
	Kind() Accelerator
	// MapMemory makes the regions of g visible to the guest. It is called
	// once, before the other methods that make something.
	MapMemory(g *memory.Guest) error
	// NewVCPU creates the CPU with the APIC id id; 0 is the boot processor,
	// the others wait for INIT and SIPI.
	NewVCPU(id int, cpuid []x86.CPUIDEntry) (VCPU, error)
	// SupportedCPUID is the CPUID table that the accelerator can give a CPU,
	// hypervisor leaves included, without what depends on topology.
	SupportedCPUID() ([]x86.CPUIDEntry, error)
	// Line returns a function that pulses the interrupt line gsi (an edge):
	// what an ISA device or a virtio-mmio device calls as irq.
	Line(gsi uint32) (func() error, error)
	// MSI returns a message-signalled interrupt, masked until it is set.
	MSI() (MSI, error)
	// Doorbell returns a doorbell that the guest rings by writing to addr:
	// the low width bytes (0: any width) equal to match where match is not
	// nil. pio chooses the port space. ok is false where the accelerator
	// has none; the write then reaches the device as an access.
	Doorbell(pio bool, addr uint64, width int, match *uint64) (d virtio.Doorbell, ok bool, err error)
	// XSaveSize is the size of a CPU's XSAVE area in bytes.
	XSaveSize() int
	Close() error
}

// MSI is one message-signalled interrupt vector.
type MSI interface {
	Set(addr uint64, data uint32) error // new message; takes effect for the next Fire
	Fire() error                        // deliver once
	Close() error
}

// VCPU is one virtual CPU. Run and the register accessors are called only from
// the CPU's own goroutine, which is locked to its thread; Kick from any.
type VCPU interface {
	Run() (x86.Exit, error)
	// Kick makes a Run that is under way, or else the next one, return
	// ExitInterrupted soon.
	Kick() error
	Regs() (x86.Regs, error)
	SetRegs(*x86.Regs) error
	Sregs() (x86.Sregs, error)
	SetSregs(*x86.Sregs) error
	MSRs(index ...uint32) ([]x86.MSR, error)
	SetMSRs([]x86.MSR) error
	// Events is what is pending or being delivered.
	Events() (x86.Events, error)
	SetEvents(*x86.Events) error
	// XSave copies the XSAVE area (standard format, SDM vol. 1, 13.4) to p,
	// XSaveSize bytes long.
	XSave(p []byte) error
	SetXSave(p []byte) error
	XCR0() (uint64, error)
	SetXCR0(uint64) error
	Close() error
}

// Accelerator is what executes guest code.
type Accelerator string

// Accelerators. AccelAuto is KVM where it works, else the software CPU.
const (
	AccelAuto Accelerator = "auto"
	AccelKVM  Accelerator = "kvm"
	AccelSoft Accelerator = "soft"
)

// openAccelerator opens the accelerator that accel names. What the choice
// costs, and whether another would be faster, goes to log in one line.
// soft is how the software CPU is to behave, if it is chosen; only that one can
// be deterministic.
func openAccelerator(accel string, log *slog.Logger, soft ...softcpu.Options) (VM, error) {
	var opts softcpu.Options
	if len(soft) > 0 {
		opts = soft[0]
	}
	if opts.Deterministic && Accelerator(accel) == AccelKVM {
		return nil, errors.New("KVM cannot be deterministic: use --accel soft")
	}
	if opts.Deterministic {
		return openSoft(opts)
	}
	switch Accelerator(accel) {
	case AccelSoft:
		return openSoft(opts)
	case AccelKVM:
		return openKVM(log)
	case AccelAuto:
		vm, err := openKVM(log)
		if err == nil {
			return vm, nil
		}
		log.Warn(fmt.Sprintf("no KVM (%v): guest code runs on the software CPU, 20 to 50 times slower than on the processor", err))
		return openSoft(opts)
	}
	return nil, fmt.Errorf("accelerator %q: want %s, %s or %s", accel, AccelAuto, AccelKVM, AccelSoft)
}
