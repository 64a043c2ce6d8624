package blk_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk/blktest"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

const allFeatures = ^uint64(0)

// Request types and answers, as a driver knows them.
const (
	tIn, tOut, tFlush, tGetID, tDiscard, tWriteZeroes = 0, 1, 4, 8, 11, 13

	ok, ioErr, unsupp = 0, 1, 2
)

func header(kind uint32, sector uint64) []byte {
	h := make([]byte, 16)
	binary.LittleEndian.PutUint32(h, kind)
	binary.LittleEndian.PutUint64(h[8:], sector)
	return h
}

func rangeOf(sector uint64, sectors, flags uint32) []byte {
	b := make([]byte, 16)
	binary.LittleEndian.PutUint64(b, sector)
	binary.LittleEndian.PutUint32(b[8:], sectors)
	binary.LittleEndian.PutUint32(b[12:], flags)
	return b
}

func start(t testing.TB, b blk.Backend, o blk.Options, features uint64) (*virtiotest.Driver, *blk.Device) {
	t.Helper()
	return startIn(t, virtiotest.Config{}, b, o, features)
}

// lending has the driver's own goroutine do what needs no waiting.
var lending = virtiotest.Config{Doorbells: true, Lends: true}

func startIn(t testing.TB, cfg virtiotest.Config, b blk.Backend, o blk.Options, features uint64) (*virtiotest.Driver, *blk.Device) {
	t.Helper()
	dev, err := blk.New(b, o)
	if err != nil {
		t.Fatal(err)
	}
	d := virtiotest.New(t, dev, cfg)
	d.Start(features)
	return d, dev
}

// status does a request and returns its last byte and what came before.
func status(t testing.TB, r *virtiotest.Ring, out [][]byte, in ...int) (byte, []byte) {
	t.Helper()
	p := r.Do(t, out, in...)
	if len(p) == 0 {
		t.Fatal("no status was written")
	}
	return p[len(p)-1], p[:len(p)-1]
}

func disk(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i/512) ^ byte(i)
	}
	return p
}

func TestMemoryConformance(t *testing.T) {
	for name, wrap := range map[string]func(blk.Store) blk.Backend{
		"Inline": blk.Inline,
		"Pool":   func(s blk.Store) blk.Backend { return blk.Pool(s, 4) },
	} {
		t.Run(name, func(t *testing.T) {
			blktest.TestBackend(t, func(_ *testing.T, size int64) blk.Backend {
				return wrap(blk.NewMemory(make([]byte, size), false))
			})
		})
	}
	blktest.TestReadOnly(t, blk.Inline(blk.NewMemory(disk(1<<20), true)))
}

func TestConfigSpace(t *testing.T) {
	d, dev := start(t, blk.Inline(blk.NewMemory(make([]byte, 1<<20), false)), blk.Options{Queues: 4}, allFeatures)
	if n := d.Config64(0); n != 2048 {
		t.Errorf("capacity %d, want 2048 sectors", n)
	}
	for off, want := range map[uint64]uint32{8: 1 << 20, 12: 254, 20: 512, 36: 1 << 21, 40: 1, 44: 1, 48: 1 << 21, 52: 1} {
		if got := d.Config32(off); got != want {
			t.Errorf("config at %d: %d, want %d", off, got, want)
		}
	}
	if n := d.Config16(34); n != 4 {
		t.Errorf("num_queues %d, want 4", n)
	}
	if len(d.Rings) != 4 {
		t.Errorf("%d queues, want 4", len(d.Rings))
	}
	p := bytes.Repeat([]byte{0xee}, 16)
	dev.ReadConfig(1<<63, p)
	if !bytes.Equal(p, make([]byte, 16)) {
		t.Errorf("config past the end reads %x", p)
	}
}

func TestNewRefuses(t *testing.T) {
	b := blk.Inline(blk.NewMemory(make([]byte, 4096), false))
	for _, o := range []blk.Options{{Queues: -1}, {Queues: 65}, {QueueSize: 3}, {QueueSize: 2}} {
		if _, err := blk.New(b, o); err == nil {
			t.Errorf("New accepts %+v", o)
		}
	}
}

