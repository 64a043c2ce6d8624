package net

import (
	"context"
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// receive carries frames to the guest until ctx is done.
func (p *pair) receive(ctx context.Context, q *virtio.Queue, features uint64) error {
	err := p.receiveLoop(ctx, q, features)
	if perr := p.handBack(q); err == nil {
		err = perr
	}
	return err
}

func (p *pair) receiveLoop(ctx context.Context, q *virtio.Queue, features uint64) error {
	for n := 1; ctx.Err() == nil; n++ {
		if p.frame == nil && !p.next(ctx, q) {
			continue
		}
		ok, err := p.collect(q, features)
		if err != nil {
			return err
		}
		if ok {
			if err := p.deliver(q, features); err != nil {
				return err
			}
		}
		if ok && n%batch != 0 {
			continue
		}
		if err := q.Notify(); err != nil {
			return err
		}
		if !ok && p.frame != nil {
			if err := q.Wait(); err != nil {
				return err
			}
		}
	}
	return q.Notify()
}

// next takes the port's next frame, and says whether it is one for the guest.
// It waits for one if there is none.
func (p *pair) next(ctx context.Context, q *virtio.Queue) bool {
	frame, err := p.port.Recv()
	if err == nil && frame == nil {
		// An interrupt that cannot be raised is found again by the loop.
		_ = q.Notify()
		if err = p.port.Wait(); err == nil {
			return false
		}
	}
	if err != nil {
		p.d.lost(err)
		<-ctx.Done()
		return false
	}
	n := lengthOf(frame) - HeaderLen
	if n < ethernetHeader || p.d.down.Load() {
		add(&p.rx.dropped, 1)
		return false
	}
	if !p.d.filter.Load().passes(frame) {
		return false
	}
	if d := p.rxLimit.take(n); d > 0 {
		_ = q.Notify()
		pause(ctx, d)
	}
	p.frame = frame
	return true
}

// collect takes buffers until they have room for the frame, and says whether
// they have. A frame that can never be delivered is dropped; the buffers stay
// for the next.
func (p *pair) collect(q *virtio.Queue, features uint64) (ok bool, err error) {
	need, room := lengthOf(p.frame), 0
	for _, c := range p.chains {
		room += int(c.WritableLen())
	}
	for room < need {
		most := 1
		if features&FeatureMrgRxbuf != 0 {
			most = q.Size()
		}
		if len(p.chains) >= most {
			add(&p.rx.dropped, 1)
			p.frame = nil
			return false, nil
		}
		c, ok, err := q.Pop()
		if !ok {
			return false, err
		}
		p.chains = append(p.chains, c)
		room += int(c.WritableLen())
		if c.WritableLen() < HeaderLen {
			return false, virtio.Fault(q.Index(), "5.1.6.3.1", "receive buffer of %d bytes", c.WritableLen())
		}
	}
	return true, nil
}

// deliver copies the frame to the buffers that collect took, and returns those
// that it fills to the driver, all at once (virtio 1.2 §5.1.6.4).
func (p *pair) deliver(q *virtio.Queue, features uint64) error {
	p.header(features)
	p.written = p.written[:0]
	used := p.fill()
	var num [2]byte
	binary.LittleEndian.PutUint16(num[:], uint16(used))
	scatter(p.chains[0].Writable(), HeaderLen-len(num), num[:])
	p.d.observe(true, p.rxFrame)
	p.rx.passed(lengthOf(p.frame) - HeaderLen)
	p.frame = nil
	err := q.PushAll(p.chains[:used], p.written)
	rest := copy(p.chains, p.chains[used:])
	clear(p.chains[rest:])
	p.chains = p.chains[:rest]
	return err
}

// header makes the header that the driver gets: without flags that it did not
// negotiate (virtio 1.2 §5.1.6.4.1).
func (p *pair) header(features uint64) {
	var h Header
	gather(p.rxHdr[:], p.frame)
	h.Decode(p.rxHdr[:])
	h.Flags &= HeaderNeedsCsum | HeaderDataValid
	if features&FeatureGuestCsum == 0 {
		h.Flags = 0
	}
	h.Encode(p.rxHdr[:])
	p.rxFrame = appendFrom(append(p.rxFrame[:0], p.rxHdr[:]), p.frame, HeaderLen)
}

// fill copies the frame to as many of the buffers as it needs.
func (p *pair) fill() (used int) {
	src, off := p.rxFrame, 0
	for len(src) > 0 && used < len(p.chains) {
		n := 0
		for _, dst := range p.chains[used].Writable() {
			for len(dst) > 0 && len(src) > 0 {
				k := copy(dst, src[0][off:])
				dst, n = dst[k:], n+k
				if off += k; off == len(src[0]) {
					src, off = src[1:], 0
				}
			}
		}
		p.written = append(p.written, uint32(n))
		used++
	}
	return used
}

// handBack returns buffers that wait for a frame to the driver, empty: it takes
// them as frames of no length, drops them, and makes new ones available.
func (p *pair) handBack(q *virtio.Queue) error {
	if len(p.chains) == 0 {
		return nil
	}
	p.written = p.written[:0]
	for range p.chains {
		p.written = append(p.written, 0)
	}
	err := q.PushAll(p.chains, p.written)
	clear(p.chains)
	p.chains = p.chains[:0]
	if err != nil {
		return err
	}
	return q.Notify()
}
