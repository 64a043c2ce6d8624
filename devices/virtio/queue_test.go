package virtio_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// ringFeatures are the combinations that a queue works with.
var ringFeatures = map[string]uint64{
	"plain":    0,
	"event":    virtio.FeatureEventIdx,
	"indirect": virtio.FeatureIndirectDesc,
	"both":     virtio.FeatureEventIdx | virtio.FeatureIndirectDesc,
}

func newQueue(t testing.TB, size uint16, features uint64) (*virtio.Queue, *virtiotest.Ring) {
	q, r := virtiotest.NewQueue(t, virtiotest.Memory(t, 1<<20), size, features)
	r.Indirect = features&virtio.FeatureIndirectDesc != 0
	return q, r
}

func mustPop(t testing.TB, q *virtio.Queue) *virtio.Chain {
	t.Helper()
	c, ok, err := q.Pop()
	if err != nil || !ok {
		t.Fatalf("Pop: ok %v, error %v", ok, err)
	}
	return c
}

func join(segs [][]byte) []byte { return slices.Concat(segs...) }

// TestPopJoinsNeighbours: descriptors of the same direction that follow each
// other in one region of memory are one piece of data, and stay segments.
func TestPopJoinsNeighbours(t *testing.T) {
	const size = 1 << 20
	mem := virtiotest.Memory(t, size)
	if err := mem.AddAnonymous(size, 4096, memory.RAM); err != nil {
		t.Fatal(err)
	}
	q, r := virtiotest.NewQueue(t, mem, 8, 0)
	const next, write = virtiotest.DescNext, virtiotest.DescWrite
	for i, d := range []virtiotest.Descriptor{
		{Addr: 0x8000, Len: 16, Flags: next},
		{Addr: 0x8010, Len: 48, Flags: next},
		{Addr: 0x8040, Len: 8, Flags: next | write}, // follows, but the other direction
		{Addr: 0x8048, Len: 8, Flags: next | write},
		{Addr: 0x8048, Len: 8, Flags: next | write}, // again, so it does not follow
		{Addr: size - 8, Len: 8, Flags: next | write},
		{Addr: size, Len: 8, Flags: write}, // follows, in another region
	} {
		d.Next = uint16(i + 1)
		r.SetDescriptor(uint16(i), d)
	}
	r.Offer(0)
	c := mustPop(t, q)
	lens := func(data [][]byte) (n []int) {
		for _, b := range data {
			n = append(n, len(b))
		}
		return n
	}
	if got := lens(c.Readable()); !slices.Equal(got, []int{64}) {
		t.Errorf("readable pieces of %v bytes", got)
	}
	if got := lens(c.Writable()); !slices.Equal(got, []int{16, 8, 8, 8}) {
		t.Errorf("writable pieces of %v bytes", got)
	}
	if len(c.Segments(true)) != 2 || len(c.Segments(false)) != 5 {
		t.Errorf("%d and %d segments", len(c.Segments(true)), len(c.Segments(false)))
	}
	for i, a := range []memory.Addr{0x8040, 0x8048, size - 8, size} {
		c.Writable()[i][0] = byte(i + 1)
		if b, err := mem.Bytes(a, 1); err != nil || b[0] != byte(i+1) {
			t.Errorf("piece %d is not at %#x", i, uint64(a))
		}
	}
}

func TestPopGivesTheChainAsTheDriverMadeIt(t *testing.T) {
	for name, features := range ringFeatures {
		t.Run(name, func(t *testing.T) {
			q, r := newQueue(t, 8, features)
			req := r.Add([][]byte{[]byte("head"), nil, []byte("er")}, 3, 0, 5)
			c := mustPop(t, q)

			if got := join(c.Readable()); string(got) != "header" || len(c.Readable()) != 2 || c.ReadableLen() != 6 {
				t.Errorf("readable %q in %d segments, %d bytes", got, len(c.Readable()), c.ReadableLen())
			}
			if len(c.Writable()) != 2 || c.WritableLen() != 8 {
				t.Errorf("writable: %d segments, %d bytes", len(c.Writable()), c.WritableLen())
			}
			want := []virtio.Segment{{Addr: req.Addr(3), Len: 3}, {Addr: req.Addr(5), Len: 5}}
			if got := c.Segments(false); !slices.Equal(got, want) {
				t.Errorf("writable segments %v, want %v", got, want)
			}
			if got := c.Segments(true); len(got) != 2 || got[0].Addr != req.Addr(0) {
				t.Errorf("readable segments %v", got)
			}
			for _, s := range slices.Concat(c.Readable(), c.Writable()) {
				if cap(s) != len(s) {
					t.Errorf("segment of %d bytes can grow to %d", len(s), cap(s))
				}
			}
			copy(c.Writable()[1], "reply")
			if err := q.Push(c, 8); err != nil {
				t.Fatal(err)
			}
			if got := r.Next(); got != req || got.Written != 8 || !bytes.HasSuffix(got.In(), []byte("reply")) {
				t.Errorf("used %+v", got)
			}
			if _, ok, err := q.Pop(); ok || err != nil {
				t.Errorf("Pop of an empty queue: %v, %v", ok, err)
			}
		})
	}
}