func TestReadInAnyLayout(t *testing.T) {
	image := disk(64 << 10)
	d, _ := start(t, blk.Inline(blk.NewMemory(bytes.Clone(image), false)), blk.Options{}, allFeatures)
	h := header(tIn, 3)
	for _, l := range []struct {
		name string
		out  [][]byte
		in   []int
	}{
		{"three buffers", [][]byte{h}, []int{1024, 1}},
		{"status with the data", [][]byte{h}, []int{1025}},
		{"header cut", [][]byte{h[:1], h[1:9], h[9:]}, []int{1024, 1}},
		{"data cut oddly", [][]byte{h}, []int{1, 510, 500, 13, 1}},
		{"more readable than a header", [][]byte{append(bytes.Clone(h), 1, 2, 3)}, []int{1024, 1}},
	} {
		s, data := status(t, d.Rings[0], l.out, l.in...)
		if s != ok || !bytes.Equal(data, image[3*512:5*512]) {
			t.Errorf("%s: status %d, data right: %v", l.name, s, bytes.Equal(data, image[3*512:5*512]))
		}
	}
}

func TestWriteInAnyLayout(t *testing.T) {
	image := make([]byte, 64<<10)
	d, _ := start(t, blk.Inline(blk.NewMemory(image, false)), blk.Options{}, allFeatures)
	h, data := header(tOut, 5), disk(1024)
	joined := append(bytes.Clone(h), data...)
	for name, out := range map[string][][]byte{
		"two buffers": {h, data},
		"one buffer":  {joined},
		"header cut":  {h[:7], joined[7:300], joined[300:]},
	} {
		clear(image)
		if s, _ := status(t, d.Rings[0], out, 1); s != ok || !bytes.Equal(image[5*512:7*512], data) {
			t.Errorf("%s: status %d, data right: %v", name, s, bytes.Equal(image[5*512:7*512], data))
		}
		if !bytes.Equal(image[:5*512], make([]byte, 5*512)) || !bytes.Equal(image[7*512:], make([]byte, 64<<10-7*512)) {
			t.Errorf("%s: other sectors changed", name)
		}
	}
}

