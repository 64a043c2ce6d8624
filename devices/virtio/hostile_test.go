package virtio_test

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

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

// TestOfferedAgainWithoutWaiting: a driver that offers a chain again while the
// device gives it back gets no further than the second Pop. (The race detector
// sees a Push that still looks at what Pop writes.)
func TestOfferedAgainWithoutWaiting(t *testing.T) {
	mem := virtiotest.Memory(t, 1<<20)
	for range 300 {
		q, r := virtiotest.NewQueue(t, mem, 8, 0)
		for i := range uint16(8) {
			r.SetDescriptor(i, virtiotest.Descriptor{Addr: 0x8000 + 64*memory.Addr(i), Len: 8, Flags: virtiotest.DescWrite | virtiotest.DescNext, Next: i + 1})
		}
		r.SetDescriptor(7, virtiotest.Descriptor{Addr: 0x9000, Len: 8, Flags: virtiotest.DescWrite})
		r.Offer(0)
		c := mustPop(t, q)
		r.Offer(0)
		pushed := make(chan error)
		go func() { pushed <- q.Push(c, c.WritableLen()) }()
		again, ok, err := q.Pop()
		if perr := <-pushed; perr != nil {
			t.Fatal(perr)
		}
		if err == nil && (!ok || again.WritableLen() != 64) {
			t.Fatalf("popped %v, %+v", ok, again)
		} else if err != nil {
			wantProtocolError(t, err, "2.7.6")
		}
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
