package virtio_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
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

// Each of these is a driver that breaks the protocol: an error that says so,
// and no chain.
func TestHostileChains(t *testing.T) {
	const indirect = virtio.FeatureIndirectDesc
	end := memory.Addr(1 << 20)
	good := virtiotest.Descriptor{Addr: 0x8000, Len: 16}
	desc := func(addr memory.Addr, n uint32, flags, next uint16) virtiotest.Descriptor {
		return virtiotest.Descriptor{Addr: addr, Len: n, Flags: flags, Next: next}
	}
	tests := []struct {
		name     string
		features uint64
		descs    []virtiotest.Descriptor
		table    []virtiotest.Descriptor // at 0x9000
		head     uint16
		want     string
	}{
		{"head outside the table", 0, nil, nil, 8, "2.7.6"},
		{"head far outside", 0, nil, nil, 65535, "2.7.6"},
		{"next outside the table", 0, []virtiotest.Descriptor{desc(0x8000, 1, 1, 8)}, nil, 0, "2.7.5"},
		{"loop", 0, []virtiotest.Descriptor{desc(0x8000, 1, 1, 1), desc(0x8000, 1, 1, 0)}, nil, 0, "2.7.5.2"},
		{"loop on itself without bytes", 0, []virtiotest.Descriptor{desc(0x8000, 0, 1, 0)}, nil, 0, "2.7.5.2"},
		{"past the end", 0, []virtiotest.Descriptor{desc(end-8, 9, 0, 0)}, nil, 0, "2.7.5"},
		{"outside", 0, []virtiotest.Descriptor{desc(end, 1, 0, 0)}, nil, 0, "2.7.5"},
		{"in the hole", 0, []virtiotest.Descriptor{desc(0xd000_0000, 4, 2, 0)}, nil, 0, "2.7.5"},
		{"address that wraps", 0, []virtiotest.Descriptor{desc(1<<64-4, 16, 0, 0)}, nil, 0, "2.7.5"},
		{"longest length", 0, []virtiotest.Descriptor{desc(0, math.MaxUint32, 0, 0)}, nil, 0, "2.7.5"},
		{"readable behind writable", 0, []virtiotest.Descriptor{desc(0x8000, 1, 3, 1), good}, nil, 0, "2.7.4.2"},
		{"indirect without the feature", 0, []virtiotest.Descriptor{desc(0x9000, 16, 4, 0)}, nil, 0, "2.7.5.3.1"},
		{"indirect with next", indirect, []virtiotest.Descriptor{desc(0x9000, 16, 5, 0)}, nil, 0, "2.7.5.3.1"},
		{"empty table", indirect, []virtiotest.Descriptor{desc(0x9000, 0, 4, 0)}, nil, 0, "2.7.5.3"},
		{"table of an odd size", indirect, []virtiotest.Descriptor{desc(0x9000, 17, 4, 0)}, nil, 0, "2.7.5.3"},
		{"table too large", indirect, []virtiotest.Descriptor{desc(0, 16*65537, 4, 0)}, nil, 0, "2.7.5.3"},
		{"table outside memory", indirect, []virtiotest.Descriptor{desc(end-16, 32, 4, 0)}, nil, 0, "2.7.5.3"},
		{"indirect in indirect", indirect, []virtiotest.Descriptor{desc(0x9000, 16, 4, 0)},
			[]virtiotest.Descriptor{desc(0x9000, 16, 4, 0)}, 0, "2.7.5.3.1"},
		{"next outside the indirect table", indirect, []virtiotest.Descriptor{desc(0x9000, 16, 4, 0)},
			[]virtiotest.Descriptor{desc(0x8000, 1, 1, 1)}, 0, "2.7.5"},
		{"loop in the indirect table", indirect, []virtiotest.Descriptor{desc(0x9000, 16, 4, 0)},
			[]virtiotest.Descriptor{desc(0x8000, 1, 1, 0)}, 0, "2.7.5.2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, r := newQueue(t, 8, tt.features)
			for i, d := range tt.descs {
				r.SetDescriptor(uint16(i), d)
			}
			for i, d := range tt.table {
				virtiotest.PutDescriptor(r.Arena.Bytes(0x9000+16*memory.Addr(i), 16), d)
			}
			r.Offer(tt.head)
			c, ok, err := q.Pop()
			wantProtocolError(t, err, tt.want)
			if ok || c != nil {
				t.Error("a chain came with the error")
			}
			// It stays broken, whatever comes later.
			r.SetDescriptor(0, good)
			r.Offer(0)
			if _, ok, again := q.Pop(); ok || again != err {
				t.Errorf("then Pop: %v, %v", ok, again)
			}
			if q.Wait() != err {
				t.Error("Wait went on")
			}
		})
	}
}

func wantProtocolError(t *testing.T, err error, section string) {
	t.Helper()
	var pe *virtio.ProtocolError
	if !errors.As(err, &pe) || pe.Section != section || !strings.Contains(err.Error(), "§"+section) {
		t.Errorf("error %v, want a *ProtocolError about §%s", err, section)
	}
}

func TestTotalLengthIsBounded(t *testing.T) {
	mem := virtiotest.Memory(t, 1<<30)
	q, r := virtiotest.NewQueue(t, mem, 8, 0)
	for i := range uint16(5) {
		r.SetDescriptor(i, virtiotest.Descriptor{Addr: 0, Len: 1 << 30, Flags: virtiotest.DescNext, Next: i + 1})
	}
	r.Offer(0)
	_, _, err := q.Pop()
	wantProtocolError(t, err, "2.7.5.2")
}

