// Package pmem is the persistent-memory device of VIRTIO 1.2 §5.19: a file in
// the guest's address space, which the guest reads and writes like memory (DAX)
// and makes durable by a request.
package pmem

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Align is what base and size must be multiples of: what Linux needs to map
// persistent memory.
const Align = 2 << 20

const (
	queueSize = 64
	configLen = 16 // start le64, size le64
	typeFlush = 0
	answerLen = 4
	retOK     = 0
	retEIO    = 1
)

// Options describe a device.
type Options struct {
	Name  string       // for messages; default "pmem"
	Base  memory.Addr  // where the region is that the guest sees; a multiple of Align
	Size  uint64       // its bytes; a multiple of Align
	Flush func() error // makes durable what the guest wrote to the region; it may take long
}

// Device is a persistent-memory device. The region itself is guest memory of
// kind memory.PMEM, added by whoever makes the device.
type Device struct {
	opts    Options
	flushes atomic.Uint64
}

var _ virtio.Device = (*Device)(nil)

// New returns a device for a region.
func New(o Options) (*Device, error) {
	if o.Name == "" {
		o.Name = "pmem"
	}
	end, carry := bits.Add64(uint64(o.Base), o.Size, 0)
	switch {
	case o.Size == 0 || o.Size%Align != 0 || o.Base%Align != 0 || carry != 0 && end != 0:
		return nil, fmt.Errorf("%s: a region of %d bytes at %#x: want multiples of %d", o.Name, o.Size, uint64(o.Base), Align)
	case o.Flush == nil:
		return nil, errors.New(o.Name + ": no way to flush")
	}
	return &Device{opts: o}, nil
}

// Spec implements virtio.Device.
func (d *Device) Spec() virtio.Spec {
	return virtio.Spec{ID: virtio.IDPmem, QueueMax: []uint16{queueSize}, ConfigLen: configLen, Name: d.opts.Name}
}

// ReadConfig implements virtio.Device (§5.19.4).
func (d *Device) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off < configLen {
		var c [configLen]byte
		binary.LittleEndian.PutUint64(c[0:], uint64(d.opts.Base))
		binary.LittleEndian.PutUint64(c[8:], d.opts.Size)
		copy(p, c[off:])
	}
}

// WriteConfig implements virtio.Device: nothing may be written.
func (d *Device) WriteConfig(uint64, []byte) {}

// Flushes is how often the region was made durable.
func (d *Device) Flushes() uint64 { return d.flushes.Load() }

// request is what is kept of one: its type is read once.
type request struct {
	chain *virtio.Chain
	flush bool
}

// Serve implements virtio.Device. The requests that are there together are
// answered by one flush: it covers what was written before each of them.
func (d *Device) Serve(ctx context.Context, _ uint64, qs []*virtio.Queue) error {
	return virtio.Work(ctx, qs, func(ctx context.Context, q *virtio.Queue) error {
		batch := make([]request, 0, q.Size())
		for ctx.Err() == nil {
			var err error
			batch, err = collect(q, batch[:0])
			if err = errors.Join(err, d.answer(q, batch)); err != nil {
				return err
			}
			if err := q.Wait(); err != nil {
				return err
			}
		}
		return nil
	})
}

// collect takes all requests that are there (§5.19.6):
//
//	readable: | type le32 |    writable: | ret le32 |
func collect(q *virtio.Queue, batch []request) ([]request, error) {
	for {
		c, ok, err := q.Pop()
		if err != nil || !ok {
			return batch, err
		}
		cur := virtio.NewReader(c.Readable())
		kind := cur.Uint32()
		if cur.Err() != nil || c.WritableLen() < answerLen {
			err := virtio.Fault(q.Index(), "5.19.6", "a request of %d bytes with %d for the answer", c.ReadableLen(), c.WritableLen())
			return batch, errors.Join(err, q.Push(c, 0))
		}
		batch = append(batch, request{c, kind == typeFlush})
	}
}

// answer flushes if any of the requests asks for it, and gives all back.
func (d *Device) answer(q *virtio.Queue, batch []request) (err error) {
	ret := uint32(retOK)
	for _, r := range batch {
		if r.flush {
			d.flushes.Add(1)
			if d.opts.Flush() != nil {
				ret = retEIO
			}
			break
		}
	}
	for _, r := range batch {
		w := virtio.NewWriter(r.chain.Writable())
		if r.flush {
			w.PutUint32(ret)
		} else {
			w.PutUint32(retEIO)
		}
		err = errors.Join(err, q.Push(r.chain, answerLen))
	}
	return errors.Join(err, q.Notify())
}