func TestAnswers(t *testing.T) {
	const sectors = 128
	h := header
	big := make([]byte, 512)
	for _, tt := range []struct {
		name     string
		readOnly bool
		out      [][]byte
		in       []int
		want     byte
	}{
		{"read at the end", false, [][]byte{h(tIn, sectors-1)}, []int{512, 1}, ok},
		{"read nothing at the end", false, [][]byte{h(tIn, sectors)}, []int{1}, ok},
		{"read behind the end", false, [][]byte{h(tIn, sectors)}, []int{512, 1}, ioErr},
		{"read over the end", false, [][]byte{h(tIn, sectors-1)}, []int{1024, 1}, ioErr},
		{"read at a sector that wraps in bytes", false, [][]byte{h(tIn, 1<<55)}, []int{512, 1}, ioErr},
		{"read at the last sector there could be", false, [][]byte{h(tIn, 1<<64-1)}, []int{512, 1}, ioErr},
		{"read of half a sector", false, [][]byte{h(tIn, 0)}, []int{256, 1}, ioErr},
		{"write behind the end", false, [][]byte{h(tOut, sectors), big}, []int{1}, ioErr},
		{"write of a broken sector", false, [][]byte{h(tOut, 0), big[:511]}, []int{1}, ioErr},
		{"write to a read-only disk", true, [][]byte{h(tOut, 0), big}, []int{1}, ioErr},
		{"flush", false, [][]byte{h(tFlush, 0)}, []int{1}, ok},
		{"flush of a read-only disk", true, [][]byte{h(tFlush, 0)}, []int{1}, ok},
		{"discard", false, [][]byte{h(tDiscard, 0), rangeOf(0, 8, 0)}, []int{1}, ok},
		{"discard of nothing", false, [][]byte{h(tDiscard, 0), rangeOf(8, 0, 0)}, []int{1}, ok},
		{"discard with a flag", false, [][]byte{h(tDiscard, 0), rangeOf(0, 8, 1)}, []int{1}, unsupp},
		{"discard behind the end", false, [][]byte{h(tDiscard, 0), rangeOf(sectors, 1, 0)}, []int{1}, ioErr},
		{"discard that wraps", false, [][]byte{h(tDiscard, 0), rangeOf(1<<64-1, 2, 0)}, []int{1}, ioErr},
		{"discard of too many", false, [][]byte{h(tDiscard, 0), rangeOf(0, 1<<32-1, 0)}, []int{1}, ioErr},
		{"discard of two ranges", false, [][]byte{h(tDiscard, 0), rangeOf(0, 1, 0), rangeOf(1, 1, 0)}, []int{1}, ioErr},
		{"discard of half a range", false, [][]byte{h(tDiscard, 0), rangeOf(0, 1, 0)[:8]}, []int{1}, ioErr},
		{"discard without a range", false, [][]byte{h(tDiscard, 0)}, []int{1}, ioErr},
		{"discard on a read-only disk", true, [][]byte{h(tDiscard, 0), rangeOf(0, 8, 0)}, []int{1}, unsupp},
		{"write zeroes", false, [][]byte{h(tWriteZeroes, 0), rangeOf(0, 8, 0)}, []int{1}, ok},
		{"write zeroes, unmapping", false, [][]byte{h(tWriteZeroes, 0), rangeOf(0, 8, 1)}, []int{1}, ok},
		{"write zeroes with an unknown flag", false, [][]byte{h(tWriteZeroes, 0), rangeOf(0, 8, 2)}, []int{1}, unsupp},
		{"unknown type", false, [][]byte{h(99, 0)}, []int{1}, unsupp},
		{"unknown type with data", false, [][]byte{h(14, 0), big}, []int{512, 1}, unsupp},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := start(t, blk.Inline(blk.NewMemory(disk(sectors*512), tt.readOnly)), blk.Options{}, allFeatures)
			s, data := status(t, d.Rings[0], tt.out, tt.in...)
			if s != tt.want {
				t.Errorf("status %d, want %d", s, tt.want)
			}
			if tt.want != ok && !bytes.Equal(data, make([]byte, len(data))) {
				t.Error("a request that failed wrote data")
			}
			if s, _ := status(t, d.Rings[0], [][]byte{h(tFlush, 0)}, 1); s != ok {
				t.Errorf("the device does not go on: status %d", s)
			}
		})
	}
}

func TestGetID(t *testing.T) {
	d, _ := start(t, blk.Inline(blk.NewMemory(disk(4096), false)), blk.Options{}, allFeatures)
	want := make([]byte, 24)
	copy(want, "memory")
	for _, in := range [][]int{{20, 1}, {21}, {3, 17, 1}, {24, 1}, {4, 1}} {
		s, got := status(t, d.Rings[0], [][]byte{header(tGetID, 0)}, in...)
		if s != ok || !bytes.Equal(got, want[:len(got)]) {
			t.Errorf("buffers %v: status %d, %q", in, s, got)
		}
	}
}

// TestNoPlaceForAnAnswer: what cannot even be answered is a broken driver.
func TestNoPlaceForAnAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		out [][]byte
		in  []int
	}{
		"no status":    {[][]byte{header(tFlush, 0)}, nil},
		"short header": {[][]byte{header(tFlush, 0)[:15]}, []int{1}},
		"no header":    {nil, []int{512, 1}},
	} {
		d, _ := start(t, blk.Inline(blk.NewMemory(disk(4096), false)), blk.Options{}, allFeatures)
		q := d.Rings[0].Add(c.out, c.in...)
		d.Rings[0].Kick()
		if got := d.Rings[0].Wait(t); got != q || got.Written != 0 {
			t.Errorf("%s: not given back as it was", name)
		}
		waitFor(t, name+": NEEDS_RESET", d.NeedsReset)
		d.Start(allFeatures)
		if s, _ := status(t, d.Rings[0], [][]byte{header(tFlush, 0)}, 1); s != ok {
			t.Errorf("%s: after a reset: status %d", name, s)
		}
	}
}

