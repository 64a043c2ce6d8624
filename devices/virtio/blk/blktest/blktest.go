// Package blktest checks that a back end of package blk keeps its promises.
package blktest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// TestBackend runs the suite. open returns a new disk of at least size bytes
// that reads as zero, and may be written to.
func TestBackend(t *testing.T, open func(t *testing.T, size int64) blk.Backend) {
	const size = 4 << 20
	tests := []struct {
		name string
		f    func(t *testing.T, b blk.Backend)
	}{
		{"Info", testInfo},
		{"ZeroAtFirst", testZeroAtFirst},
		{"WriteRead", testWriteRead},
		{"Pieces", testPieces},
		{"Zeroes", testZeroes},
		{"Discard", testDiscard},
		{"Bounds", testBounds},
		{"CloseWaits", testCloseWaits},
		{"Prompt", testPrompt},
		{"ModelAtDepth", testModelAtDepth},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := open(t, size)
			defer func() {
				if err := b.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			tt.f(t, b)
		})
	}
}

// TestReadOnly checks that a disk that was opened read-only stays as it is.
func TestReadOnly(t *testing.T, b blk.Backend) {
	if !b.Info().ReadOnly {
		t.Fatal("Info does not say that the disk is read-only")
	}
	before := make([]byte, 4096)
	Do(t, b, &blk.Request{Op: blk.OpRead, Vec: [][]byte{before}})
	for _, r := range []*blk.Request{
		{Op: blk.OpWrite, Vec: [][]byte{bytes.Repeat([]byte{0xa5}, 4096)}},
		{Op: blk.OpDiscard, Length: 4096},
		{Op: blk.OpWriteZeroes, Length: 4096},
	} {
		if err := Try(t, b, r); err == nil {
			t.Errorf("%s succeeded", r.Op)
		}
	}
	after := make([]byte, 4096)
	Do(t, b, &blk.Request{Op: blk.OpRead, Vec: [][]byte{after}})
	if !bytes.Equal(before, after) {
		t.Error("the contents changed")
	}
}

// Do executes one request, which must succeed. A missing Length is Vec's.
func Do(t testing.TB, b blk.Backend, r *blk.Request) {
	t.Helper()
	if err := Try(t, b, r); err != nil {
		t.Fatalf("%s of %d bytes at %d: %v", r.Op, r.Length, r.Offset, err)
	}
}

// Try executes one request and returns its error.
func Try(t testing.TB, b blk.Backend, r *blk.Request) error {
	t.Helper()
	for _, v := range r.Vec {
		r.Length += int64(len(v))
	}
	done := make(chan *blk.Request, 1)
	c, err := b.Open(context.Background(), 1, func(rs []*blk.Request) {
		for _, r := range rs {
			done <- r
		}
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	c.Submit(r)
	c.Kick()
	if got := <-done; got != r {
		t.Fatalf("another request was done: %+v", got)
	}
	if err := c.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return r.Err
}

func read(t testing.TB, b blk.Backend, off int64, n int) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xee}, n)
	Do(t, b, &blk.Request{Op: blk.OpRead, Offset: off, Vec: [][]byte{p}})
	return p
}

func write(t testing.TB, b blk.Backend, off int64, p []byte) {
	t.Helper()
	Do(t, b, &blk.Request{Op: blk.OpWrite, Offset: off, Vec: [][]byte{p}})
}

func pattern(seed uint64, n int) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func testInfo(t *testing.T, b blk.Backend) {
	i := b.Info()
	if i.Size <= 0 || i.Size%blk.SectorSize != 0 || i.ReadOnly {
		t.Errorf("Info = %+v", i)
	}
}

func testZeroAtFirst(t *testing.T, b blk.Backend) {
	if p := read(t, b, b.Info().Size-8192, 8192); !bytes.Equal(p, make([]byte, 8192)) {
		t.Error("a new disk does not read as zero")
	}
}

func testWriteRead(t *testing.T, b blk.Backend) {
	for i, n := range []int{512, 4096, 65536, 512 * 33, 1 << 20} {
		off := int64(512 * (7*i + 1))
		want := pattern(uint64(n), n)
		write(t, b, off, want)
		Do(t, b, &blk.Request{Op: blk.OpFlush})
		if got := read(t, b, off, n); !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %d: read back otherwise", n, off)
		}
	}
	want := pattern(9, 512)
	Do(t, b, &blk.Request{Op: blk.OpWrite, Durable: true, Offset: b.Info().Size - 512, Vec: [][]byte{want}})
	if got := read(t, b, b.Info().Size-512, 512); !bytes.Equal(got, want) {
		t.Error("last sector: read back otherwise")
	}
}