// The indices of the rings are 16 bits wide and go around.
func TestIndicesWrapAround(t *testing.T) {
	for name, features := range ringFeatures {
		t.Run(name, func(t *testing.T) {
			q, r := newQueue(t, 8, features)
			var reqs []*virtiotest.Request
			for range 3 {
				reqs = append(reqs, r.Prepare([][]byte{{1}}, 1))
			}
			for i := range math.MaxUint16/3 + 10 {
				for _, req := range reqs {
					r.Submit(req)
				}
				r.WantInterrupt(3)
				for range reqs {
					if err := q.Push(mustPop(t, q), 1); err != nil {
						t.Fatal(err)
					}
				}
				if err := q.Notify(); err != nil {
					t.Fatal(err)
				}
				for _, req := range reqs {
					if r.Next() != req {
						t.Fatalf("turn %d: not the request", i)
					}
				}
				if r.Interrupts() != i+1 {
					t.Fatalf("turn %d: %d interrupts", i, r.Interrupts())
				}
			}
		})
	}
}

func TestInterruptsOnlyWhenWanted(t *testing.T) {
	for name, features := range ringFeatures {
		t.Run(name, func(t *testing.T) {
			q, r := newQueue(t, 16, features)
			event := features&virtio.FeatureEventIdx != 0
			serve := func(n int) int {
				before := r.Interrupts()
				for range n {
					r.Add([][]byte{{1}})
					if err := q.Push(mustPop(t, q), 0); err != nil {
						t.Fatal(err)
					}
				}
				for range 2 { // the second has nothing to tell
					if err := q.Notify(); err != nil {
						t.Fatal(err)
					}
				}
				for req := r.Next(); req != nil; req = r.Next() {
					r.Release(req)
				}
				return r.Interrupts() - before
			}
			r.WantInterrupt(1)
			if n := serve(3); n != 1 {
				t.Errorf("%d interrupts for a batch of 3, want 1", n)
			}
			r.NoInterrupt()
			if n := serve(3); n != 0 {
				t.Errorf("%d interrupts, and the driver wanted none", n)
			}
			r.WantInterrupt(5)
			if n := serve(4); event && n != 0 {
				t.Errorf("%d interrupts before the event index", n)
			}
			if n := serve(1); n != 1 {
				t.Errorf("%d interrupts at the event index, want 1", n)
			}
			qi := q.Inspect()
			if qi.Pushed != 11 || qi.Interrupts != uint64(r.Interrupts()) || qi.Interrupts+qi.SuppressedInterrupts > 4 || qi.InFlight != 0 {
				t.Errorf("inspected %+v", qi)
			}
		})
	}
}

// A device that sleeps is woken for every chain, and a driver does not notify
// a device that is awake.
func TestNotificationsWakeTheDevice(t *testing.T) {
	const n = 2000
	for name, features := range ringFeatures {
		t.Run(name, func(t *testing.T) {
			q, r := newQueue(t, 8, features)
			var device sync.WaitGroup
			device.Go(func() {
				for done := 0; done < n; {
					c, ok, err := q.Pop()
					if err != nil {
						t.Error(err)
						return
					}
					if !ok {
						if err := errors.Join(q.Notify(), q.Wait()); err != nil {
							t.Error(err)
							return
						}
						continue
					}
					if err := q.Push(c, 0); err != nil {
						t.Error(err)
					}
					done++
				}
				if err := q.Notify(); err != nil {
					t.Error(err)
				}
			})
			for i := range n {
				r.Add([][]byte{{byte(i)}})
				r.Kick()
				if i%3 != 0 || i == n-1 {
					for req := r.Wait(t); req != nil; req = r.Next() {
						r.Release(req)
					}
				}
			}
			device.Wait()
			if r.Kicks > n {
				t.Errorf("%d notifications for %d chains", r.Kicks, n)
			}
		})
	}
}

