package vsock

import (
	"context"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

const (
	// notifyEvery is how many packets go to or come from the driver between
	// two interrupts at most, so that it can refill the queue meanwhile.
	notifyEvery = 32

	// maxPayload is the largest payload of one packet to the guest: what
	// Linux's driver takes (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
	maxPayload = 64 << 10
)

// session is the device between DRIVER_OK and the end of Serve.
type session struct {
	d         *Device
	ctx       context.Context
	rx, tx    *virtio.Queue
	event     *virtio.Queue // nil if the driver does without
	fromGuest guestReader
	toGuest   guestSink
}

// Serve implements virtio.Device: one goroutine takes the guest's packets, one
// gives it the host's.
func (d *Device) Serve(ctx context.Context, _ uint64, qs []*virtio.Queue) error {
	if len(qs) != queueCount || qs[queueRx] == nil || qs[queueTx] == nil {
		<-ctx.Done() // a device without its queues has nothing to do
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{d: d, ctx: ctx, rx: qs[queueRx], tx: qs[queueTx], event: qs[queueEvent]}
	s.toGuest.s = s
	var once sync.Once
	var first error
	run := func(f func() error) {
		err := f()
		once.Do(func() { first = err })
		cancel()
		s.rx.Ring()
		s.tx.Ring()
	}
	var wg sync.WaitGroup
	wg.Go(func() { run(s.receive) })
	run(s.send)
	wg.Wait()
	return first
}

// receive takes packets from the guest.
func (s *session) receive() error {
	for n := 0; s.ctx.Err() == nil; n++ {
		if s.d.mux.congested() {
			s.d.kick()
			select {
			case <-s.d.room:
			case <-s.ctx.Done():
			}
			continue
		}
		c, ok, err := s.tx.Pop()
		if err != nil {
			return err
		}
		if ok {
			if err := s.take(c); err != nil {
				return err
			}
		}
		if ok && n%notifyEvery != notifyEvery-1 {
			continue
		}
		if s.d.mux.pending() {
			s.d.kick()
		}
		if err := s.tx.Notify(); err != nil {
			return err
		}
		if !ok {
			if err := s.tx.Wait(); err != nil {
				return err
			}
		}
	}
	return s.tx.Notify()
}

// take hands one packet of the guest's to its connection.
func (s *session) take(c *virtio.Chain) error {
	r := &s.fromGuest
	r.Cursor = virtio.NewReader(c.Readable())
	r.ReadFull(r.raw[:])
	r.h.decode(&r.raw)
	var fault error
	switch have := uint64(c.ReadableLen()); {
	case have < headerLen:
		fault = virtio.Fault(queueTx, "5.10.6", "packet of %d bytes", have)
	case uint64(r.h.len) > have-headerLen:
		fault = virtio.Fault(queueTx, "5.10.6", "packet with %d bytes of payload says %d", have-headerLen, r.h.len)
	default:
		s.d.mux.receive(&r.h, &r.Cursor)
		s.d.fromGuest.count(int(r.h.len))
	}
	if err := s.tx.Push(c, 0); err != nil {
		return err
	}
	return fault
}

// guestReader is where a packet of the guest's is taken apart.
type guestReader struct {
	virtio.Cursor
	raw [headerLen]byte
	h   header
}

// send gives packets to the guest.
func (s *session) send() error {
	if s.d.restored.Swap(false) && s.event != nil {
		if err := s.resetTransport(); err != nil {
			return err
		}
		if s.ctx.Err() != nil { // interrupted, so told again next time
			s.d.restored.Store(true)
		} else {
			s.d.mux.forgetSaved()
		}
	}
	for n := 0; s.ctx.Err() == nil; n++ {
		r := s.d.mux.transmit(&s.toGuest)
		if s.toGuest.err != nil {
			return s.toGuest.err
		}
		if r == sent && n%notifyEvery != notifyEvery-1 {
			continue
		}
		signal(s.d.room)
		if err := s.rx.Notify(); err != nil {
			return err
		}
		switch r {
		case full:
			if err := s.rx.Wait(); err != nil {
				return err
			}
		case idle:
			select {
			case <-s.d.work:
			case <-s.ctx.Done():
			}
		}
	}
	return s.rx.Notify()
}

// guestSink fills the driver's receive buffers.
type guestSink struct {
	s   *session
	c   *virtio.Chain
	raw [headerLen]byte
	err error // what ends the session
}

func (g *guestSink) buffer() (room int, ok bool) {
	c, ok, err := g.s.rx.Pop()
	if err != nil {
		g.err = err
	}
	if !ok {
		return 0, false
	}
	if c.WritableLen() <= headerLen {
		g.err = virtio.Fault(queueRx, "5.10.6", "receive buffer of %d bytes", c.WritableLen())
		if err := g.s.rx.Push(c, 0); err != nil {
			g.err = err
		}
		return 0, false
	}
	g.c = c
	return int(min(c.WritableLen()-headerLen, maxPayload)), true
}

func (g *guestSink) packet(h header, data []byte) {
	h.encode(&g.raw)
	w := virtio.NewWriter(g.c.Writable())
	w.Put(g.raw[:])
	w.Put(data)
	if err := g.s.rx.Push(g.c, uint32(headerLen+len(data))); err != nil {
		g.err = err
	}
	g.c = nil
	g.s.d.toGuest.count(len(data))
}
