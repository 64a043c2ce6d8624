package balloon_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/balloon"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

const allFeatures = ^uint64(0)

// discards remembers what was discarded. Only pages of RAM are.
type discards struct {
	mu    sync.Mutex
	calls int
	pages map[memory.Addr]bool
	end   memory.Addr
}

func (m *discards) Discard(a memory.Addr, n uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a%memory.PageSize != 0 || n%memory.PageSize != 0 || uint64(a)+n > uint64(m.end) {
		return &memory.RangeError{Addr: a, Len: n}
	}
	m.calls++
	for ; n > 0; n -= memory.PageSize {
		m.pages[a] = true
		a += memory.PageSize
	}
	return nil
}

// has says whether a page was discarded.
func (m *discards) has(a memory.Addr) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pages[a]
}

func (m *discards) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// all is a copy of the pages that were discarded.
func (m *discards) all() map[memory.Addr]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.pages)
}

func start(t testing.TB, o balloon.Options, features uint64) (*virtiotest.Driver, *balloon.Device, *discards) {
	t.Helper()
	m := &discards{pages: make(map[memory.Addr]bool), end: 16 << 20}
	dev := balloon.New(m, o)
	d := virtiotest.New(t, dev, virtiotest.Config{})
	d.Start(features)
	return d, dev, m
}

func pfns(ns ...uint32) []byte {
	var b []byte
	for _, n := range ns {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

func TestInflateDiscards(t *testing.T) {
	d, dev, m := start(t, balloon.Options{}, allFeatures)
	list := pfns(100, 101, 102, 50, 49, 48, 7, 1<<31, 0xffff_ffff, 8)
	d.Rings[0].Do(t, [][]byte{list[:6], list[6:]})
	want := []memory.Addr{100, 101, 102, 50, 49, 48, 7, 8}
	if len(m.all()) != len(want) || m.count() != 4 {
		t.Errorf("%d pages in %d calls, want %d in 4", len(m.all()), m.calls, len(want))
	}
	for _, p := range want {
		if !m.has(p << 12) {
			t.Errorf("page %d was not discarded", p)
		}
	}
	if n := dev.Discarded(); n != 8*4096 {
		t.Errorf("%d bytes counted", n)
	}
	d.Rings[1].Do(t, [][]byte{list}) // deflating needs nothing
}

// TestGivesMemoryBack uses real memory: what was inflated is zero.
func TestGivesMemoryBack(t *testing.T) {
	d := virtiotest.New(t, balloon.New(nil, balloon.Options{}), virtiotest.Config{})
	d.Start(allFeatures)
	mem := d.Mem
	if err := mem.WriteAt(bytes.Repeat([]byte{7}, 64<<10), 512<<10); err != nil {
		t.Fatal(err)
	}
	d.Rings[0].Do(t, [][]byte{pfns(128, 129, 130)})
	got := make([]byte, 64<<10)
	if err := mem.ReadAt(got, 512<<10); err != nil {
		t.Fatal(err)
	}
	want := append(make([]byte, 3*4096), bytes.Repeat([]byte{7}, 64<<10-3*4096)...)
	if !bytes.Equal(got, want) {
		t.Error("other pages than the inflated ones are zero")
	}
}

func TestBadListNeedsReset(t *testing.T) {
	for _, n := range []int{3, 1<<20 + 4} {
		d, _, m := start(t, balloon.Options{}, allFeatures)
		d.Rings[0].Add([][]byte{make([]byte, n)})
		d.Rings[0].Kick()
		waitFor(t, d.NeedsReset)
		if len(m.all()) != 0 {
			t.Errorf("a list of %d bytes was used", n)
		}
	}
}

func TestReporting(t *testing.T) {
	d, _, m := start(t, balloon.Options{}, allFeatures)
	q := d.Rings[3].Add(nil, 40000, 5000, 100)
	d.Rings[3].Kick()
	d.Rings[3].Wait(t)
	if q.Written != 0 {
		t.Errorf("%d bytes written to reported pages", q.Written)
	}
	first := (q.Addr(0) + 4095) &^ 4095
	for a := first; a+4096 <= q.Addr(0)+40000; a += 4096 {
		if !m.has(a) {
			t.Errorf("page %#x was reported and not discarded", uint64(a))
		}
	}
	for a := range m.all() {
		inside := false
		for i, n := range []memory.Addr{40000, 5000, 100} {
			inside = inside || a >= q.Addr(i) && a+4096 <= q.Addr(i)+n
		}
		if !inside {
			t.Errorf("page %#x was discarded and not reported whole", uint64(a))
		}
	}
}

// TestQueuesFollowFeatures: without statistics the reporting queue is the
// third.
func TestQueuesFollowFeatures(t *testing.T) {
	d, _, m := start(t, balloon.Options{}, allFeatures&^balloon.FeatureStats)
	d.Rings[2].Do(t, nil, 3*4096)
	if len(m.all()) == 0 {
		t.Error("queue 2 does not report pages")
	}
}

func TestTarget(t *testing.T) {
	d, dev, _ := start(t, balloon.Options{DeflateOnOOM: true}, allFeatures)
	if d.Features&balloon.FeatureDeflateOnOOM == 0 {
		t.Error("DEFLATE_ON_OOM is not offered")
	}
	before := d.Regs.Generation()
	if err := dev.SetTarget(5<<20 + 100); err != nil {
		t.Fatal(err)
	}
	if n := d.Config32(0); n != 5<<20>>12 {
		t.Errorf("num_pages %d", n)
	}
	if d.Regs.Interrupt()&2 == 0 || d.Regs.Generation() == before {
		t.Error("no configuration change was announced")
	}
	d.Regs.WriteConfig(4, pfns(77))
	if dev.Actual() != 77<<12 || d.Config32(4) != 77 {
		t.Errorf("actual %d bytes", dev.Actual())
	}
	d.Regs.WriteConfig(0, pfns(99))
	d.Regs.WriteConfig(1<<40, pfns(99))
	if dev.Target() != 5<<20 {
		t.Errorf("the driver changed the target to %d", dev.Target())
	}
	if dev.SetTarget(1<<60) == nil {
		t.Error("a target of 2^60 bytes is accepted")
	}
	d.Start(allFeatures)
	if dev.Actual() != 0 {
		t.Error("a new driver's balloon is not empty")
	}
}

func stat(tag uint16, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint16(nil, tag), v)
}

func TestStats(t *testing.T) {
	d, dev, _ := start(t, balloon.Options{}, allFeatures)
	r := d.Rings[2]
	report := func(free uint64) *virtiotest.Request {
		return r.Prepare([][]byte{append(append(stat(4, free), stat(5, 1<<28)...), stat(999, 1)...)})
	}
	r.Submit(report(1)) // stale by the time somebody asks
	r.Kick()
	for free := uint64(2); free < 5; free++ {
		got := make(chan balloon.Stats, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), virtiotest.Timeout)
			defer cancel()
			s, err := dev.Stats(ctx)
			// The device may have just begun: then it has no figures yet, or
			// the first ones come unasked for.
			for errors.Is(err, balloon.ErrNoStats) || err == nil && s.Free != nil && *s.Free == 1 {
				time.Sleep(time.Millisecond)
				s, err = dev.Stats(ctx)
			}
			if err != nil {
				t.Error(err)
			}
			got <- s
		}()
		r.Release(r.Wait(t))
		r.Submit(report(free))
		r.Kick()
		s := <-got
		if s.Free == nil || *s.Free != free || s.Total == nil || *s.Total != 1<<28 || s.Caches != nil {
			t.Errorf("stats %+v, want %d bytes free", s, free)
		}
	}
	// Pausing gives the buffer back, and going on asks for a new one.
	if err := d.Transport.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := d.Transport.Inspect().Queues[2].InFlight; n != 0 {
		t.Errorf("%d requests in flight after a pause", n)
	}
	if _, err := dev.Stats(context.Background()); !errors.Is(err, balloon.ErrNoStats) {
		t.Errorf("stats of a paused guest: %v", err)
	}
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	r.Release(r.Wait(t))
}

