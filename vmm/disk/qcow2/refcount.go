package qcow2

import (
	"errors"
	"fmt"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// refcounts knows which clusters of the file are in use. A refcount table has
// the offsets of refcount blocks, each of which counts for as many clusters as
// fit into one cluster.
//
// Its fields are protected by the image's mu, held for writing.
type refcounts struct {
	m      *Image
	table  []uint64
	lo, hi int // entries [lo, hi) of table are not on the medium yet
	blocks map[uint64]*refBlock
	hint   uint64   // no cluster before it is free
	end    uint64   // clusters from here on were neither in the file when it was opened nor taken since
	freed  []uint64 // offsets, not referred to by what is in memory
}

// refBlock is a refcount block in memory.
type refBlock struct {
	offset uint64
	counts []byte
	lo, hi int // bytes [lo, hi) are not on the medium yet
}

// load reads the refcount table. Blocks are read when needed.
func (r *refcounts) load(m *Image, size int64) (err error) {
	r.m, r.blocks = m, make(map[uint64]*refBlock)
	r.end = (uint64(size) + m.h.clusterSize() - 1) >> m.h.clusterBits
	n := int(uint64(m.h.refClusters) << m.h.clusterBits / 8)
	if r.table, err = m.readTable(m.h.refOffset, n); err != nil {
		return fmt.Errorf("read the refcount table: %w", err)
	}
	return nil
}

// block returns the block that counts cluster i, or nil where there is none.
func (r *refcounts) block(i uint64) (*refBlock, error) {
	n := i >> r.m.h.refBlockBits()
	if b := r.blocks[n]; b != nil {
		return b, nil
	}
	if n >= uint64(len(r.table)) || r.table[n] == 0 {
		return nil, nil
	}
	off := r.table[n]
	if !r.m.h.aligned(off) {
		return nil, fmt.Errorf("refcount block at %#x: %w", off, ErrCorrupt)
	}
	b := &refBlock{offset: off, counts: make([]byte, r.m.h.clusterSize())}
	if err := r.m.readAt(b.counts, off); err != nil {
		return nil, fmt.Errorf("read the refcount block at %#x: %w", off, err)
	}
	r.evict()
	r.blocks[n] = b
	return b, nil
}

// evict bounds the memory that blocks take.
func (r *refcounts) evict() {
	if uint64(len(r.blocks))<<r.m.h.clusterBits < maxBlocks {
		return
	}
	for n, b := range r.blocks {
		if b.lo >= b.hi {
			delete(r.blocks, n)
			return
		}
	}
}

// get returns the refcount of cluster i.
func (r *refcounts) get(i uint64) (uint64, error) {
	b, err := r.block(i)
	if b == nil || err != nil {
		return 0, err
	}
	return b.get(i&(1<<r.m.h.refBlockBits()-1), r.m.h.refOrder), nil
}

// get reads count i of 2^order bits: big-endian from a byte on, from the
// lowest bit below.
func (b *refBlock) get(i uint64, order uint32) uint64 {
	switch order {
	case 3:
		return uint64(b.counts[i])
	case 4:
		return uint64(be.Uint16(b.counts[2*i:]))
	case 5:
		return uint64(be.Uint32(b.counts[4*i:]))
	case 6:
		return be.Uint64(b.counts[8*i:])
	}
	bit := i << order
	return uint64(b.counts[bit/8]>>(bit%8)) & (1<<(1<<order) - 1)
}

func (b *refBlock) put(i uint64, order uint32, v uint64) {
	at, n := int(i<<order/8), max(1<<order/8, 1)
	switch order {
	case 3:
		b.counts[i] = uint8(v)
	case 4:
		be.PutUint16(b.counts[2*i:], uint16(v))
	case 5:
		be.PutUint32(b.counts[4*i:], uint32(v))
	case 6:
		be.PutUint64(b.counts[8*i:], v)
	default:
		shift, mask := i<<order%8, byte(1<<(1<<order)-1)
		b.counts[at] = b.counts[at]&^(mask<<shift) | byte(v)&mask<<shift
	}
	if b.lo >= b.hi {
		b.lo, b.hi = at, at+n
	}
	b.lo, b.hi = min(b.lo, at), max(b.hi, at+n)
}

// set sets the refcount of cluster i, whose block there must be.
func (r *refcounts) set(i, v uint64) error {
	b, err := r.block(i)
	if err != nil {
		return err
	}
	if b == nil {
		return fmt.Errorf("no refcount block for cluster %d: %w", i, ErrCorrupt)
	}
	b.put(i&(1<<r.m.h.refBlockBits()-1), r.m.h.refOrder, v)
	return nil
}

const (
	maxBlocks = 64 << 20 // bytes of refcount blocks in memory
	maxAhead  = 1 << 14  // clusters that are counted behind the file's end
)

// alloc takes a free cluster and returns its offset. The search ends in an
// image that counts what it cannot have.
func (r *refcounts) alloc() (uint64, error) {
	for i := r.hint; i-r.hint <= r.end+maxAhead; i++ {
		if i>>r.m.h.refBlockBits() >= uint64(len(r.table)) {
			if err := r.grow(); err != nil {
				return 0, err
			}
		}
		b, err := r.block(i)
		if err != nil {
			return 0, err
		}
		if b == nil {
			// All clusters of this range are free, and the first becomes
			// the block that counts them.
			r.addBlock(i)
			continue
		}
		n, err := r.get(i)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			r.hint, r.end = i+1, max(r.end, i+1)
			return i << r.m.h.clusterBits, r.set(i, 1)
		}
	}
	return 0, fmt.Errorf("no free cluster: %w", ErrCorrupt)
}