// testPieces cuts data in odd places, also inside sectors, and in more pieces
// than one system call takes.
func testPieces(t *testing.T, b blk.Backend) {
	const n = 300 * 512
	want := pattern(3, n)
	for _, size := range []int{1, 511, 512, 513, 4096, n} {
		if size == 1 {
			size = n / 1024 // many pieces, but not for ever
		}
		Do(t, b, &blk.Request{Op: blk.OpWrite, Offset: 1024, Vec: cut(bytes.Clone(want), size)})
		got := make([]byte, n)
		Do(t, b, &blk.Request{Op: blk.OpRead, Offset: 1024, Vec: cut(got, size)})
		if !bytes.Equal(got, want) {
			t.Errorf("in pieces of %d: read back otherwise", size)
		}
	}
}

func cut(p []byte, n int) (vec [][]byte) {
	for len(p) > 0 {
		k := min(n, len(p))
		vec = append(vec, p[:k:k])
		p = p[k:]
	}
	return vec
}

func testZeroes(t *testing.T, b blk.Backend) {
	for _, unmap := range []bool{false, true} {
		for _, durable := range []bool{false, true} {
			want := pattern(4, 256<<10)
			write(t, b, 0, want)
			const off, n = 512 * 3, 512 * 301
			Do(t, b, &blk.Request{Op: blk.OpWriteZeroes, Offset: off, Length: n, Unmap: unmap, Durable: durable})
			clear(want[off : off+n])
			if got := read(t, b, 0, len(want)); !bytes.Equal(got, want) {
				t.Errorf("unmap %v, durable %v: read back otherwise", unmap, durable)
			}
		}
	}
}

// testDiscard checks only what a discard must not do: its own range may read
// as anything afterwards (virtio 1.2 §5.2.6.2).
func testDiscard(t *testing.T, b blk.Backend) {
	want := pattern(5, 256<<10)
	write(t, b, 0, want)
	const off, n = 512 * 5, 512 * 205
	Do(t, b, &blk.Request{Op: blk.OpDiscard, Offset: off, Length: n})
	got := read(t, b, 0, len(want))
	if !bytes.Equal(got[:off], want[:off]) || !bytes.Equal(got[off+n:], want[off+n:]) {
		t.Error("a discard changed its neighbours")
	}
	write(t, b, off, want[off:off+n])
	if got := read(t, b, 0, len(want)); !bytes.Equal(got, want) {
		t.Error("written after a discard: read back otherwise")
	}
}

func testBounds(t *testing.T, b blk.Backend) {
	size := b.Info().Size
	for _, r := range []*blk.Request{
		{Op: blk.OpRead, Offset: size, Vec: [][]byte{make([]byte, 512)}},
		{Op: blk.OpRead, Offset: size - 512, Vec: [][]byte{make([]byte, 1024)}},
		{Op: blk.OpWrite, Offset: size - 512, Vec: [][]byte{make([]byte, 1024)}},
		{Op: blk.OpWrite, Offset: -512, Vec: [][]byte{make([]byte, 512)}},
		{Op: blk.OpWriteZeroes, Offset: size, Length: 512},
		{Op: blk.OpDiscard, Offset: 512, Length: 1<<63 - 1},
		{Op: blk.Op(200)},
	} {
		if err := Try(t, b, r); err == nil {
			t.Errorf("%s of %d bytes at %d succeeded on a disk of %d", r.Op, r.Length, r.Offset, size)
		}
	}
}