// medium is a disk whose operations can be made to fail or to wait, and which
// remembers what it was told.
type medium struct {
	*blk.Memory
	err     error
	gate    chan struct{}
	durable atomic.Int32
	waiting atomic.Int32

	prompt          bool // reads need no waiting
	atOnce, refused atomic.Int32
}

func (m *medium) ReadVec(v [][]byte, off int64) error {
	if m.gate != nil {
		m.waiting.Add(1)
		<-m.gate
	}
	for _, b := range v {
		for i := range b {
			b[i] = 0xbb // what a read leaves that fails in the midst
		}
	}
	if m.err != nil {
		return m.err
	}
	return m.Memory.ReadVec(v, off)
}

// ReadNow lets reads wait unless prompt is set.
func (m *medium) ReadNow(v [][]byte, off int64) bool {
	if m.prompt {
		m.atOnce.Add(1)
		return m.Memory.ReadNow(v, off)
	}
	m.refused.Add(1)
	for _, b := range v {
		clear(b) // it may have begun
	}
	return false
}

func (m *medium) WriteVec(v [][]byte, off int64, durable bool) error {
	if durable {
		m.durable.Add(1)
	}
	if m.err != nil {
		return m.err
	}
	return m.Memory.WriteVec(v, off, durable)
}

func (m *medium) Flush() error { return m.err }

func TestErrorsOfTheMedium(t *testing.T) {
	m := &medium{Memory: blk.NewMemory(disk(4096), false), err: errors.New("no space left on device")}
	d, dev := start(t, blk.Inline(m), blk.Options{}, allFeatures)
	for _, out := range [][][]byte{{header(tOut, 0), make([]byte, 512)}, {header(tFlush, 0)}} {
		if s, _ := status(t, d.Rings[0], out, 1); s != ioErr {
			t.Errorf("status %d, want an I/O error", s)
		}
	}
	s, data := status(t, d.Rings[0], [][]byte{header(tIn, 0)}, 512, 1)
	if s != ioErr || !bytes.Equal(data, make([]byte, 512)) {
		t.Errorf("read: status %d, data zeroed: %v", s, bytes.Equal(data, make([]byte, 512)))
	}
	if n := dev.Stats().Errors; n != 3 {
		t.Errorf("%d errors counted, want 3", n)
	}
	m.err = nil
	if s, _ := status(t, d.Rings[0], [][]byte{header(tIn, 0)}, 512, 1); s != ok {
		t.Errorf("the device does not go on: status %d", s)
	}
}

// TestCacheMode: writes are durable at once when the driver cannot flush or
// has said so (virtio 1.2 §5.2.6.2).
func TestCacheMode(t *testing.T) {
	m := &medium{Memory: blk.NewMemory(disk(4096), false)}
	d, _ := start(t, blk.Inline(m), blk.Options{}, allFeatures)
	writes := func(want int32, when string) {
		t.Helper()
		before := m.durable.Load()
		status(t, d.Rings[0], [][]byte{header(tOut, 0), make([]byte, 512)}, 1)
		if got := m.durable.Load() - before; got != want {
			t.Errorf("%s: %d durable writes, want %d", when, got, want)
		}
	}
	writes(0, "write-back")
	d.Regs.WriteConfig(32, []byte{0})
	writes(1, "write-through")
	d.Regs.WriteConfig(32, []byte{1})
	writes(0, "write-back again")
	d.Start(allFeatures &^ (blk.FeatureFlush | blk.FeatureConfigWCE))
	writes(1, "a driver that does not flush")
	d.Start(allFeatures)
	writes(0, "after a reset")
}

