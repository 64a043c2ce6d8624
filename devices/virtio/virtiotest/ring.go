package virtiotest

import (
	"encoding/binary"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Descriptor flags (virtio 1.2 §2.7.5).
const (
	DescNext     = 1
	DescWrite    = 2
	DescIndirect = 4
)

// Timeout is how long a test waits for a device before it fails: long enough
// for any loaded machine.
const Timeout = 20 * time.Second

// Descriptor is an entry of a descriptor table (virtio 1.2 §2.7.5).
type Descriptor struct {
	Addr  memory.Addr
	Len   uint32
	Flags uint16
	Next  uint16
}

// Ring is the driver's side of one split virtqueue (virtio 1.2 §2.7).
type Ring struct {
	Arena             *Arena
	Size              uint16
	Desc, Avail, Used memory.Addr
	Features          uint64
	Indirect          bool   // put each chain into a table of its own
	Align             uint64 // of buffers; default 1
	Notify            func() // rings the device's doorbell

	Kicks int // notifications sent

	free       []uint16
	requests   []*Request // by head
	availIdx   uint16
	kickedIdx  uint16
	lastUsed   uint16
	irq        chan struct{}
	deadline   *time.Timer // of Wait
	interrupts atomic.Int64
}

// NewRing allocates the three areas of a queue of size entries.
func NewRing(arena *Arena, size uint16, features uint64, notify func()) *Ring {
	n := uint64(size)
	r := &Ring{Arena: arena, Size: size, Features: features, Notify: notify,
		Desc:     arena.Alloc(16*n, 16),
		Avail:    arena.Alloc(8+2*n, 4),
		Used:     arena.Alloc(8+8*n, 4),
		requests: make([]*Request, size),
		irq:      make(chan struct{}, 1),
	}
	clear(arena.Bytes(r.Desc, 16*n))
	clear(arena.Bytes(r.Avail, 8+2*n))
	clear(arena.Bytes(r.Used, 8+8*n))
	for i := range size {
		r.free = append(r.free, size-1-i)
	}
	return r
}

// NewQueue returns a queue of the device's and the ring that drives it,
// without a device or a transport.
func NewQueue(t testing.TB, mem *memory.Guest, size uint16, features uint64) (*virtio.Queue, *Ring) {
	t.Helper()
	bell := virtio.NewDoorbell()
	r := NewRing(NewArena(mem, 0x1000, memory.Addr(mem.Size())), size, features, bell.Ring)
	q, err := virtio.NewQueue(mem, r.Config(0), bell, func() error { r.Interrupt(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return q, r
}

// Config is the ring as the device is told of it.
func (r *Ring) Config(index int) virtio.QueueConfig {
	return virtio.QueueConfig{Index: index, Size: r.Size, Desc: r.Desc, Avail: r.Avail, Used: r.Used, Features: r.Features}
}

// Interrupt is what the device's interrupt calls.
func (r *Ring) Interrupt() {
	r.interrupts.Add(1)
	select {
	case r.irq <- struct{}{}:
	default:
	}
}

// Interrupts is how many there were.
func (r *Ring) Interrupts() int { return int(r.interrupts.Load()) }

// SetDescriptor writes entry i of the descriptor table.
func (r *Ring) SetDescriptor(i uint16, d Descriptor) {
	PutDescriptor(r.Arena.Bytes(r.Desc+16*memory.Addr(i), 16), d)
}

// PutDescriptor writes d to the first 16 bytes of b.
func PutDescriptor(b []byte, d Descriptor) {
	binary.LittleEndian.PutUint64(b, uint64(d.Addr))
	binary.LittleEndian.PutUint32(b[8:], d.Len)
	binary.LittleEndian.PutUint16(b[12:], d.Flags)
	binary.LittleEndian.PutUint16(b[14:], d.Next)
}

// Offer makes the chain at head available, whatever head is.
func (r *Ring) Offer(head uint16) {
	r.store(r.Avail+4+2*memory.Addr(r.availIdx%r.Size), head)
	r.availIdx++
	r.store(r.Avail+2, r.availIdx)
}

// SetAvailIdx lies about how many chains there are.
func (r *Ring) SetAvailIdx(idx uint16) {
	r.availIdx = idx
	r.store(r.Avail+2, idx)
}

// AvailIdx is the driver's index.
func (r *Ring) AvailIdx() uint16 { return r.availIdx }

func (r *Ring) load(a memory.Addr) uint16 {
	v, err := r.Arena.Mem.LoadUint16(a)
	if err != nil {
		panic(err)
	}
	return v
}

func (r *Ring) store(a memory.Addr, v uint16) {
	if err := r.Arena.Mem.StoreUint16(a, v); err != nil {
		panic(err)
	}
}

func (r *Ring) eventIdx() bool { return r.Features&virtio.FeatureEventIdx != 0 }

func (r *Ring) usedEvent() memory.Addr  { return r.Avail + 4 + 2*memory.Addr(r.Size) }
func (r *Ring) availEvent() memory.Addr { return r.Used + 4 + 8*memory.Addr(r.Size) }

// Kick notifies the device if it wants to be for what was offered since the
// last Kick (§2.7.10), as a good driver does.
func (r *Ring) Kick() {
	if r.kickWanted() {
		r.Kicks++
		r.Notify()
	}
	r.kickedIdx = r.availIdx
}

func (r *Ring) kickWanted() bool {
	if !r.eventIdx() {
		return r.load(r.Used)&1 == 0
	}
	event := r.load(r.availEvent())
	return r.availIdx-event-1 < r.availIdx-r.kickedIdx
}

// NoInterrupt asks the device not to interrupt, by flag or by an event index
// far away (§2.7.7).
func (r *Ring) NoInterrupt() {
	if r.eventIdx() {
		r.store(r.usedEvent(), r.lastUsed-1)
		return
	}
	r.store(r.Avail, 1)
}

// WantInterrupt asks for one after the next n used elements.
func (r *Ring) WantInterrupt(n uint16) {
	if r.eventIdx() {
		r.store(r.usedEvent(), r.lastUsed+n-1)
		return
	}
	r.store(r.Avail, 0)
}