func TestBusyDeviceIsNotNotified(t *testing.T) {
	for name, features := range ringFeatures {
		t.Run(name, func(t *testing.T) {
			q, r := newQueue(t, 8, features)
			r.Add([][]byte{{1}})
			r.Kick()
			if err := q.Wait(); err != nil { // something is there: no sleep
				t.Fatal(err)
			}
			mustPop(t, q)
			before := r.Kicks
			for range 3 {
				r.Add([][]byte{{1}})
				r.Kick()
			}
			if got := r.Kicks - before; features&virtio.FeatureEventIdx == 0 && got != 0 || got > 1 {
				t.Errorf("%d notifications to a device that is awake", got)
			}
		})
	}
}

// §2.7.5.3.2: direct descriptors may come before the indirect one, whose WRITE
// flag says nothing.
func TestDirectThenIndirect(t *testing.T) {
	q, r := newQueue(t, 8, virtio.FeatureIndirectDesc)
	r.SetDescriptor(0, virtiotest.Descriptor{Addr: 0x8000, Len: 2, Flags: virtiotest.DescNext, Next: 1})
	r.SetDescriptor(1, virtiotest.Descriptor{Addr: 0x9000, Len: 32, Flags: virtiotest.DescIndirect | virtiotest.DescWrite})
	table := r.Arena.Bytes(0x9000, 32)
	virtiotest.PutDescriptor(table, virtiotest.Descriptor{Addr: 0x8002, Len: 3, Flags: virtiotest.DescNext, Next: 1})
	virtiotest.PutDescriptor(table[16:], virtiotest.Descriptor{Addr: 0x8010, Len: 4, Flags: virtiotest.DescWrite})
	r.Offer(0)
	c := mustPop(t, q)
	if c.ReadableLen() != 5 || c.WritableLen() != 4 {
		t.Errorf("%d and %d bytes", c.ReadableLen(), c.WritableLen())
	}
}

// A queue goes on where another one, over the same memory, was left.
func TestQueueContinues(t *testing.T) {
	mem := virtiotest.Memory(t, 1<<20)
	q, r := virtiotest.NewQueue(t, mem, 8, 0)
	for range 3 {
		r.Add([][]byte{{1}})
	}
	if err := q.Push(mustPop(t, q), 0); err != nil {
		t.Fatal(err)
	}
	qi := q.Inspect()
	cfg := r.Config(0)
	cfg.NextAvail, cfg.NextUsed = qi.NextAvail, qi.UsedIdx
	q, err := virtio.NewQueue(mem, cfg, virtio.NewDoorbell(), func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := q.Push(mustPop(t, q), 0); err != nil {
			t.Fatal(err)
		}
	}
	used := 0
	for r.Next() != nil {
		used++
	}
	if used != 3 {
		t.Errorf("%d used elements, want 3", used)
	}
}

func TestWritesAreNotedForSnapshots(t *testing.T) {
	mem := virtiotest.Memory(t, 1<<20)
	q, r := virtiotest.NewQueue(t, mem, 8, 0)
	req := r.Add(nil, 8192)
	c := mustPop(t, q)
	dirty := memory.NewDirty(1 << 20) // begun with the chain in flight
	mem.TrackDirty(dirty)
	if err := q.Push(c, 4096); err != nil {
		t.Fatal(err)
	}
	if !dirty.Has(req.Addr(0)) || !dirty.Has(r.Used) {
		t.Error("pages that the device wrote are not noted")
	}
	if dirty.Has(req.Addr(0) + 8191) {
		t.Error("a page is noted that was not written")
	}
}

func BenchmarkPopPush(b *testing.B) {
	for name, features := range ringFeatures {
		b.Run(name, func(b *testing.B) {
			q, r := newQueue(b, 256, features)
			var reqs []*virtiotest.Request
			for range 32 {
				reqs = append(reqs, r.Prepare([][]byte{make([]byte, 16)}, 4096, 1))
			}
			b.ReportAllocs()
			for b.Loop() {
				for _, req := range reqs {
					r.Submit(req)
				}
				for range reqs {
					c, _, err := q.Pop()
					if err != nil {
						b.Fatal(err)
					}
					if err := q.Push(c, 1); err != nil {
						b.Fatal(err)
					}
				}
				_ = q.Notify()
				for r.Next() != nil {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(reqs)), "ns/chain")
		})
	}
}

func TestNoAllocationsPerChain(t *testing.T) {
	for name, features := range ringFeatures {
		q, r := newQueue(t, 8, features)
		req := r.Prepare([][]byte{{1}}, 64, 1)
		n := testing.AllocsPerRun(100, func() {
			r.Submit(req)
			c, _, err := q.Pop()
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(q.Push(c, 1), q.Notify()); err != nil {
				t.Fatal(err)
			}
			r.Next()
		})
		if n != 0 {
			t.Errorf("%s: %v allocations a chain", name, n)
		}
	}
}