func TestStateKeepsCacheMode(t *testing.T) {
	b := blk.Inline(blk.NewMemory(disk(4096), false))
	d, _ := start(t, b, blk.Options{}, allFeatures)
	d.Regs.WriteConfig(32, []byte{0})
	second, err := blk.New(b, blk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.SaveRestore(second)
	if got := d.Config32(32) & 0xff; got != 0 {
		t.Error("the restored device is in write-back mode")
	}
	if s, _ := status(t, d.Rings[0], [][]byte{header(tIn, 0)}, 512, 1); s != ok {
		t.Errorf("after the restore: status %d", s)
	}
	for _, bad := range []string{"", "{}", `{"version":2}`, "[]"} {
		if second.SetState([]byte(bad)) == nil {
			t.Errorf("state %q is accepted", bad)
		}
	}
}

// TestPauseWithRequestsInFlight: everything that was popped is pushed before
// Serve returns, so the indices are the truth.
func TestPauseWithRequestsInFlight(t *testing.T) {
	t.Run("woken", func(t *testing.T) { testPause(t, virtiotest.Config{}) })
	t.Run("lent", func(t *testing.T) { testPause(t, lending) })
}

func testPause(t *testing.T, cfg virtiotest.Config) {
	t.Helper()
	m := &medium{Memory: blk.NewMemory(disk(64<<10), false), gate: make(chan struct{})}
	d, _ := startIn(t, cfg, blk.Pool(m, 4), blk.Options{}, allFeatures)
	const n = 12
	for range n {
		d.Rings[0].Add([][]byte{header(tIn, 1)}, 512, 1)
	}
	d.Rings[0].Kick()
	waitFor(t, "the first reads", func() bool { return m.waiting.Load() == 4 })
	paused := make(chan error)
	go func() { paused <- d.Transport.Pause(context.Background()) }()
	close(m.gate)
	if err := <-paused; err != nil {
		t.Fatal(err)
	}
	in := d.Transport.Inspect()
	if in.Queues[0].InFlight != 0 {
		t.Errorf("%d requests in flight after a pause", in.Queues[0].InFlight)
	}
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		p := d.Rings[0].Wait(t).In()
		if p[512] != ok || !bytes.Equal(p[:512], disk(64 << 10)[512:1024]) {
			t.Errorf("request %d: status %d", i, p[512])
		}
	}
}

func TestQueuesWorkSideBySide(t *testing.T) {
	image := disk(256 << 10)
	d, dev := start(t, blk.Pool(blk.NewMemory(bytes.Clone(image), false), 2), blk.Options{Queues: 3}, allFeatures)
	for i := range 20 {
		for q, r := range d.Rings {
			sector := uint64(i*3 + q)
			s, data := status(t, r, [][]byte{header(tIn, sector)}, 512, 1)
			if s != ok || !bytes.Equal(data, image[sector*512:][:512]) {
				t.Fatalf("queue %d, sector %d: status %d", q, sector, s)
			}
		}
	}
	if s := dev.Stats(); s.Reads != 60 || s.ReadBytes != 60*512 {
		t.Errorf("stats %+v", s)
	}
}

// TestOneBadQueueEndsServe: the others sleep and must be woken.
func TestOneBadQueueEndsServe(t *testing.T) {
	d, _ := start(t, blk.Inline(blk.NewMemory(disk(4096), false)), blk.Options{Queues: 2}, allFeatures)
	d.Rings[1].Offer(9999)
	d.Rings[1].Notify()
	waitFor(t, "NEEDS_RESET", d.NeedsReset)
	d.Start(allFeatures)
	if s, _ := status(t, d.Rings[0], [][]byte{header(tIn, 0)}, 512, 1); s != ok {
		t.Errorf("after a reset: status %d", s)
	}
}

// untilLent does requests by submit until one of them is done by the time that
// the doorbell has been rung: the device sleeps only now and then.
func untilLent(t *testing.T, r *virtiotest.Ring, submit func()) {
	t.Helper()
	waitFor(t, "a request done by who rings", func() bool {
		submit()
		r.Kick()
		if r.Next() != nil {
			return true
		}
		r.Wait(t)
		return false
	})
}

