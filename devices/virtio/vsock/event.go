package vsock

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

const (
	eventLen            = 4 // struct virtio_vsock_event: id (virtio 1.2 §5.10.6.8)
	eventTransportReset = 0
)

// ackTimeout is how long the device waits for a driver to act on a transport
// reset; a variable for tests.
var ackTimeout = 5 * time.Second

// resetTransport tells the driver that all its streams are gone (virtio 1.2
// §5.10.6.8), and waits until it has acted on that: a driver resets whatever is
// connected when it handles the event, which would hit a connection that the
// host makes meanwhile. A driver shows that it has acted by making the event's
// buffer available again; the queue has room for that one only.
func (s *session) resetTransport() error {
	ctx, cancel := context.WithTimeout(s.ctx, ackTimeout)
	defer cancel()
	rung := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		s.event.Ring()
		close(rung)
	})
	defer func() {
		if !stop() {
			<-rung // so that nothing rings a doorbell after Serve
		}
	}()
	if err := s.awaitEventBuffer(ctx); err != nil {
		return err
	}
	c, ok, err := s.event.Pop()
	if !ok {
		return err
	}
	if err := s.sendEvent(c); err != nil {
		return err
	}
	return s.awaitEventBuffer(ctx)
}

// awaitEventBuffer waits until there is a buffer for an event, or ctx is done.
func (s *session) awaitEventBuffer(ctx context.Context) error {
	for ctx.Err() == nil {
		if i := s.event.Inspect(); i.AvailIdx != i.NextAvail {
			return nil
		}
		if err := s.event.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) sendEvent(c *virtio.Chain) error {
	var b [eventLen]byte
	binary.LittleEndian.PutUint32(b[:], eventTransportReset)
	w := virtio.NewWriter(c.Writable())
	w.Put(b[:])
	if w.Err() != nil {
		_ = s.event.Push(c, 0)
		return virtio.Fault(queueEvent, "5.10.6.8", "event buffer of %d bytes", c.WritableLen())
	}
	if err := s.event.Push(c, eventLen); err != nil {
		return err
	}
	return s.event.Notify()
}
