package net

import (
	"context"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// transmit carries frames from the guest until ctx is done.
func (p *pair) transmit(ctx context.Context, q *virtio.Queue, features uint64) error {
	for ctx.Err() == nil {
		c, ok, err := q.Pop()
		if err != nil {
			return p.endTransmit(q, err)
		}
		if ok {
			err = p.sendChain(ctx, q.Index(), c, features)
			p.txDone = append(p.txDone, c)
			if err != nil {
				return p.endTransmit(q, err)
			}
			if len(p.txDone) < batch {
				continue
			}
		}
		if err := p.flush(q); err != nil {
			return err
		}
		if !ok {
			if err := q.Wait(); err != nil {
				return err
			}
		}
	}
	return p.endTransmit(q, nil)
}

// endTransmit gives back what is left.
func (p *pair) endTransmit(q *virtio.Queue, err error) error {
	if ferr := p.flush(q); err == nil {
		err = ferr
	}
	return err
}

// flush sends what the port has kept back, and returns the buffers of what was
// sent to the driver.
func (p *pair) flush(q *virtio.Queue) error {
	if err := p.port.Flush(); err != nil {
		p.d.lost(err)
	}
	if len(p.txDone) == 0 {
		return nil
	}
	err := q.PushAll(p.txDone, p.txZeros[:len(p.txDone)])
	clear(p.txDone)
	p.txDone = p.txDone[:0]
	if err != nil {
		return err
	}
	return q.Notify()
}

// sendChain sends one frame of the guest's. The header is copied and checked,
// so that what a back end reads is what was checked.
func (p *pair) sendChain(ctx context.Context, queue int, c *virtio.Chain, features uint64) error {
	n := int(c.ReadableLen()) - HeaderLen
	if n < 0 {
		return virtio.Fault(queue, "5.1.6.2", "frame of %d bytes, without a header", c.ReadableLen())
	}
	pieces := c.Readable()
	gather(p.txHdr[:], pieces)
	var h Header
	h.Decode(p.txHdr[:])
	if n < ethernetHeader || n > MaxFrame-HeaderLen || h.Check(n, features) != nil || p.d.down.Load() {
		add(&p.tx.dropped, 1)
		return nil
	}
	h.NumBuffers = 0
	h.Encode(p.txHdr[:])
	p.txFrame = appendFrom(append(p.txFrame[:0], p.txHdr[:]), pieces, HeaderLen)
	p.d.observe(false, p.txFrame)
	if d := p.txLimit.take(n); d > 0 {
		if err := p.port.Flush(); err != nil {
			p.d.lost(err)
		}
		pause(ctx, d)
	}
	if err := p.port.Send(p.txFrame); err != nil {
		p.d.lost(err)
		add(&p.tx.dropped, 1)
		return nil
	}
	p.tx.passed(n)
	return nil
}