// TestLent: reads that need no waiting are done by whoever rings, all others by
// the device, in any mixture.
func TestLent(t *testing.T) {
	image := disk(64 << 10)
	for _, features := range []uint64{allFeatures, 0, virtio.FeatureEventIdx} {
		m := &medium{Memory: blk.NewMemory(bytes.Clone(image), false), prompt: true}
		d, dev := startIn(t, lending, blk.Inline(m), blk.Options{}, features)
		r := d.Rings[0]
		read := r.Prepare([][]byte{header(tIn, 2)}, 1024, 1)
		untilLent(t, r, func() { r.Submit(read) })
		if in := read.In(); in[1024] != ok || !bytes.Equal(in[:1024], image[1024:2048]) || m.atOnce.Load() == 0 {
			t.Errorf("features %#x: status %d, data right: %v, %d at once", features, in[1024], bytes.Equal(in[:1024], image[1024:2048]), m.atOnce.Load())
		}
		for range 20 {
			first := r.Add([][]byte{header(tIn, 2)}, 512, 1)
			write := r.Add([][]byte{header(tOut, 9), image[:512]}, 1)
			bad := r.Add([][]byte{header(99, 0)}, 1)
			last := r.Add([][]byte{header(tIn, 3)}, 512, 1)
			r.Kick()
			for range 4 {
				r.Wait(t)
			}
			if first.In()[512] != ok || write.In()[0] != ok || bad.In()[0] != unsupp || last.In()[512] != ok {
				t.Fatalf("features %#x: status %d, %d, %d, %d", features, first.In()[512], write.In()[0], bad.In()[0], last.In()[512])
			}
			if !bytes.Equal(first.In()[:512], image[1024:1536]) || !bytes.Equal(last.In()[:512], image[1536:2048]) {
				t.Fatal("wrong data")
			}
			for _, q := range []*virtiotest.Request{first, write, bad, last} {
				r.Release(q)
			}
		}
		if s, data := status(t, r, [][]byte{header(tIn, 9)}, 512, 1); s != ok || !bytes.Equal(data, image[:512]) {
			t.Errorf("features %#x: what was written reads as something else", features)
		}
		if s := dev.Stats(); s.Writes != 20 || s.Errors != 20 {
			t.Errorf("features %#x: stats %+v", features, s)
		}
	}
}

// TestLentRefuses: a read that would wait, or is long, is the device's.
func TestLentRefuses(t *testing.T) {
	image := disk(4 << 20)
	m := &medium{Memory: blk.NewMemory(bytes.Clone(image), false)}
	d, _ := startIn(t, lending, blk.Pool(m, 2), blk.Options{}, allFeatures)
	waitFor(t, "a read that is tried", func() bool {
		s, data := status(t, d.Rings[0], [][]byte{header(tIn, 8)}, 4096, 1)
		if s != ok || !bytes.Equal(data, image[4096:8192]) {
			t.Fatalf("status %d, data right: %v", s, bytes.Equal(data, image[4096:8192]))
		}
		return m.refused.Load() > 0
	})
	m = &medium{Memory: blk.NewMemory(bytes.Clone(image), false), prompt: true}
	d, _ = startIn(t, lending, blk.Inline(m), blk.Options{}, allFeatures)
	for range 10 {
		q := d.Rings[0].Add([][]byte{header(tIn, 0)}, 2<<20, 1)
		d.Rings[0].Kick()
		d.Rings[0].Wait(t)
		if in := q.In(); in[2<<20] != ok || !bytes.Equal(in[:2<<20], image[:2<<20]) {
			t.Fatal("a long read is wrong")
		}
		d.Rings[0].Release(q)
	}
	if n := m.atOnce.Load(); n != 0 {
		t.Errorf("%d reads of 2 MiB were done by who rings", n)
	}
}

// TestLentTwice: what one ring leaves to the device is not lost to the next.
func TestLentTwice(t *testing.T) {
	m := &medium{Memory: blk.NewMemory(disk(64<<10), false)}
	d, _ := startIn(t, lending, blk.Inline(m), blk.Options{}, allFeatures)
	r := d.Rings[0]
	var reads [3]*virtiotest.Request
	for i := range reads {
		reads[i] = r.Prepare([][]byte{header(tIn, uint64(i))}, 512, 1)
	}
	for range 200 {
		for _, q := range reads {
			r.Submit(q)
			r.Notify()
		}
		for range reads {
			r.Wait(t)
		}
	}
	if m.refused.Load() == 0 {
		t.Error("nothing was lent")
	}
}

