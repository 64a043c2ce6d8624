package vsock

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Queues of the device (virtio 1.2 §5.10.2). Their names are the driver's: it
// receives from rx and transmits to tx.
const (
	queueRx = iota
	queueTx
	queueEvent
	queueCount
)

const (
	// featureStream says that the device has stream sockets (virtio 1.2
	// §5.10.3).
	featureStream = 1 << 0

	// eventQueueMax is for the one event there can be; resetTransport relies
	// on it.
	eventQueueMax = 1

	configLen = 8 // guest_cid (virtio 1.2 §5.10.4)
)

var (
	_ virtio.Device   = (*Device)(nil)
	_ virtio.Resetter = (*Device)(nil)
	_ virtio.Stater   = (*Device)(nil)
)

// Spec implements virtio.Device.
func (d *Device) Spec() virtio.Spec {
	return virtio.Spec{
		ID:        virtio.IDVsock,
		Features:  featureStream,
		QueueMax:  []uint16{d.cfg.QueueSize, d.cfg.QueueSize, eventQueueMax},
		ConfigLen: configLen,
		Name:      d.cfg.Name,
	}
}

// ReadConfig implements virtio.Device: guest_cid, 64 bits little-endian.
func (d *Device) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off < configLen {
		var b [configLen]byte
		binary.LittleEndian.PutUint64(b[:], uint64(d.mux.cid()))
		copy(p, b[off:])
	}
}

// WriteConfig implements virtio.Device: nothing can be written.
func (d *Device) WriteConfig(uint64, []byte) {}

// Reset implements virtio.Resetter: the driver has forgotten all connections.
func (d *Device) Reset() {
	d.restored.Store(false)
	d.mux.forgetSaved()
	d.mux.resetAll()
	signal(d.room)
}
