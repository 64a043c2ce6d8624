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
// buffer available again. To see that, the device first takes all buffers that
// are there; it hands them back unused in the end.
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
	held, err := s.takeEvents(ctx)
	if len(held) > 0 && err == nil {
		if err = s.sendEvent(held[0]); err == nil {
			var more []*virtio.Chain
			more, err = s.takeEvents(ctx)
			held = append(held, more...)
		}
		held = held[1:]
	}
	for _, c := range held {
		if perr := s.event.Push(c, 0); err == nil {
			err = perr
		}
	}
	if err != nil {
		return err
	}
	return s.event.Notify()
}

// takeEvents takes the event buffers that are there, at least one unless ctx
// ends first.
func (s *session) takeEvents(ctx context.Context) (cs []*virtio.Chain, err error) {
	for {
		c, ok, err := s.event.Pop()
		switch {
		case err != nil:
			return cs, err
		case ok:
			cs = append(cs, c)
		case len(cs) > 0 || ctx.Err() != nil:
			return cs, nil
		default:
			if err := s.event.Wait(); err != nil {
				return cs, err
			}
		}
	}
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
