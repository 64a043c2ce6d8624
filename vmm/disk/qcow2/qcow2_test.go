package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// medium is a file in memory that remembers what was written to it since the
// last flush, so that a test can let the power fail.
type medium struct {
	data    []byte
	durable []byte // what the last flush made safe
	since   []span // written later
	writes  int
	failAt  int // the write that fails, counted from 1; 0 for none
}

type span struct {
	off int64
	p   []byte
}

const maxMedium = 32 << 20

var errMedium = errors.New("no space left on device")

func (m *medium) Info() blk.Info { return blk.Info{} }
func (m *medium) Close() error   { return nil }

func (m *medium) ReadVec(vec [][]byte, off int64) error {
	for _, b := range vec {
		clear(b)
		if off < int64(len(m.data)) {
			copy(b, m.data[off:])
		}
		off += int64(len(b))
	}
	return nil
}

func (m *medium) WriteVec(vec [][]byte, off int64, _ bool) error {
	m.writes++
	if m.writes == m.failAt || off > maxMedium {
		return errMedium
	}
	p := bytes.Join(vec, nil)
	m.data = put(m.data, off, p)
	m.since = append(m.since, span{off, p})
	return nil
}

func put(data []byte, off int64, p []byte) []byte {
	if n := off + int64(len(p)) - int64(len(data)); n > 0 {
		data = append(data, make([]byte, n)...)
	}
	copy(data[off:], p)
	return data
}

func (m *medium) Flush() error {
	m.durable, m.since = bytes.Clone(m.data), m.since[:0]
	return nil
}

func (m *medium) Discard(off, n int64) error {
	return m.WriteVec([][]byte{make([]byte, n)}, off, false)
}

func (m *medium) WriteZeroes(off, n int64, _, _ bool) error { return m.Discard(off, n) }

// crash is what a power failure leaves: what was flushed, and of what was
// written later any of its sectors.
func (m *medium) crash(rnd *rand.Rand) *medium {
	data := bytes.Clone(m.durable)
	for _, s := range m.since {
		for at := 0; at < len(s.p); {
			n := min(len(s.p)-at, blk.SectorSize-int((s.off+int64(at))%blk.SectorSize))
			if rnd.IntN(2) == 0 {
				data = put(data, s.off+int64(at), s.p[at:at+n])
			}
			at += n
		}
	}
	return &medium{data: data, durable: bytes.Clone(data)}
}

// newImage makes an image on a medium in memory.
func newImage(t testing.TB, o CreateOptions) *medium {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := Create(path, o); err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return &medium{data: p, durable: bytes.Clone(p)}
}