// testCloseWaits closes a channel with requests in flight: they are done.
func testCloseWaits(t *testing.T, b blk.Backend) {
	var mu sync.Mutex
	n := 0
	c, err := b.Open(context.Background(), 32, func(rs []*blk.Request) {
		mu.Lock()
		defer mu.Unlock()
		n += len(rs)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 32 {
		r := &blk.Request{Op: blk.OpWrite, Offset: int64(i) * 4096, Length: 4096, Durable: i%2 == 0, Vec: [][]byte{make([]byte, 4096)}}
		c.Submit(r)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if n != 32 {
		t.Errorf("after Close %d of 32 requests were done", n)
	}
}

// testPrompt checks that a channel that tries gets what one that submits gets,
// tries nothing that writes, and reports nothing.
func testPrompt(t *testing.T, b blk.Backend) {
	c, err := b.Open(context.Background(), 4, func([]*blk.Request) { t.Error("a request that was tried is reported") })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	p, ok := c.(blk.Prompt)
	if !ok {
		return
	}
	const n = 300 * 512
	want := pattern(11, n)
	write(t, b, 4096, want)
	for _, size := range []int{512, 4096, n} {
		got := make([]byte, n)
		r := &blk.Request{Op: blk.OpRead, Offset: 4096, Length: n, Vec: cut(got, size)}
		if p.Try(r) && (r.Err != nil || !bytes.Equal(got, want)) {
			t.Errorf("in pieces of %d: %v, or read otherwise", size, r.Err)
		}
	}
	size := b.Info().Size
	for _, r := range []*blk.Request{
		{Op: blk.OpRead, Offset: size - 512, Length: 1024, Vec: [][]byte{make([]byte, 1024)}},
		{Op: blk.OpRead, Offset: -512, Length: 512, Vec: [][]byte{make([]byte, 512)}},
		{Op: blk.OpWrite, Offset: 4096, Length: 512, Vec: [][]byte{make([]byte, 512)}},
		{Op: blk.OpWriteZeroes, Offset: 4096, Length: 512},
		{Op: blk.OpDiscard, Offset: 4096, Length: 512},
		{Op: blk.OpFlush},
	} {
		if p.Try(r) {
			t.Errorf("%s of %d bytes at %d was done at once", r.Op, r.Length, r.Offset)
		}
	}
	if got := read(t, b, 4096, n); !bytes.Equal(got, want) {
		t.Error("what was refused has written")
	}
}

// testModelAtDepth does random requests on separate parts of the disk at once
// and compares with a slice.
func testModelAtDepth(t *testing.T, b blk.Backend) {
	const depth, part, rounds = 16, 64 << 10, 40
	done := make(chan *blk.Request, depth)
	c, err := b.Open(context.Background(), depth, func(rs []*blk.Request) {
		for _, r := range rs {
			done <- r
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	model := make([]byte, depth*part)
	rnd := rand.New(rand.NewPCG(7, 7))
	checks := make(map[*blk.Request]func() error)
	for round := range rounds {
		for i := range depth {
			r, check := randomRequest(rnd, model[i*part:][:part], int64(i*part), uint64(round*depth+i))
			checks[r] = check
			c.Submit(r)
		}
		c.Kick()
		for range depth {
			r := <-done
			if r.Err != nil {
				t.Fatalf("%s: %v", r.Op, r.Err)
			}
			if err := checks[r](); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			delete(checks, r)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, b, 0, len(model)); !bytes.Equal(got, model) {
		t.Error("at the end the disk differs from the model")
	}
}

func randomRequest(rnd *rand.Rand, model []byte, base int64, seed uint64) (*blk.Request, func() error) {
	sectors := len(model) / blk.SectorSize
	first := rnd.IntN(sectors)
	n := 1 + rnd.IntN(sectors-first)
	lo, hi := first*blk.SectorSize, (first+n)*blk.SectorSize
	r := &blk.Request{Offset: base + int64(lo), Length: int64(hi - lo)}
	ok := func() error { return nil }
	switch rnd.IntN(5) {
	case 0, 1:
		r.Op, r.Vec = blk.OpWrite, cut(pattern(seed, hi-lo), 1+rnd.IntN(3*blk.SectorSize)+blk.SectorSize)
		copy(model[lo:hi], bytes.Join(r.Vec, nil))
	case 2:
		r.Op, r.Unmap = blk.OpWriteZeroes, rnd.IntN(2) == 0
		clear(model[lo:hi])
	case 3:
		r.Op, r.Length, r.Offset = blk.OpFlush, 0, 0
	default:
		got := bytes.Repeat([]byte{0xee}, hi-lo)
		r.Op, r.Vec = blk.OpRead, cut(got, 1+rnd.IntN(5*blk.SectorSize)+blk.SectorSize)
		return r, func() error {
			if !bytes.Equal(got, model[lo:hi]) {
				return fmt.Errorf("read of %d bytes at %d differs from the model", len(got), r.Offset)
			}
			return nil
		}
	}
	return r, ok
}
