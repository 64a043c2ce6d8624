package virtio

import (
	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// PCIOptions are what a virtio-pci device needs of its machine.
type PCIOptions struct {
	Options
	// NewMSI returns a message-signalled interrupt of the accelerator's.
	NewMSI func() (pci.MSI, error)
	// Doorbell returns the doorbell of a queue: what a 2-byte write of any
	// value to the guest physical address addr rings. It is called again
	// when the guest moves the device; doorbells that are io.Closers are
	// closed when they are done with. nil, or a nil Doorbell: the write
	// reaches the device as an access.
	Doorbell func(queue int, addr uint64) (Doorbell, error)
}

// PCI is a device behind the PCI transport, modern only (virtio 1.2 §4.1).
type PCI struct{}

// NewPCI puts dev behind the PCI transport. The caller adds Function to its
// host bridge.
func NewPCI(dev Device, mem *memory.Guest, opts PCIOptions) (*PCI, error) { return &PCI{}, nil }

// Function is the device's PCI function.
func (p *PCI) Function() *pci.Function { return nil }
