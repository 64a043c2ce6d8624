//go:build linux && amd64

// Package ownvmm is yours: a VMM of some 300 lines, in eight steps. README.md
// beside it leads through them; the checker is
//
//	go test ./docs/labs/own-vmm -step 1
package ownvmm

import (
	"io"

	"github.com/vitrine-vmm/vitrine/docs/labs/own-vmm/steps"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// VMM is a virtual machine monitor for one VM with one CPU. Keep here what the
// methods need of each other.
type VMM struct{}

// Its methods are described in steps/steps.go.
var _ steps.VMM = (*VMM)(nil)

// Open is step 1.
func (v *VMM) Open() error {
	return steps.NotYet(1, "open /dev/kvm with kvm.Open, and make a VM with System.CreateVM")
}

// Close is step 1.
func (v *VMM) Close() error { return nil }

// AddMemory is step 2.
func (v *VMM) AddMemory(size uint64) error {
	return steps.NotYet(2, "make memory with memory.New, and show it to the VM with VM.MapMemory")
}

// Memory is step 2.
func (v *VMM) Memory() *memory.Guest { return nil }

// Load is step 2.
func (v *VMM) Load(data []byte, at uint64) error {
	return steps.NotYet(2, "copy into guest memory with Guest.WriteAt")
}

// AddCPU is step 3.
func (v *VMM) AddCPU() error {
	return steps.NotYet(3, "make a CPU with VM.CreateVCPU and the table of System.SupportedCPUID; begin at steps.Entry")
}

// Next is step 3.
func (v *VMM) Next() (x86.Exit, error) {
	return x86.Exit{}, steps.NotYet(3, "VCPU.Run runs to the next exit; ExitInterrupted is none")
}

// Attach is step 4.
func (v *VMM) Attach(first, last uint16, d steps.Device) {}

// Run is step 4.
func (v *VMM) Run() error {
	return steps.NotYet(4, "a loop: Next, find the device at the port, hand it each access")
}

// LongMode is step 5.
func (v *VMM) LongMode(entry uint64) error {
	return steps.NotYet(5, "write page tables and a GDT, then set CR3, CR4.PAE, EFER.LME and LMA, CR0.PE and PG, CS.L")
}

// Serial is step 6.
func (v *VMM) Serial(w io.Writer) {}

// LoadLinux is step 7.
func (v *VMM) LoadLinux(kernel io.ReaderAt, commandLine string) (entry uint64, err error) {
	return 0, steps.NotYet(7, "copy the PT_LOAD segments of the ELF file to their Paddr, and write boot_params to steps.BootParams")
}

// Boot is step 8.
func (v *VMM) Boot(entry uint64) error {
	return steps.NotYet(8, "long mode at the kernel's entry, RSI on boot_params, and run")
}