// TestLentProtocolError: a broken driver is found out on its own goroutine too.
func TestLentProtocolError(t *testing.T) {
	d, _ := startIn(t, lending, blk.Inline(blk.NewMemory(disk(4096), false)), blk.Options{}, allFeatures)
	for _, offend := range []func(r *virtiotest.Ring){
		func(r *virtiotest.Ring) { r.Offer(9999) },
		func(r *virtiotest.Ring) { r.Add([][]byte{header(tIn, 0)[:15]}, 1) },
	} {
		r := d.Rings[0]
		q := r.Prepare([][]byte{header(tIn, 0)}, 512, 1)
		untilLent(t, r, func() { r.Submit(q) })
		offend(r)
		r.Notify()
		waitFor(t, "NEEDS_RESET", d.NeedsReset)
		d.Start(allFeatures)
		if s, _ := status(t, d.Rings[0], [][]byte{header(tIn, 0)}, 512, 1); s != ok {
			t.Errorf("after a reset: status %d", s)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	for name, cfg := range map[string]virtiotest.Config{"woken": {}, "lent": lending} {
		d, _ := startIn(t, cfg, blk.Inline(blk.NewMemory(disk(64<<10), false)), blk.Options{}, allFeatures)
		r := d.Rings[0]
		q := r.Prepare([][]byte{header(tIn, 1)}, 4096, 1)
		once := func() {
			r.Submit(q)
			r.Kick()
			for r.Next() == nil {
				r.WantInterrupt(1)
			}
		}
		once()
		if n := testing.AllocsPerRun(200, once); n != 0 {
			t.Errorf("%s: %v allocations a request", name, n)
		}
	}
}

func FuzzBlk(f *testing.F) {
	virtiotest.Fuzz(f, func(t testing.TB) virtio.Device {
		dev, err := blk.New(blk.Inline(blk.NewMemory(disk(64<<10), false)), blk.Options{Queues: 2})
		if err != nil {
			t.Fatal(err)
		}
		return dev
	})
}

// FuzzRequest puts any header and range, in any cut, before the device: it
// answers, or asks for a reset, and what it does stays inside the disk.
func FuzzRequest(f *testing.F) {
	f.Add(header(tIn, 1), uint16(16), uint16(512), uint16(1))
	f.Add(append(header(tOut, 127), make([]byte, 512)...), uint16(7), uint16(1), uint16(0))
	f.Add(append(header(tDiscard, 0), rangeOf(1, 2, 0)...), uint16(16), uint16(1), uint16(0))
	f.Add(append(header(tWriteZeroes, 0), rangeOf(1<<63, 1<<31, 1)...), uint16(3), uint16(0), uint16(1))
	f.Add(header(tGetID, 0), uint16(1), uint16(20), uint16(1))
	f.Add(header(tIn, 127), uint16(0x8010), uint16(512), uint16(1))
	f.Fuzz(func(t *testing.T, out []byte, cut, in1, in2 uint16) {
		if len(out) == 0 || len(out) > 1<<16 {
			return
		}
		guard := disk(192 * 512)
		image := guard[32*512 : 160*512 : 160*512]
		cfg := virtiotest.Config{}
		if cut&0x8000 != 0 {
			cfg = lending
		}
		d, _ := startIn(t, cfg, blk.Inline(blk.NewMemory(image, false)), blk.Options{}, allFeatures)
		k := int(cut) % len(out)
		var bufs [][]byte
		for _, b := range [][]byte{out[:k], out[k:]} {
			if len(b) > 0 {
				bufs = append(bufs, b)
			}
		}
		var in []int
		for _, n := range []uint16{in1, in2} {
			if n > 0 {
				in = append(in, int(n))
			}
		}
		q := d.Rings[0].Add(bufs, in...)
		d.Rings[0].Kick()
		if got := d.Rings[0].Wait(t); got != q || int(q.Written) > int(in1)+int(in2) {
			t.Fatalf("wrote %d of %d bytes", q.Written, int(in1)+int(in2))
		}
		if want := disk(192 * 512); !bytes.Equal(guard[:32*512], want[:32*512]) || !bytes.Equal(guard[160*512:], want[160*512:]) {
			t.Fatal("a write outside the disk")
		}
	})
}