func open(t testing.TB, f *medium, backing []byte) *Image {
	t.Helper()
	m, err := Open(f, int64(len(f.data)), Options{OpenBacking: func(string, string) (blk.Store, error) {
		return blk.NewMemory(backing, true), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// verify counts every reference in the image and compares with its refcounts:
// too low a count is damage, too high a leak.
func verify(m *Image) (leaks int, err error) {
	refs := make(map[uint64]uint64)
	cs := m.h.clusterSize()
	use := func(off, n uint64) {
		for c := off &^ (cs - 1); c < off+n; c += cs {
			refs[c>>m.h.clusterBits]++
		}
	}
	use(0, 1)
	use(m.h.refOffset, uint64(m.h.refClusters)<<m.h.clusterBits)
	use(m.h.l1Offset, max(uint64(m.h.l1Size)*8, 1))
	for _, off := range m.refs.table {
		if off != 0 {
			use(off, 1)
		}
	}
	for i, e := range m.l1 {
		if e&entryOffset == 0 {
			continue
		}
		use(e&entryOffset, 1)
		t, err := m.lookup(i)
		if err != nil {
			return 0, err
		}
		for _, e := range t.entries {
			if k, off, err := m.decode(e); err != nil {
				return 0, err
			} else if k == data || k == zero && off != 0 {
				use(off, 1)
			}
		}
	}
	blockSize := uint64(1) << m.h.refBlockBits()
	for i := range uint64(len(m.refs.table)) * blockSize {
		if i%blockSize == 0 && m.refs.table[i/blockSize] == 0 {
			if i/blockSize == uint64(len(m.refs.table))-1 {
				break
			}
		}
		n, err := m.refs.get(i)
		if err != nil {
			return 0, err
		}
		switch {
		case n < refs[i]:
			return 0, fmt.Errorf("cluster %d is counted %d times and used %d times", i, n, refs[i])
		case n > refs[i]:
			leaks++
		}
		delete(refs, i)
	}
	if len(refs) > 0 {
		return 0, fmt.Errorf("%d clusters are used and cannot be counted", len(refs))
	}
	return leaks, nil
}

func readAll(m *Image, size int) ([]byte, error) {
	p := bytes.Repeat([]byte{0xee}, size)
	err := m.ReadVec([][]byte{p}, 0)
	return p, err
}

// step does one random operation on the image and on its model.
func step(rnd *rand.Rand, m *Image, model []byte) error {
	sectors := len(model) / blk.SectorSize
	first := rnd.IntN(sectors)
	n := 1 + rnd.IntN(min(sectors-first, 24))
	lo, hi := first*blk.SectorSize, (first+n)*blk.SectorSize
	switch rnd.IntN(8) {
	case 0:
		clear(model[lo:hi])
		return m.WriteZeroes(int64(lo), int64(hi-lo), true, false)
	case 1:
		// What a discard leaves of its range is its own affair.
		if err := m.Discard(int64(lo), int64(hi-lo)); err != nil {
			return err
		}
		return m.ReadVec([][]byte{model[lo:hi]}, int64(lo))
	default:
		p := make([]byte, hi-lo)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		copy(model[lo:hi], p)
		cut := rnd.IntN(len(p))
		return m.WriteVec([][]byte{p[:cut], p[cut:]}, int64(lo), false)
	}
}

var shapes = []struct {
	name    string
	o       CreateOptions
	backing bool
}{
	{"small clusters", CreateOptions{Size: 300 << 10, ClusterBits: 9}, false},
	{"4k clusters over a backing file", CreateOptions{Size: 300 << 10, ClusterBits: 12, Backing: "b", BackingFormat: "raw"}, true},
	{"odd size", CreateOptions{Size: 300<<10 - 1024, ClusterBits: 12}, false},
}

// TestPowerFailure lets the power fail at many moments. Whatever the medium
// kept, the image is whole, and it has everything that was flushed: a sector
// holds what it held at the last flush or what was written to it since.
func TestPowerFailure(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			for seed := range uint64(60) {
				powerFailure(t, s.o, s.backing, seed)
			}
		})
	}
}

func powerFailure(t *testing.T, o CreateOptions, withBacking bool, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 3))
	backing := make([]byte, 200<<10)
	if withBacking {
		for i := range backing {
			backing[i] = byte(rnd.Uint32())
		}
	}
	f := newImage(t, o)
	m := open(t, f, backing)
	now := make([]byte, o.Size)
	copy(now, backing)
	allowed := history{}
	allowed.reset(now)
	for range 2 + rnd.IntN(60) {
		if err := step(rnd, m, now); err != nil {
			t.Fatal(err)
		}
		allowed.note(now)
		if rnd.IntN(10) == 0 {
			if err := m.Flush(); err != nil {
				t.Fatal(err)
			}
			allowed.reset(now)
		}
	}
	after := f.crash(rnd)
	m2 := open(t, after, backing)
	if _, err := verify(m2); err != nil {
		t.Fatalf("seed %d: after a power failure: %v", seed, err)
	}
	got, err := readAll(m2, len(now))
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if i := allowed.check(got); i >= 0 {
		t.Fatalf("seed %d: sector %d has neither its flushed nor a later content", seed, i)
	}
	// And it goes on.
	for range 20 {
		if err := step(rnd, m2, got); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := readAll(m2, len(got)); err != nil || !bytes.Equal(p, got) {
		t.Fatalf("seed %d: after going on the contents differ, %v", seed, err)
	}
}

// history is what each sector may hold after a crash.
type history [][][]byte

func (h *history) reset(p []byte) {
	*h = make([][][]byte, len(p)/blk.SectorSize)
	h.note(p)
}

func (h history) note(p []byte) {
	for i := range h {
		s := p[i*blk.SectorSize:][:blk.SectorSize]
		if n := len(h[i]); n == 0 || !bytes.Equal(h[i][n-1], s) {
			h[i] = append(h[i], bytes.Clone(s))
		}
	}
}

func (h history) check(p []byte) int {
	for i, all := range h {
		ok := false
		for _, s := range all {
			ok = ok || bytes.Equal(s, p[i*blk.SectorSize:][:blk.SectorSize])
		}
		if !ok {
			return i
		}
	}
	return -1
}

// TestFullMedium lets every write of a run fail in turn: the error is that of
// the request, and what was there before is still there.
func TestFullMedium(t *testing.T) {
	for failAt := 1; failAt < 120; failAt += 3 {
		rnd := rand.New(rand.NewPCG(uint64(failAt), 4))
		f := newImage(t, shapes[0].o)
		m := open(t, f, nil)
		model := make([]byte, shapes[0].o.Size)
		f.failAt = failAt
		failed := 0
		for range 80 {
			if err := step(rnd, m, model); err != nil {
				failed++
				// Some of the request may have been done.
				if model, err = readAll(m, len(model)); err != nil {
					t.Fatal(err)
				}
			}
			if rnd.IntN(10) == 0 && m.Flush() != nil {
				failed++
			}
		}
		if err := m.Flush(); err != nil {
			t.Fatal(err)
		}
		m2 := open(t, f, nil)
		if _, err := verify(m2); err != nil {
			t.Fatalf("write %d failed: %v", failAt, err)
		}
		if p, err := readAll(m2, len(model)); err != nil || !bytes.Equal(p, model) {
			t.Fatalf("write %d failed (%d errors): contents differ, %v", failAt, failed, err)
		}
	}
}