// addBlock makes cluster i, the first of a range without a block, the block of
// that range.
func (r *refcounts) addBlock(i uint64) {
	n := i >> r.m.h.refBlockBits()
	first := n << r.m.h.refBlockBits()
	b := &refBlock{offset: first << r.m.h.clusterBits, counts: make([]byte, r.m.h.clusterSize())}
	b.lo, b.hi = 0, len(b.counts)
	b.put(0, r.m.h.refOrder, 1)
	r.blocks[n] = b
	if r.lo >= r.hi {
		r.lo, r.hi = int(n), int(n)+1
	}
	r.table[n], r.lo, r.hi = b.offset, min(r.lo, int(n)), max(r.hi, int(n)+1)
}

// errTableFull is where an image can grow no further.
var errTableFull = errors.New("the image's refcount table is at its limit: convert it to larger clusters with qemu-img")

// grow doubles the refcount table. The new one goes to clusters that no table
// counted before, just behind what the old one could count: with it comes the
// first block that counts them. The header changes last.
func (r *refcounts) grow() (err error) {
	h := &r.m.h
	clusters := 2 * uint64(h.refClusters)
	if clusters<<h.clusterBits > maxRefTable || clusters+1 > 1<<h.refBlockBits() {
		return errTableFull
	}
	was := *r
	n := uint64(len(was.table))
	first := n << h.refBlockBits() // the first cluster that was not counted
	r.table = make([]uint64, clusters<<h.clusterBits/8)
	copy(r.table, was.table)
	defer func() {
		if err != nil {
			// Entries behind the old table's end must never be written.
			r.table, r.lo, r.hi = was.table, was.lo, was.hi
			delete(r.blocks, n)
		}
	}()
	r.addBlock(first)
	for i := range clusters {
		if err := r.set(first+1+i, 1); err != nil {
			return err
		}
	}
	offset := (first + 1) << h.clusterBits
	if err := r.writeGrown(offset, uint32(clusters)); err != nil {
		return err
	}
	for i := range uint64(h.refClusters) {
		r.release(h.refOffset + i<<h.clusterBits)
	}
	h.refOffset, h.refClusters, r.lo, r.hi = offset, uint32(clusters), 0, 0
	return nil
}

// writeGrown makes the new table durable, then the header that leads to it.
func (r *refcounts) writeGrown(offset uint64, clusters uint32) error {
	if err := r.flushBlocks(); err != nil {
		return err
	}
	if err := r.m.writeTable(offset, r.table, 0, len(r.table)); err != nil {
		return err
	}
	if err := r.m.file.Flush(); err != nil {
		return err
	}
	return r.m.writeTablePlace(offset, clusters)
}

// writeTablePlace tells the header where the refcount table is: 12 bytes in
// one sector, so one write.
func (m *Image) writeTablePlace(offset uint64, clusters uint32) error {
	var b [12]byte
	be.PutUint64(b[0:], offset)
	be.PutUint32(b[8:], clusters)
	if err := m.writeAt(b[:], 48); err != nil {
		return err
	}
	return m.file.Flush()
}

// undo gives back a cluster that alloc took and nothing refers to.
func (r *refcounts) undo(off uint64) {
	i := off >> r.m.h.clusterBits
	if r.set(i, 0) == nil {
		r.hint = min(r.hint, i)
	}
}

// release notes that one reference to the cluster at off is gone. The count
// follows when the medium has no reference either.
func (r *refcounts) release(off uint64) { r.freed = append(r.freed, off) }

// settle takes one from the counts of the clusters that were released, after
// the tables were made durable. What is free is punched out of the file.
func (r *refcounts) settle() error {
	for _, off := range r.freed {
		i := off >> r.m.h.clusterBits
		n, err := r.get(i)
		if err != nil {
			return err
		}
		if n == 0 {
			continue // it was not counted: a leak of the opposite kind
		}
		if err := r.set(i, n-1); err != nil {
			return err
		}
		if n == 1 {
			r.hint = min(r.hint, i)
			_ = r.m.file.Discard(int64(off), int64(r.m.h.clusterSize()))
		}
	}
	r.freed = r.freed[:0]
	return nil
}

// flushBlocks writes the counts that changed, in whole sectors.
func (r *refcounts) flushBlocks() error {
	for _, b := range r.blocks {
		if b.lo >= b.hi {
			continue
		}
		lo, hi := b.lo&^(blk.SectorSize-1), (b.hi+blk.SectorSize-1)&^(blk.SectorSize-1)
		if err := r.m.writeAt(b.counts[lo:hi], b.offset+uint64(lo)); err != nil {
			return fmt.Errorf("write refcounts: %w", err)
		}
		b.lo, b.hi = 0, 0
	}
	return nil
}

// flushTable writes the entries that changed; their blocks are durable.
func (r *refcounts) flushTable() (changed bool, err error) {
	if r.lo >= r.hi {
		return false, nil
	}
	if err := r.m.writeTable(r.m.h.refOffset, r.table, r.lo, r.hi); err != nil {
		return false, fmt.Errorf("write the refcount table: %w", err)
	}
	r.lo, r.hi = 0, 0
	return true, nil
}
