package vsock

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

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
	d.mux.resetAll()
	signal(d.room)
}

const stateVersion = 1

// deviceState is what a snapshot keeps of a device. Streams are not kept: their other
// ends are sockets of a process that the restored guest does not share.
type deviceState struct {
	Version int
	CID     uint32
	Streams int // that the guest knew or was about to hear of
}

// State implements virtio.Stater.
func (d *Device) State() ([]byte, error) {
	return json.Marshal(deviceState{Version: stateVersion, CID: d.mux.cid(), Streams: d.mux.known()})
}

// SetState implements virtio.Stater. The guest's streams are gone, which the
// driver learns by a transport-reset event (virtio 1.2 §5.10.6.8) as soon as
// the device serves; nothing else reaches it before. A guest that had none is
// spared the event. The device keeps the context ID that it was made with: if
// that is another one, the event has the driver read it anew.
func (d *Device) SetState(state []byte) error {
	var s deviceState
	if err := json.Unmarshal(state, &s); err != nil {
		return fmt.Errorf("restore %s: %w", d.cfg.Name, err)
	}
	if s.Version != stateVersion {
		return fmt.Errorf("restore %s: state of version %d, want %d", d.cfg.Name, s.Version, stateVersion)
	}
	if err := checkCID(s.CID); err != nil || s.Streams < 0 {
		if err == nil {
			err = fmt.Errorf("%d streams", s.Streams)
		}
		return fmt.Errorf("restore %s: %w", d.cfg.Name, err)
	}
	d.mux.resetAll()
	d.restored.Store(s.Streams > 0 || s.CID != d.mux.cid())
	return nil
}
