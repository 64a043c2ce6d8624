package snapshot

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// SumChunk is how much of the memory file one checksum covers. A chunk is also
// the piece in which memory is written and read.
const SumChunk = 1 << 20

const chunkPages = SumChunk / memory.PageSize

// Part is a region's bytes and their place in the memory file.
type Part struct {
	Bytes  []byte
	Offset uint64
}

// parts finds the memory of a page of the file.
type parts []Part

// bytes is the memory of a run of pages that lies inside one part, and how
// many of the run's pages that are.
func (ps parts) bytes(r Run) ([]byte, uint64) {
	at := r.First * memory.PageSize
	for _, p := range ps {
		if at < p.Offset || at-p.Offset >= uint64(len(p.Bytes)) {
			continue
		}
		b := p.Bytes[at-p.Offset:]
		n := min(r.Count, uint64(len(b))/memory.PageSize)
		return b[:n*memory.PageSize], n
	}
	return nil, 0
}

// dump writes pages to f. Pages of zeros stay holes; they are stored all the
// same where keepZero is set. It returns what is stored, and the sum of each of
// chunks chunks.
func dump(f *os.File, ps parts, pages *Pages, chunks int, keepZero bool) (Pages, []uint32, error) {
	perChunk := byChunk(pages, chunks)
	stored := make([]Pages, chunks)
	sums := make([]uint32, chunks)
	err := parallel(chunks, func(i int) error {
		w := chunkWriter{f: f, keepZero: keepZero}
		for _, r := range perChunk[i] {
			for r.Count > 0 {
				b, n := ps.bytes(r)
				if n == 0 {
					return fmt.Errorf("page %d lies in no region", r.First)
				}
				if err := w.write(b, r.First); err != nil {
					return err
				}
				r.First, r.Count = r.First+n, r.Count-n
			}
		}
		stored[i], sums[i] = w.stored, w.sum
		return nil
	})
	var all Pages
	for i := range stored {
		for _, r := range stored[i].runs {
			all.Add(r.First, r.Count)
		}
	}
	return all, sums, err
}

// byChunk cuts runs at the borders of chunks.
func byChunk(pages *Pages, chunks int) [][]Run {
	out := make([][]Run, chunks)
	for _, r := range pages.runs {
		for r.Count > 0 {
			i := r.First / chunkPages
			n := min(r.Count, (i+1)*chunkPages-r.First)
			if i < uint64(chunks) {
				out[i] = append(out[i], Run{r.First, n})
			}
			r.First, r.Count = r.First+n, r.Count-n
		}
	}
	return out
}

// chunkWriter writes the pages of one chunk.
type chunkWriter struct {
	f        *os.File
	keepZero bool
	stored   Pages
	sum      uint32
}

var zeroPage [memory.PageSize]byte

// write writes the pages b, of which the first has the number first.
func (w *chunkWriter) write(b []byte, first uint64) error {
	for len(b) > 0 {
		zero := isZero(b)
		n := memory.PageSize
		for n < len(b) && isZero(b[n:]) == zero {
			n += memory.PageSize
		}
		if !zero || w.keepZero {
			w.stored.Add(first, uint64(n/memory.PageSize))
			w.sum = crc32.Update(w.sum, castagnoli, b[:n])
		}
		if !zero {
			if _, err := w.f.WriteAt(b[:n], int64(first*memory.PageSize)); err != nil {
				return err
			}
		}
		b, first = b[n:], first+uint64(n/memory.PageSize)
	}
	return nil
}

// isZero says whether the first page of b has nothing but zeros.
func isZero(b []byte) bool { return bytes.Equal(b[:memory.PageSize], zeroPage[:]) }

// verify reads all that is stored and compares the sums.
func verify(f *os.File, pages *Pages, sums []uint32) error {
	perChunk := byChunk(pages, len(sums))
	return parallel(len(sums), func(i int) error {
		var sum uint32
		buf := make([]byte, SumChunk)
		for _, r := range perChunk[i] {
			b := buf[:r.Count*memory.PageSize]
			if _, err := f.ReadAt(b, int64(r.First*memory.PageSize)); err != nil {
				return err
			}
			sum = crc32.Update(sum, castagnoli, b)
		}
		if sum != sums[i] {
			return fmt.Errorf("%w: memory at offset %#x: its checksum is wrong", ErrDamaged, uint64(i)*SumChunk)
		}
		return nil
	})
}

// parallel calls f for 0…n-1 on a few goroutines and returns the first error.
func parallel(n int, f func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for range min(n, runtime.GOMAXPROCS(0), 8) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					once.Do(func() { first = err })
					next.Store(int64(n))
				}
			}
		})
	}
	wg.Wait()
	return first
}

// FileCRC is the CRC-32C of the first n bytes of f.
func FileCRC(f *os.File, n uint64) (uint32, error) {
	chunks := int((n + SumChunk - 1) / SumChunk)
	sums := make([]uint32, chunks)
	err := parallel(chunks, func(i int) error {
		at := uint64(i) * SumChunk
		b := make([]byte, min(SumChunk, n-at))
		if _, err := f.ReadAt(b, int64(at)); err != nil {
			return err
		}
		sums[i] = crc32.Checksum(b, castagnoli)
		return nil
	})
	// The sum of the sums: each is of a piece at a fixed place.
	var whole uint32
	for _, s := range sums {
		whole = crc32.Update(whole, castagnoli, []byte{byte(s), byte(s >> 8), byte(s >> 16), byte(s >> 24)})
	}
	return whole, err
}
