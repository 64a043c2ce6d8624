// Package rng is the entropy device (virtio 1.2 §5.4): it fills the driver's
// buffers with random bytes of the host's.
package rng

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

const (
	queueSize = 64
	// maxChunk bounds what one request costs the host: a device may give
	// less than it was asked for (§5.4.6.1).
	maxChunk = 64 << 10
)

// Device is an entropy device, a virtio.Device.
type Device struct {
	name   string
	source io.Reader
}

var _ virtio.Device = (*Device)(nil)

// New returns an entropy device that reads from source, which must not keep a
// reader waiting for long; nil is crypto/rand's.
func New(name string, source io.Reader) *Device {
	if source == nil {
		source = rand.Reader
	}
	return &Device{name: name, source: source}
}

// Spec implements virtio.Device. There are no features and no configuration
// (§5.4.3, §5.4.4).
func (d *Device) Spec() virtio.Spec {
	return virtio.Spec{ID: virtio.IDEntropy, QueueMax: []uint16{queueSize}, Name: d.name}
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(_ uint64, p []byte) { clear(p) }

// WriteConfig implements virtio.Device.
func (d *Device) WriteConfig(uint64, []byte) {}

// Serve implements virtio.Device.
func (d *Device) Serve(ctx context.Context, _ uint64, qs []*virtio.Queue) error {
	return virtio.Work(ctx, qs, func(ctx context.Context, q *virtio.Queue) error {
		return virtio.Loop(ctx, q, d.fill)
	})
}

func (d *Device) fill(c *virtio.Chain) (written uint32, err error) {
	if c.ReadableLen() > 0 {
		return 0, virtio.Fault(0, "5.4.6.1", "a request for entropy has %d bytes to read", c.ReadableLen())
	}
	for _, s := range c.Writable() {
		s = s[:min(len(s), maxChunk-int(written))]
		n, err := io.ReadFull(d.source, s)
		written += uint32(n)
		if err != nil {
			return written, fmt.Errorf("entropy source: %w", err)
		}
		if written == maxChunk {
			break
		}
	}
	return written, nil
}