func TestStatsOfSilentGuest(t *testing.T) {
	d, dev, _ := start(t, balloon.Options{}, allFeatures)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := dev.Stats(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, balloon.ErrNoStats) {
		t.Errorf("stats of a guest that does not answer: %v", err)
	}
	_ = d
}

func TestState(t *testing.T) {
	d, dev, m := start(t, balloon.Options{}, allFeatures)
	if err := dev.SetTarget(1 << 20); err != nil {
		t.Fatal(err)
	}
	d.Regs.WriteConfig(4, pfns(33))
	second := balloon.New(m, balloon.Options{})
	d.SaveRestore(second)
	if second.Target() != 1<<20 || second.Actual() != 33<<12 {
		t.Errorf("restored: target %d, actual %d", second.Target(), second.Actual())
	}
	d.Rings[0].Do(t, [][]byte{pfns(9)})
	if !m.has(9 << 12) {
		t.Error("the restored balloon does not inflate")
	}
	for _, bad := range []string{"", "{}", `{"version":2}`} {
		if second.SetState([]byte(bad)) == nil {
			t.Errorf("state %q is accepted", bad)
		}
	}
}

func waitFor(t testing.TB, f func() bool) {
	t.Helper()
	for end := time.Now().Add(virtiotest.Timeout); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time")
		}
	}
}

func FuzzBalloon(f *testing.F) {
	virtiotest.Fuzz(f, func(t testing.TB) virtio.Device {
		return balloon.New(virtiotest.Memory(t, 1<<20), balloon.Options{})
	})
}
