package net

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// configLen is the size of struct virtio_net_config up to the MTU (virtio 1.2
// §5.1.4); fields are little-endian:
//
//	 0       6       8                   10   12
//	| mac   |status |max_virtqueue_pairs|mtu |
const configLen = 12

// Bits of status.
const (
	statusLinkUp   = 1
	statusAnnounce = 2
)

const (
	// ctrlQueueMax is enough for drivers, which send one command at a time.
	ctrlQueueMax = 64

	queuesPerPair = 2
)

var (
	_ virtio.Device         = (*Device)(nil)
	_ virtio.ConfigNotifier = (*Device)(nil)
	_ virtio.Resetter       = (*Device)(nil)
	_ virtio.Stater         = (*Device)(nil)
)

// Spec implements virtio.Device. The queues are receive and transmit queue of
// each pair, then the control queue (virtio 1.2 §5.1.2).
func (d *Device) Spec() virtio.Spec {
	s := virtio.Spec{
		ID: virtio.IDNet, ConfigLen: configLen, Name: d.cfg.Name,
		Features: d.cfg.Backend.Offloads()&Offloads | FeatureMAC | FeatureStatus | FeatureMrgRxbuf |
			FeatureCtrlVQ | FeatureCtrlRX | FeatureCtrlMAC | FeatureAnnounce,
	}
	if d.cfg.MTU != 0 {
		s.Features |= FeatureMTU
	}
	if len(d.pairs) > 1 {
		s.Features |= FeatureMQ
	}
	for range queuesPerPair * len(d.pairs) {
		s.QueueMax = append(s.QueueMax, d.cfg.QueueSize)
	}
	s.QueueMax = append(s.QueueMax, ctrlQueueMax)
	return s
}

// ctrlQueue is the number of the control queue: behind the pairs that a driver
// may use, which is one without FeatureMQ.
func (d *Device) ctrlQueue(features uint64) int {
	if features&FeatureMQ == 0 {
		return queuesPerPair
	}
	return queuesPerPair * len(d.pairs)
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off >= configLen {
		return
	}
	var b [configLen]byte
	le := binary.LittleEndian
	copy(b[:], d.filter.Load().MAC[:])
	le.PutUint16(b[6:], d.status())
	le.PutUint16(b[8:], uint16(len(d.pairs)))
	le.PutUint16(b[10:], uint16(d.cfg.MTU))
	copy(p, b[off:])
}

func (d *Device) status() (s uint16) {
	if d.Link() {
		s = statusLinkUp
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.announce {
		s |= statusAnnounce
	}
	return s
}

// WriteConfig implements virtio.Device: nothing can be written. A driver sets
// the MAC address by the control queue.
func (d *Device) WriteConfig(uint64, []byte) {}
