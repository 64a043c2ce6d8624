package qcow2

import (
	"errors"
	"fmt"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// Parts of an L1 or L2 entry.
const (
	entryCopied     = 1 << 63 // refcount is 1: may be written in place
	entryCompressed = 1 << 62
	entryZero       = 1 << 0 // version 3: reads as zero, whatever the offset says
	entryOffset     = 0x00ff_ffff_ffff_fe00
)

const (
	maxCleanTables = 128 // L2 tables kept in memory
	maxDirtyTables = 64  // then they are flushed
)

// ErrCorrupt is wrapped by errors that say that an image contradicts itself.
var ErrCorrupt = errors.New("the image is damaged: qemu-img check may repair it")

// Image is an open image. It implements blk.Store.
type Image struct {
	file    blk.Store
	backing blk.Store // nil without one
	h       header
	info    blk.Info

	// mu is held for reading while data is read or overwritten in place, and
	// for writing while clusters change their place.
	mu     sync.RWMutex
	l1     []uint64
	l1Lo   int // entries [l1Lo, l1Hi) are not on the medium yet
	l1Hi   int
	tables map[int]*table // L2 tables in memory, by L1 index
	dirty  int            // how many of them
	refs   refcounts

	inflated struct { // the compressed cluster that was read last
		sync.Mutex
		entry uint64
		data  []byte
	}
}

var _ blk.Store = (*Image)(nil)

// table is an L2 table in memory.
type table struct {
	offset  uint64 // its cluster
	entries []uint64
	lo, hi  int // entries [lo, hi) are not on the medium yet
}

func (t *table) dirty() bool { return t.lo < t.hi }

func (t *table) set(i int, e uint64) {
	if !t.dirty() {
		t.lo, t.hi = i, i+1
	}
	t.entries[i], t.lo, t.hi = e, min(t.lo, i), max(t.hi, i+1)
}

// Options are what Open can be told.
type Options struct {
	ReadOnly bool
	ID       string

	// OpenBacking opens the backing file of the given name and format, as
	// the image has them. nil refuses images that have one.
	OpenBacking func(name, format string) (blk.Store, error)
}

// Open opens the image in file, whose present length is size. The image owns
// file from then on, also when Open fails.
func Open(file blk.Store, size int64, o Options) (_ *Image, err error) {
	m := &Image{file: file, tables: make(map[int]*table)}
	defer func() {
		if err != nil {
			_ = m.closeFiles()
		}
	}()
	b := make([]byte, min(maxHeader, size))
	if err := m.readAt(b, 0); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	h, err := parseHeader(b)
	if err != nil {
		return nil, err
	}
	m.h = *h
	if err := m.checkWritable(o.ReadOnly); err != nil {
		return nil, err
	}
	if err := m.openBacking(o); err != nil {
		return nil, err
	}
	cs := int(h.clusterSize())
	m.info = blk.Info{
		Size: int64(h.size+blk.SectorSize-1) &^ (blk.SectorSize - 1), BlockSize: blk.SectorSize,
		PhysicalBlock: min(cs, 4096), OptimalIO: cs, ReadOnly: o.ReadOnly,
		Discard: !o.ReadOnly, WriteZeroes: !o.ReadOnly, DiscardAlign: min(cs, 4096), ID: o.ID,
	}
	if m.l1, err = m.readTable(h.l1Offset, int(h.l1Size)); err != nil {
		return nil, fmt.Errorf("read the L1 table: %w", err)
	}
	if o.ReadOnly {
		return m, nil
	}
	if err := m.refs.load(m, size); err != nil {
		return nil, err
	}
	return m, m.clearAutoclear()
}

func (m *Image) checkWritable(readOnly bool) error {
	switch {
	case readOnly:
		return nil
	case m.h.incompatible&(incDirty|incCorrupt) != 0:
		return errors.New("it was not closed well: run qemu-img check -r all, or open it read-only")
	case m.h.snapshots != 0:
		return errors.New("it has internal snapshots: remove them with qemu-img snapshot -d, or open it read-only")
	}
	return nil
}

// clearAutoclear tells other programs that features of theirs (bitmaps) know
// nothing of what is written from now on.
func (m *Image) clearAutoclear() error {
	if m.h.autoclear == 0 {
		return nil
	}
	if err := m.writeAt(make([]byte, 8), 88); err != nil {
		return err
	}
	return m.file.Flush()
}

func (m *Image) openBacking(o Options) (err error) {
	if m.h.backing == "" {
		return nil
	}
	switch {
	case m.h.backingFormat == "":
		return fmt.Errorf("it does not say what format its backing file %q has: qemu-img rebase -u -F FORMAT -b %[1]q tells it", m.h.backing)
	case o.OpenBacking == nil:
		return fmt.Errorf("it has a backing file, %q", m.h.backing)
	}
	if m.backing, err = o.OpenBacking(m.h.backing, m.h.backingFormat); err != nil {
		return fmt.Errorf("backing file: %w", err)
	}
	return nil
}

// Info implements blk.Store.
func (m *Image) Info() blk.Info { return m.info }

func (m *Image) readAt(p []byte, off uint64) error {
	return m.file.ReadVec([][]byte{p}, int64(off))
}

func (m *Image) writeAt(p []byte, off uint64) error {
	return m.file.WriteVec([][]byte{p}, int64(off), false)
}

// readTable reads n big-endian 64-bit entries.
func (m *Image) readTable(off uint64, n int) ([]uint64, error) {
	b := make([]byte, 8*n)
	if n > 0 {
		if err := m.readAt(b, off); err != nil {
			return nil, err
		}
	}
	t := make([]uint64, n)
	for i := range t {
		t[i] = be.Uint64(b[8*i:])
	}
	return t, nil
}

// writeTable writes entries [lo, hi) of a table at off, in whole sectors so
// that none is read back by the host first.
func (m *Image) writeTable(off uint64, t []uint64, lo, hi int) error {
	lo, hi = lo&^63, min((hi+63)&^63, len(t))
	b := make([]byte, 8*(hi-lo))
	for i, e := range t[lo:hi] {
		be.PutUint64(b[8*i:], e)
	}
	return m.writeAt(b, off+8*uint64(lo))
}

// place says where in the tables the byte at off is found.
func (m *Image) place(off uint64) (l1, l2 int, in uint64) {
	cluster := off >> m.h.clusterBits
	return int(cluster >> m.h.l2Bits()), int(cluster & (1<<m.h.l2Bits() - 1)), off & (m.h.clusterSize() - 1)
}

// lookupCached returns an L2 table if it need not be read: nil where there is
// none, for which every entry is 0.
func (m *Image) lookupCached(l1 int) (t *table, ok bool) {
	if t = m.tables[l1]; t != nil {
		return t, true
	}
	return nil, m.l1[l1]&entryOffset == 0
}

// lookup returns an L2 table, or nil where there is none. mu is held for
// writing.
func (m *Image) lookup(l1 int) (*table, error) {
	if t, ok := m.lookupCached(l1); ok {
		return t, nil
	}
	off := m.l1[l1] & entryOffset
	if !m.h.aligned(off) {
		return nil, fmt.Errorf("L2 table at %#x: %w", off, ErrCorrupt)
	}
	entries, err := m.readTable(off, 1<<m.h.l2Bits())
	if err != nil {
		return nil, fmt.Errorf("read the L2 table at %#x: %w", off, err)
	}
	m.evict()
	t := &table{offset: off, entries: entries}
	m.tables[l1] = t
	return t, nil
}

// evict makes room for a table. Which clean one goes is left to the map.
func (m *Image) evict() {
	if len(m.tables) < maxCleanTables+m.dirty {
		return
	}
	for i, t := range m.tables {
		if !t.dirty() {
			delete(m.tables, i)
			return
		}
	}
}

// entry returns the L2 entry for the cluster that holds off. It is called with
// mu held for reading, which it gives up for a moment where the table must be
// read.
func (m *Image) entry(off uint64) (uint64, error) {
	l1, l2, _ := m.place(off)
	for {
		if t, ok := m.lookupCached(l1); ok {
			if t == nil {
				return 0, nil
			}
			return t.entries[l2], nil
		}
		m.mu.RUnlock()
		m.mu.Lock()
		_, err := m.lookup(l1)
		m.mu.Unlock()
		m.mu.RLock()
		if err != nil {
			return 0, err
		}
	}
}

// kind is what an L2 entry says about a cluster.
type kind uint8

const (
	absent     kind = iota // the backing file's
	zero                   // all zero
	data                   // at an offset of the file
	compressed             // inflate it
)

// decode takes an L2 entry apart.
func (m *Image) decode(e uint64) (k kind, off uint64, err error) {
	off = e & entryOffset
	switch {
	case e&entryCompressed != 0:
		return compressed, 0, nil
	case e&entryZero != 0 && m.h.version >= 3:
		k = zero
	case off == 0:
		return absent, 0, nil
	default:
		k = data
	}
	if !m.h.aligned(off) {
		return 0, 0, fmt.Errorf("cluster at %#x: %w", off, ErrCorrupt)
	}
	return k, off, nil
}

// Close writes what is in memory and releases the files.
func (m *Image) Close() error {
	var err error
	if !m.info.ReadOnly {
		err = m.Flush()
	}
	return errors.Join(err, m.closeFiles())
}

func (m *Image) closeFiles() error {
	err := m.file.Close()
	if m.backing != nil {
		err = errors.Join(err, m.backing.Close())
	}
	return err
}
