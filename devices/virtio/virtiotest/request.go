package virtiotest

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Request is a chain of buffers in guest memory. It can be submitted again
// once it came back.
type Request struct {
	Written uint32 // what the device said that it wrote

	ring  *Ring
	bufs  []buffer
	descs []uint16 // descriptors of the table that it holds
	table memory.Addr
}

type buffer struct {
	addr  memory.Addr
	len   uint64
	write bool
	data  []byte
}

// Prepare lays a request out in guest memory: out is copied to device-readable
// buffers, one each, and in are the sizes of device-writable buffers, which
// are filled with 0xa5.
func (r *Ring) Prepare(out [][]byte, in ...int) *Request {
	q := &Request{ring: r}
	for _, b := range out {
		q.add(uint64(len(b)), false, b)
	}
	for _, n := range in {
		q.add(uint64(n), true, nil)
	}
	if r.Indirect {
		q.table = r.Arena.Alloc(16*uint64(len(q.bufs)), 16)
		q.descs = []uint16{r.takeDescriptor()}
		q.layTable()
		return q
	}
	for range q.bufs {
		q.descs = append(q.descs, r.takeDescriptor())
	}
	for i := range q.bufs {
		d := q.descriptor(i)
		if d.Flags&DescNext != 0 {
			d.Next = q.descs[i+1]
		}
		r.SetDescriptor(q.descs[i], d)
	}
	return q
}

func (q *Request) add(n uint64, write bool, data []byte) {
	a := q.ring.Arena
	b := buffer{addr: a.Alloc(n, max(q.ring.Align, 1)), len: n, write: write}
	a.next++ // buffers that follow each other would be one piece to the device
	b.data = a.Bytes(b.addr, n)
	for i := range b.data {
		b.data[i] = 0xa5
	}
	copy(b.data, data)
	q.bufs = append(q.bufs, b)
}

func (q *Request) descriptor(i int) Descriptor {
	b := q.bufs[i]
	d := Descriptor{Addr: b.addr, Len: uint32(b.len)}
	if b.write {
		d.Flags |= DescWrite
	}
	if i+1 < len(q.bufs) {
		d.Flags |= DescNext
	}
	return d
}

func (q *Request) layTable() {
	n := uint64(len(q.bufs))
	table := q.ring.Arena.Bytes(q.table, 16*n)
	for i := range q.bufs {
		d := q.descriptor(i)
		d.Next = uint16(i + 1)
		PutDescriptor(table[16*i:], d)
	}
	q.ring.SetDescriptor(q.descs[0], Descriptor{Addr: q.table, Len: uint32(16 * n), Flags: DescIndirect})
}

func (r *Ring) takeDescriptor() uint16 {
	if len(r.free) == 0 {
		panic("virtiotest: more descriptors than the queue has: release requests")
	}
	i := r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	return i
}

// Head names the request while the device has it.
func (q *Request) Head() uint16 { return q.descs[0] }

// Out returns the i-th buffer of all in guest memory, for changing it.
func (q *Request) Out(i int) []byte { return q.bufs[i].data }

// Addr is the guest address of the i-th buffer of all.
func (q *Request) Addr(i int) memory.Addr { return q.bufs[i].addr }

// In is a copy of all device-writable bytes, written or not.
func (q *Request) In() []byte {
	var p []byte
	for _, b := range q.bufs {
		if b.write {
			p = append(p, b.data...)
		}
	}
	return p
}

// Submit makes a prepared request available. It does not allocate.
func (r *Ring) Submit(q *Request) {
	r.requests[q.Head()] = q
	r.Offer(q.Head())
}

// Add prepares and submits.
func (r *Ring) Add(out [][]byte, in ...int) *Request {
	q := r.Prepare(out, in...)
	r.Submit(q)
	return q
}

// Release gives a request's descriptors and memory back; it must not be with
// the device.
func (r *Ring) Release(q *Request) {
	r.free = append(r.free, q.descs...)
	if q.table != 0 {
		r.Arena.Free(q.table, 16*uint64(len(q.bufs)))
	}
	for _, b := range q.bufs {
		r.Arena.Free(b.addr, b.len)
	}
}

// Next returns the next request that the device used, nil when there is none.
// A used element that names no request panics: the device is broken.
func (r *Ring) Next() *Request {
	if r.load(r.Used+2) == r.lastUsed {
		return nil
	}
	e := r.Arena.Bytes(r.Used+4+8*memory.Addr(r.lastUsed%r.Size), 8)
	head := binary.LittleEndian.Uint32(e)
	if head >= uint32(r.Size) || r.requests[head] == nil {
		panic("virtiotest: the device used a chain that it did not have")
	}
	q := r.requests[head]
	r.requests[head] = nil
	q.Written = binary.LittleEndian.Uint32(e[4:])
	r.lastUsed++
	return q
}

// Wait returns the next used request, sleeping until the device interrupts. A
// device that uses a chain without the interrupt that was asked for fails the
// test.
func (r *Ring) Wait(t testing.TB) *Request {
	t.Helper()
	if r.deadline == nil { // one for all: waiting must not allocate, as benchmarks count
		r.deadline = time.NewTimer(Timeout)
	}
	r.deadline.Reset(Timeout)
	defer r.deadline.Stop()
	for {
		r.WantInterrupt(1)
		if q := r.Next(); q != nil {
			return q
		}
		select {
		case <-r.irq:
		case <-r.deadline.C:
			if r.Next() != nil {
				t.Fatal("the device used a chain and did not interrupt")
			}
			t.Fatal("the device did not use a chain in time")
		}
	}
}

// Do adds a request, notifies, waits for it and returns what the device wrote.
func (r *Ring) Do(t testing.TB, out [][]byte, in ...int) []byte {
	t.Helper()
	q := r.Add(out, in...)
	r.Kick()
	if got := r.Wait(t); got != q {
		t.Fatalf("the device used chain %d, want %d", got.Head(), q.Head())
	}
	p := q.In()
	if uint64(q.Written) > uint64(len(p)) {
		t.Fatalf("the device wrote %d of %d bytes", q.Written, len(p))
	}
	r.Release(q)
	return p[:q.Written]
}
