package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// layerBlock is the unit in which a Layer keeps a disk's content.
const layerBlock = 4096

// Bounds of a layer: it is in memory, and may be read from somebody else's file.
const (
	maxLayerBlocks = 1 << 22 // of zeros too, which take no memory beside their numbers: 16 GiB
	maxLayerData   = 1 << 30 // bytes of the others
)

// errLayerFull is what a write fails with that a layer has no room for.
var errLayerFull = errors.New("what is written is more than is kept in memory (1 GiB)")

// Layer is what of a disk or a piece of persistent memory is not as in a file:
// whole blocks, in memory. Its methods may be called from any goroutine.
type Layer struct {
	mu     sync.Mutex
	blocks map[int64][]byte // by number; nil is zeros. Nobody changes one that is here
	data   int64            // bytes of those that are not zeros
	full   bool             // a block found no room
}

// NewLayer returns a layer without blocks.
func NewLayer() *Layer { return &Layer{blocks: make(map[int64][]byte)} }

// Clone returns a layer that is the same, and changes by itself.
func (l *Layer) Clone() *Layer {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &Layer{blocks: maps.Clone(l.blocks), data: l.data, full: l.full}
}

// Len is how many blocks there are.
func (l *Layer) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.blocks)
}

// Full says whether something found no room.
func (l *Layer) Full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.full
}

// put makes b, which is the layer's from now on, the block number n. mu is held.
func (l *Layer) put(n int64, b []byte) error {
	if b != nil && !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		b = nil
	}
	old, had := l.blocks[n]
	if !had && len(l.blocks) == maxLayerBlocks || l.data+int64(len(b)-len(old)) > maxLayerData {
		l.full = true
		return errLayerFull
	}
	l.data += int64(len(b) - len(old))
	l.blocks[n] = b
	return nil
}

// over calls f for each block that lies in a range, whole or in part: its
// number, and where range and block begin and end in each other's bytes.
func over(off, n int64, f func(block, from, to, at int64) error) error {
	for at := int64(0); at < n; {
		block, from := (off+at)/layerBlock, (off+at)%layerBlock
		to := min(layerBlock, from+n-at)
		if err := f(block, from, to, at); err != nil {
			return err
		}
		at += to - from
	}
	return nil
}

// WriteTo writes the layer: for each block, in order, how far its number is
// from the one that would be next, as a varint, shifted left by one, and a bit
// that says whether its bytes follow or it is of zeros.
func (l *Layer) WriteTo(w io.Writer) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := bufio.NewWriterSize(w, 64<<10)
	var head [binary.MaxVarintLen64]byte
	var written, next int64
	for _, n := range slices.Sorted(maps.Keys(l.blocks)) {
		data := l.blocks[n]
		v := uint64(n-next) << 1
		if data != nil {
			v |= 1
		}
		k, err := b.Write(head[:binary.PutUvarint(head[:], v)])
		written += int64(k)
		if err == nil {
			k, err = b.Write(data)
			written += int64(k)
		}
		if err != nil {
			return written, err
		}
		next = n + 1
	}
	return written, b.Flush()
}

// ReadLayer reads what WriteTo wrote.
func ReadLayer(r io.Reader) (*Layer, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	l := NewLayer()
	for next := int64(0); ; next++ {
		v, err := binary.ReadUvarint(b)
		if err == io.EOF {
			return l, nil
		}
		if err != nil {
			return nil, fmt.Errorf("a disk's blocks: %w", err)
		}
		if v>>1 > 1<<62/layerBlock || next > 1<<62/layerBlock {
			return nil, errors.New("a disk's blocks: a number that no disk has")
		}
		next += int64(v >> 1)
		var data []byte
		if v&1 != 0 {
			data = make([]byte, layerBlock)
			if _, err := io.ReadFull(b, data); err != nil {
				return nil, fmt.Errorf("a disk's blocks: %w", io.ErrUnexpectedEOF)
			}
		}
		if err := l.put(next, data); err != nil {
			return nil, fmt.Errorf("a disk's blocks: %w", err)
		}
	}
}