func TestChainsUpToTheQueueSize(t *testing.T) {
	for name, features := range ringFeatures {
		t.Run(name, func(t *testing.T) {
			q, r := newQueue(t, 8, features)
			r.Add([][]byte{{1}, {2}, {3}, {4}}, 1, 1, 1, 1)
			c := mustPop(t, q)
			if len(c.Readable()) != 4 || len(c.Writable()) != 4 {
				t.Errorf("%d and %d segments", len(c.Readable()), len(c.Writable()))
			}
		})
	}
	q, r := newQueue(t, 8, virtio.FeatureIndirectDesc)
	r.Add(make([][]byte, 9))
	_, _, err := q.Pop()
	wantProtocolError(t, err, "2.7.5.2")
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

func TestAvailableIndexLies(t *testing.T) {
	q, r := newQueue(t, 8, 0)
	r.SetAvailIdx(9)
	_, _, err := q.Pop()
	wantProtocolError(t, err, "2.7.6")
}

func TestHeadInFlightTwice(t *testing.T) {
	q, r := newQueue(t, 8, 0)
	r.Add([][]byte{{1}})
	c := mustPop(t, q)
	r.Offer(c.Head())
	_, _, err := q.Pop()
	wantProtocolError(t, err, "2.7.6")
	if err := q.Push(c, 0); err != nil { // what it has, it can still give back
		t.Error(err)
	}
}

func TestPushRefusesWhatADeviceMustNotDo(t *testing.T) {
	q, r := newQueue(t, 8, 0)
	r.Add([][]byte{{1}}, 4)
	c := mustPop(t, q)
	if err := q.Push(c, 5); err == nil {
		t.Error("more written than there was room for")
	}
	if err := q.Push(c, 4); err != nil {
		t.Error(err)
	}
	if err := q.Push(c, 4); err == nil {
		t.Error("pushed twice")
	}
	if r.Next() == nil || r.Next() != nil {
		t.Error("want one used element")
	}
}

func TestQueuesWhereNoneCanBe(t *testing.T) {
	mem := virtiotest.Memory(t, 1<<20)
	end := memory.Addr(1 << 20)
	good := virtio.QueueConfig{Size: 8, Desc: 0x1000, Avail: 0x2000, Used: 0x3000}
	tests := map[string]func(c *virtio.QueueConfig){
		"no size":                      func(c *virtio.QueueConfig) { c.Size = 0 },
		"size 6":                       func(c *virtio.QueueConfig) { c.Size = 6 },
		"size above the largest":       func(c *virtio.QueueConfig) { c.Size = 0xffff },
		"descriptors not aligned":      func(c *virtio.QueueConfig) { c.Desc += 8 },
		"driver area not aligned":      func(c *virtio.QueueConfig) { c.Avail++ },
		"device area not aligned":      func(c *virtio.QueueConfig) { c.Used += 2 },
		"descriptors past the end":     func(c *virtio.QueueConfig) { c.Desc = end - 16*8 + 16 },
		"driver area past the end":     func(c *virtio.QueueConfig) { c.Avail = end - 20 },
		"device area past the end":     func(c *virtio.QueueConfig) { c.Used = end - 64 },
		"descriptors in the hole":      func(c *virtio.QueueConfig) { c.Desc = memory.HoleStart },
		"driver area at the last byte": func(c *virtio.QueueConfig) { c.Avail = math.MaxUint64 - 1 },
		"device area wraps":            func(c *virtio.QueueConfig) { c.Used = math.MaxUint64 - 3 },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			q, err := virtio.NewQueue(mem, cfg, virtio.NewDoorbell(), func() error { return nil })
			var pe *virtio.ProtocolError
			if q != nil || !errors.As(err, &pe) {
				t.Errorf("queue %v, error %v", q, err)
			}
		})
	}
	if _, err := virtio.NewQueue(mem, good, virtio.NewDoorbell(), nil); err != nil {
		t.Error(err)
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
	if r.Next() == nil || r.Next() == nil || r.Next() == nil || r.Next() != nil {
		t.Error("want three used elements")
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

func FuzzQueue(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0}, uint8(3))
	f.Add([]byte{0, 0x80, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0}, uint8(1))
	f.Add(bytes.Repeat([]byte{255}, 64), uint8(9))
	f.Fuzz(func(t *testing.T, descs []byte, idx uint8) {
		q, r := newQueue(t, 4, virtio.FeatureIndirectDesc)
		copy(r.Arena.Bytes(r.Desc, 64), descs)
		copy(r.Arena.Bytes(0x8000, 256), descs) // what an indirect descriptor may point to
		for i := range uint16(4) {
			r.Offer(i)
		}
		r.SetAvailIdx(uint16(idx))
		for range 8 {
			c, ok, err := q.Pop()
			if err != nil || !ok {
				return
			}
			if len(c.Segments(true))+len(c.Segments(false)) > q.Size() {
				t.Fatal("more segments than the queue has descriptors")
			}
			for _, s := range c.Writable() {
				clear(s)
			}
			if err := q.Push(c, c.WritableLen()); err != nil {
				t.Fatal(err)
			}
		}
		t.Fatal("more chains than were offered")
	})
}
