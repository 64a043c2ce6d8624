// Package pci is a PCI bus with its host bridge (PCI Local Bus 3.0):
// configuration space by port and by ECAM, base address registers that move,
// MSI-X.
package pci

import (
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

// MSI is one message-signalled interrupt of the accelerator's.
type MSI interface {
	Set(addr uint64, data uint32) error // new message; takes effect for the next Fire
	Fire() error                        // deliver once
	Close() error
}

// Mapper is where the memory of functions is mapped: a *bus.Bus.
type Mapper interface {
	Map(r bus.Range, d bus.Device) error
	Unmap(base uint64) bool
}

// Window is a range of guest physical addresses that belongs to the bus.
type Window struct{ Base, Size uint64 }

// Host is a host bridge with bus 0, itself being device 0.
type Host struct{ mu sync.Mutex }

// NewHost returns a bus without functions but the bridge. Functions get their
// memory inside the windows, which are mapped on mmio when the guest enables
// them.
func NewHost(mmio Mapper, windows ...Window) *Host { return &Host{} }

// Add puts f at the next free device number and gives its base address
// registers addresses, as firmware would.
func (h *Host) Add(f *Function) (device int, err error) { return 0, nil }

// Ports returns the configuration mechanism of ports 0xcf8-0xcff (PCI 3.0
// §3.2.2.3.2): a device of 8 bytes.
func (h *Host) Ports() bus.Device { return nil }

// ECAM returns the enhanced configuration mechanism for bus 0 (PCIe 3.0
// §7.2.2): a device of 1 MiB.
func (h *Host) ECAM() bus.Device { return nil }

// Function is one function of a device.
type Function struct{}