// Difference returns a layer that, over now, makes it before, both of size
// bytes: what a file was before it became another.
func Difference(before, now io.ReaderAt, size int64) (*Layer, error) {
	l := NewLayer()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(a)) {
		n := min(int64(len(a)), size-at)
		if _, err := io.ReadFull(io.NewSectionReader(before, at, n), a[:n]); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(io.NewSectionReader(now, at, n), b[:n]); err != nil {
			return nil, err
		}
		err := over(at, n, func(block, from, to, i int64) error {
			if string(a[i:i+to-from]) == string(b[i:i+to-from]) {
				return nil
			}
			data := make([]byte, layerBlock)
			copy(data[from:], a[i:i+to-from])
			return l.put(block, data)
		})
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// layered is a disk that lies over a file which it never writes to.
type layered struct {
	blk.Store // of the file
	info      blk.Info
	l         *Layer
}

var _ blk.Store = (*layered)(nil)

// newLayered makes a disk that is to the guest what the file would be, could it
// be written to.
func newLayered(file blk.Store, l *Layer) *layered {
	info := file.Info()
	info.ReadOnly, info.Discard, info.WriteZeroes = false, rawHasHoles, rawHasHoles
	return &layered{Store: file, info: info, l: l}
}

// Info implements blk.Store.
func (d *layered) Info() blk.Info { return d.info }

// ReadVec implements blk.Store.
func (d *layered) ReadVec(vec [][]byte, off int64) error {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	if err := d.Store.ReadVec(vec, off); err != nil {
		return err
	}
	for _, p := range vec {
		_ = over(off, int64(len(p)), func(block, from, to, at int64) error {
			if data, ok := d.l.blocks[block]; ok && data == nil {
				clear(p[at : at+to-from])
			} else if ok {
				copy(p[at:], data[from:to])
			}
			return nil
		})
		off += int64(len(p))
	}
	return nil
}

// block returns a copy of a block, of zeros behind the disk's end. l.mu is held.
func (d *layered) block(n int64) ([]byte, error) {
	if data, ok := d.l.blocks[n]; ok {
		return append(make([]byte, 0, layerBlock), data...)[:layerBlock], nil
	}
	return readBlock(d.Store, n)
}

func readBlock(s blk.Store, n int64) ([]byte, error) {
	b := make([]byte, layerBlock)
	return b, s.ReadVec([][]byte{b[:min(layerBlock, s.Info().Size-n*layerBlock)]}, n*layerBlock)
}

// change has f change the bytes of blocks in a range.
func (d *layered) change(off, n int64, f func(b []byte, at int64)) error {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	return over(off, n, func(block, from, to, at int64) (err error) {
		var b []byte
		if to-from == layerBlock {
			b = make([]byte, layerBlock)
		} else if b, err = d.block(block); err != nil {
			return err
		}
		f(b[from:to], at)
		return d.l.put(block, b)
	})
}

// WriteVec implements blk.Store. Durable is what lasts as long as the machine.
func (d *layered) WriteVec(vec [][]byte, off int64, _ bool) error {
	for _, p := range vec {
		if err := d.change(off, int64(len(p)), func(b []byte, at int64) { copy(b, p[at:]) }); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

// Flush implements blk.Store.
func (d *layered) Flush() error { return nil }

// Discard implements blk.Store.
func (d *layered) Discard(off, n int64) error {
	return d.change(off, n, func(b []byte, _ int64) { clear(b) })
}

// WriteZeroes implements blk.Store.
func (d *layered) WriteZeroes(off, n int64, _, _ bool) error { return d.Discard(off, n) }

// remembered is a disk that keeps what its file had, before it is written to.
type remembered struct {
	blk.Store
	l *Layer
}

var _ blk.Store = (*remembered)(nil)

// keep keeps the blocks in a range that are not kept yet. What the layer has no
// room for is not kept: Full says so, and the guest goes on.
func (d *remembered) keep(off, n int64) error {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	return over(off, n, func(block, _, _, _ int64) error {
		if _, ok := d.l.blocks[block]; ok || d.l.full {
			return nil
		}
		b, err := readBlock(d.Store, block)
		if err == nil {
			_ = d.l.put(block, b)
		}
		return err
	})
}

// WriteVec implements blk.Store.
func (d *remembered) WriteVec(vec [][]byte, off int64, durable bool) error {
	var n int64
	for _, p := range vec {
		n += int64(len(p))
	}
	if err := d.keep(off, n); err != nil {
		return err
	}
	return d.Store.WriteVec(vec, off, durable)
}

// Discard implements blk.Store. What is discarded is zeros from now on, on each
// file system: whoever does the same again over a Layer is to find the same.
func (d *remembered) Discard(off, n int64) error { return d.WriteZeroes(off, n, true, false) }

// WriteZeroes implements blk.Store.
func (d *remembered) WriteZeroes(off, n int64, unmap, durable bool) error {
	if err := d.keep(off, n); err != nil {
		return err
	}
	return d.Store.WriteZeroes(off, n, unmap, durable)
}
