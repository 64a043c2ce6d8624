package virtio

import "github.com/vitrine-vmm/vitrine/vmm/memory"

// MMIOSize is the size of a device's register window (virtio 1.2 §4.2.2).
const MMIOSize = 0x1000

// MMIOOptions are what a virtio-mmio device needs of its machine.
type MMIOOptions struct {
	Options
	// IRQ pulses the device's interrupt line, an edge.
	IRQ func() error
	// Doorbell returns the doorbell of a queue: what a 4-byte write of the
	// queue's number to offset NotifyOffset of the window rings. nil, or a
	// nil Doorbell: the write reaches the device as an access.
	Doorbell func(queue int) (Doorbell, error)
}

// NotifyOffset is where in the window a driver writes a queue's number to
// notify it (QueueNotify, virtio 1.2 §4.2.2).
const NotifyOffset = 0x50

// MMIO is a device behind the MMIO transport, version 2 (virtio 1.2 §4.2): a
// bus.Device of MMIOSize bytes.
type MMIO struct{}

// NewMMIO puts dev behind the MMIO transport.
func NewMMIO(dev Device, mem *memory.Guest, opts MMIOOptions) (*MMIO, error) { return &MMIO{}, nil }

// Read implements bus.Device.
func (m *MMIO) Read(off uint64, p []byte) {}

// Write implements bus.Device.
func (m *MMIO) Write(off uint64, p []byte) {}