// TestNothingLeaks: after a clean end each cluster is counted as often as it
// is used, and what was discarded is used again.
func TestNothingLeaks(t *testing.T) {
	for _, s := range shapes {
		f := newImage(t, s.o)
		m := open(t, f, make([]byte, 200<<10))
		rnd := rand.New(rand.NewPCG(8, 8))
		model := make([]byte, s.o.Size)
		size := 0
		for round := range 6 {
			for range 100 {
				if err := step(rnd, m, model); err != nil {
					t.Fatal(err)
				}
			}
			if err := m.Discard(0, m.Info().Size); err != nil {
				t.Fatal(err)
			}
			clear(model)
			if err := errors.Join(m.Flush(), m.Flush()); err != nil {
				t.Fatal(err)
			}
			if round == 2 {
				size = len(f.data)
			}
		}
		if len(f.data) > size+size/4 {
			t.Errorf("%s: the file grew from %d to %d bytes, though all was discarded", s.name, size, len(f.data))
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		leaks, err := verify(open(t, f, nil))
		if err != nil || leaks != 0 {
			t.Errorf("%s: %d clusters leaked, %v", s.name, leaks, err)
		}
	}
}

// TestRefcountTableGrows: 512-byte clusters count for 8 MiB with a table of
// one cluster.
func TestRefcountTableGrows(t *testing.T) {
	f := newImage(t, CreateOptions{Size: 12 << 20, ClusterBits: 9})
	m := open(t, f, nil)
	p := make([]byte, 1<<20)
	for i := range p {
		p[i] = byte(i>>9) | 1
	}
	for i := range int64(12) {
		if err := m.WriteVec([][]byte{p}, i<<20, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = open(t, f, nil)
	if m.h.refClusters < 2 {
		t.Errorf("the refcount table has %d cluster", m.h.refClusters)
	}
	if leaks, err := verify(m); err != nil || leaks != 0 {
		t.Errorf("%d clusters leaked, %v", leaks, err)
	}
	if got, err := readAll(m, 12<<20); err != nil || !bytes.Equal(got, bytes.Repeat(p, 12)) {
		t.Errorf("contents differ, %v", err)
	}
}

func TestRefcountWidths(t *testing.T) {
	for order := range uint32(7) {
		b := &refBlock{counts: make([]byte, 512)}
		want := make([]uint64, 512*8>>order)
		rnd := rand.New(rand.NewPCG(uint64(order), 1))
		for range 3000 {
			i := rnd.Uint64N(uint64(len(want)))
			v := rnd.Uint64() >> (64 - 1<<order)
			want[i] = v
			b.put(i, order, v)
		}
		for i, v := range want {
			if got := b.get(uint64(i), order); got != v {
				t.Fatalf("order %d: count %d is %d, want %d", order, i, got, v)
			}
		}
	}
}

// FuzzOpen damages good images, 8 bytes at a time, and uses them: errors, but
// no panic, and no unbounded work.
func FuzzOpen(f *testing.F) {
	var images [][]byte
	for _, s := range shapes {
		s.o.Size, s.o.ClusterBits = 64<<10, min(s.o.ClusterBits, 10)
		image := newImage(f, s.o)
		m := open(f, image, make([]byte, 4096))
		if err := errors.Join(m.WriteVec([][]byte{make([]byte, 40<<10)}, 512, false), m.Close()); err != nil {
			f.Fatal(err)
		}
		images = append(images, image.data)
	}
	f.Add(uint8(0), uint32(0), []byte{})
	f.Add(uint8(1), uint32(1), []byte{0, 3, 0, 0, 0, 0, 0, 0, 0, 0})                   // no disk
	f.Add(uint8(2), uint32(2), []byte{0, 5, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0}) // L1 far out
	f.Add(uint8(0), uint32(4), []byte{0, 64, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 65, 0x40, 0, 0, 0, 0, 0, 1, 0})
	f.Fuzz(func(_ *testing.T, which uint8, seed uint32, edits []byte) {
		p := bytes.Clone(images[int(which)%len(images)])
		for ; len(edits) >= 10; edits = edits[10:] {
			copy(p[int(be.Uint16(edits))*8%len(p):], edits[2:10])
		}
		hostile(&medium{data: p}, seed)
	})
}

// hostile does a few random requests on an image that may be anything.
func hostile(file *medium, seed uint32) {
	m, err := Open(file, int64(len(file.data)), Options{ReadOnly: seed&1 != 0, OpenBacking: func(string, string) (blk.Store, error) {
		return blk.NewMemory(make([]byte, 4096), true), nil
	}})
	if err != nil || m.Info().Size == 0 {
		return
	}
	rnd := rand.New(rand.NewPCG(uint64(seed), 1))
	buf := make([]byte, 3*512)
	for range 20 {
		off := rnd.Int64N(m.Info().Size) &^ 511
		n := min(int64(len(buf)), m.Info().Size-off)
		r := &blk.Request{Op: blk.Op(rnd.IntN(5)), Offset: off, Length: n, Vec: [][]byte{buf[:n]}}
		blk.Execute(m, r)
	}
	_ = m.Close()
}
