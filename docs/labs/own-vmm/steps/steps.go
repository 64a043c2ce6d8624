//go:build linux && amd64

// Package steps checks the learner's VMM of docs/labs/own-vmm, step by step. A
// step that fails says in words what is missing or wrong.
package steps

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Entry is where a real-mode program is loaded and begins.
const Entry = 0x8000

// VMM is what the learner writes. The number of the step to which a method
// belongs stands behind it.
type VMM interface {
	// Open opens /dev/kvm and makes a VM. (1)
	Open() error
	// Close releases everything that was opened; it may be called at any
	// time, and when Open has failed too. (1)
	Close() error

	// AddMemory gives the VM size bytes of memory from address 0 on. (2)
	AddMemory(size uint64) error
	// Memory is that memory. (2)
	Memory() *memory.Guest
	// Load copies data to guest physical address at; an error if it does not
	// fit. (2)
	Load(data []byte, at uint64) error

	// AddCPU makes a CPU that will begin in real mode at Entry. (3)
	AddCPU() error
	// Next runs the CPU to its next exit, and returns that. Interrupted runs
	// go on. (3)
	Next() (x86.Exit, error)

	// Attach puts a device behind the ports first to last. (4)
	Attach(first, last uint16, d Device)
	// Run runs the CPU and hands its port accesses to the devices until one
	// of them returns an error, which Run returns, or the guest cannot go on.
	// Ports without a device read as ones; writes to them are lost. (4)
	Run() error

	// LongMode brings the CPU into 64-bit mode at entry, with the first
	// 4 GiB mapped onto themselves. (5)
	LongMode(entry uint64) error

	// Serial puts a UART that sends to w behind the ports of COM1. An error
	// of w's is the device's. (6)
	Serial(w io.Writer)

	// LoadLinux loads an ELF kernel with a command line, and returns its
	// entry point. (7)
	LoadLinux(kernel io.ReaderAt, commandLine string) (entry uint64, err error)
	// Boot brings the CPU to a kernel that LoadLinux has loaded, and runs. (8)
	Boot(entry uint64) error
}

// Device is behind some ports. p is as long as the access: 1, 2 or 4 bytes.
type Device interface {
	Read(port uint16, p []byte) error
	Write(port uint16, p []byte) error
}

// NotYet is what a method returns that has not been written.
func NotYet(step int, what string) error {
	return fmt.Errorf("step %d is not written yet: %s", step, what)
}

// Step is one step of the exercise.
type Step struct {
	Title string
	check func(v VMM) error
}

// All are the steps in their order, the first at index 0.
func All() []Step {
	return []Step{
		{"open /dev/kvm, make a VM", checkOpen},
		{"memory", checkMemory},
		{"a CPU in real mode", checkRealMode},
		{"the run loop and port I/O", checkPorts},
		{"long mode", checkLongMode},
		{"a serial port", checkSerial},
		{"a kernel in memory", checkLoadLinux},
		{"boot Linux to its first console byte", checkBoot},
	}
}

// patience is how long a step may take. Guest kernels are slow where the host
// emulates them.
const patience = 2 * time.Minute

// Check checks step n, from 1 on, with a VMM of its own. The VMM is used on
// one thread, as KVM wants it of a CPU.
func Check(n int, v VMM) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the CPU that it made
		err := All()[n-1].check(v)
		done <- errors.Join(err, v.Close())
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return fmt.Errorf("step %d has not ended within %v: the guest never gets to the device that ends it, or Run does not return that device's error", n, patience)
	}
}
