package pmem_test

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/pmem"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

const base, size = 1 << 32, 4 << 20

func start(t testing.TB, flush func() error) *virtiotest.Driver {
	t.Helper()
	dev, err := pmem.New(pmem.Options{Base: base, Size: size, Flush: flush})
	if err != nil {
		t.Fatal(err)
	}
	d := virtiotest.New(t, dev, virtiotest.Config{})
	d.Start(^uint64(0))
	return d
}

func TestConfig(t *testing.T) {
	d := start(t, func() error { return nil })
	if a, n := d.Config64(0), d.Config64(8); a != base || n != size {
		t.Errorf("region of %d bytes at %#x", n, a)
	}
}

func TestFlush(t *testing.T) {
	var fails atomic.Bool
	var n atomic.Int32
	d := start(t, func() error {
		n.Add(1)
		if fails.Load() {
			return errors.New("input/output error")
		}
		return nil
	})
	flush := make([]byte, 4)
	answer := func(out ...[]byte) uint32 {
		return binary.LittleEndian.Uint32(d.Rings[0].Do(t, out, 4))
	}
	if r := answer(flush); r != 0 || n.Load() != 1 {
		t.Errorf("flush: ret %d, %d flushes", r, n.Load())
	}
	if r := answer(flush[:1], flush[1:]); r != 0 || n.Load() != 2 {
		t.Errorf("flush in two buffers: ret %d, %d flushes", r, n.Load())
	}
	if r := answer([]byte{9, 0, 0, 0}); r != 1 || n.Load() != 2 {
		t.Errorf("unknown request: ret %d, %d flushes", r, n.Load())
	}
	fails.Store(true)
	if r := answer(flush); r != 1 {
		t.Errorf("failing flush: ret %d", r)
	}
}

// TestFlushesTogether: requests that wait behind a flush share the next one.
func TestFlushesTogether(t *testing.T) {
	var n atomic.Int32
	gate := make(chan struct{}, 100)
	d := start(t, func() error { n.Add(1); <-gate; return nil })
	r := d.Rings[0]
	for range 9 {
		r.Add([][]byte{make([]byte, 4)}, 4)
		r.Kick()
		for n.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	close(gate)
	for range 9 {
		if got := r.Wait(t).In(); binary.LittleEndian.Uint32(got) != 0 {
			t.Errorf("ret %v", got)
		}
	}
	if n.Load() != 2 {
		t.Errorf("%d flushes for 9 requests, want 2", n.Load())
	}
}

func TestBadRequestsNeedReset(t *testing.T) {
	for _, c := range []struct {
		out [][]byte
		in  []int
	}{{[][]byte{make([]byte, 3)}, []int{4}}, {[][]byte{make([]byte, 4)}, nil}, {[][]byte{make([]byte, 4)}, []int{3}}, {nil, []int{4}}} {
		d := start(t, func() error { return nil })
		d.Rings[0].Add(c.out, c.in...)
		d.Rings[0].Kick()
		for end := time.Now().Add(virtiotest.Timeout); !d.NeedsReset(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%v: no NEEDS_RESET", c)
			}
		}
	}
}

func TestNewRefuses(t *testing.T) {
	ok := func() error { return nil }
	for _, o := range []pmem.Options{
		{Base: base, Size: size},
		{Base: base, Size: 0, Flush: ok},
		{Base: base, Size: size + 4096, Flush: ok},
		{Base: base + 4096, Size: size, Flush: ok},
		{Base: 1<<64 - size, Size: 2 * size, Flush: ok},
	} {
		if _, err := pmem.New(o); err == nil {
			t.Errorf("New accepts %d bytes at %#x", o.Size, uint64(o.Base))
		}
	}
}

func FuzzPmem(f *testing.F) {
	virtiotest.Fuzz(f, func(t testing.TB) virtio.Device {
		dev, err := pmem.New(pmem.Options{Base: base, Size: size, Flush: func() error { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		return dev
	})
}
