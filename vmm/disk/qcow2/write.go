package qcow2

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// WriteVec implements blk.Store.
func (m *Image) WriteVec(vec [][]byte, off int64, durable bool) error {
	c := cursor{vec: vec}
	at := uint64(off)
	for n := c.len(); n > 0; {
		piece, err := m.writePiece(&c, at, n)
		if err != nil {
			return err
		}
		at, n = at+piece, n-piece
	}
	if durable {
		return m.Flush()
	}
	return nil
}

// writePiece writes up to the end of a cluster.
func (m *Image) writePiece(c *cursor, at, n uint64) (uint64, error) {
	_, _, in := m.place(at)
	piece := min(n, m.h.clusterSize()-in)
	done, err := m.overwrite(c, at, piece)
	if done || err != nil {
		return piece, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return piece, m.writeNew(c.take(piece), at, piece)
}

// overwrite writes to a cluster that is ours already, if it is.
func (m *Image) overwrite(c *cursor, at, n uint64) (done bool, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, err := m.entry(at)
	if err != nil {
		return false, err
	}
	k, off, err := m.decode(e)
	if err != nil || k != data || e&entryCopied == 0 {
		return false, err
	}
	_, _, in := m.place(at)
	return true, m.file.WriteVec(c.take(n), int64(off+in), false)
}

// writeNew puts n bytes at a place that has no cluster of its own, together
// with what the rest of that cluster read as. mu is held for writing.
func (m *Image) writeNew(vec [][]byte, at, n uint64) error {
	t, l2, err := m.tableFor(at)
	if err != nil {
		return err
	}
	k, off, err := m.decode(t.entries[l2])
	if err != nil {
		return err
	}
	_, _, in := m.place(at)
	if k == data && t.entries[l2]&entryCopied != 0 {
		// Another request was faster.
		return m.file.WriteVec(vec, int64(off+in), false)
	}
	whole, err := m.merge(vec, at, n, t.entries[l2])
	if err != nil {
		return err
	}
	place, err := m.refs.alloc()
	if err != nil {
		return err
	}
	if err := m.file.WriteVec(whole, int64(place), false); err != nil {
		m.refs.undo(place)
		return err
	}
	m.replace(t, l2, place|entryCopied)
	return m.relieve()
}

// merge returns the whole cluster that holds at, with vec in its place.
func (m *Image) merge(vec [][]byte, at, n, e uint64) ([][]byte, error) {
	cs := m.h.clusterSize()
	_, _, in := m.place(at)
	if n == cs {
		return vec, nil
	}
	base := at - in
	before, after := make([]byte, in), make([]byte, cs-in-n)
	for _, p := range []struct {
		b  []byte
		at uint64
	}{{before, base}, {after, at + n}} {
		if err := m.readOld(p.b, p.at, e); err != nil {
			return nil, err
		}
	}
	whole := append([][]byte{before}, vec...)
	return append(whole, after), nil
}

// readOld reads a part of one cluster whose entry is e. mu is held.
func (m *Image) readOld(p []byte, at, e uint64) error {
	if len(p) == 0 {
		return nil
	}
	k, off, err := m.decode(e)
	if err != nil {
		return err
	}
	_, _, in := m.place(at)
	switch k {
	case zero:
		return nil // p is new
	case absent:
		return m.readBacking([][]byte{p}, at, uint64(len(p)))
	case compressed:
		b, err := m.inflate(e)
		if err != nil {
			return err
		}
		copy(p, b[in:])
		return nil
	}
	return m.readAt(p, off+in)
}

// tableFor returns the L2 table that covers at, for changing it: a new one
// where there is none, a copy where the present one is shared.
func (m *Image) tableFor(at uint64) (*table, int, error) {
	l1, l2, _ := m.place(at)
	t, err := m.lookup(l1)
	if err != nil {
		return nil, 0, err
	}
	if t != nil && m.l1[l1]&entryCopied != 0 {
		return t, l2, nil
	}
	place, err := m.refs.alloc()
	if err != nil {
		return nil, 0, err
	}
	n := &table{offset: place, entries: make([]uint64, 1<<m.h.l2Bits())}
	if t != nil {
		copy(n.entries, t.entries)
		m.refs.release(t.offset)
		if t.dirty() {
			m.dirty--
		}
	}
	n.lo, n.hi = 0, len(n.entries)
	m.dirty++
	m.evict()
	m.tables[l1] = n
	m.setL1(l1, place|entryCopied)
	return n, l2, nil
}

func (m *Image) setL1(i int, e uint64) {
	if m.l1Lo >= m.l1Hi {
		m.l1Lo, m.l1Hi = i, i+1
	}
	m.l1[i], m.l1Lo, m.l1Hi = e, min(m.l1Lo, i), max(m.l1Hi, i+1)
}

// replace sets an L2 entry and releases what the old one referred to.
func (m *Image) replace(t *table, l2 int, e uint64) {
	old := t.entries[l2]
	if old == e {
		return
	}
	if !t.dirty() {
		m.dirty++
	}
	t.set(l2, e)
	if old&entryCompressed != 0 {
		off, n := m.compressedRange(old)
		first := off &^ (m.h.clusterSize() - 1)
		for c := first; c < off+n; c += m.h.clusterSize() {
			m.refs.release(c)
		}
		return
	}
	if off := old & entryOffset; off != 0 && off != e&entryOffset {
		m.refs.release(off)
	}
}

// relieve flushes when much has changed, so that memory stays bounded.
func (m *Image) relieve() error {
	if m.dirty < maxDirtyTables && len(m.refs.freed) < 1<<16 {
		return nil
	}
	return m.flush()
}

// Flush implements blk.Store: data and the tables that lead to it.
func (m *Image) Flush() error {
	if m.info.ReadOnly {
		return nil
	}
	m.mu.RLock()
	clean := m.clean()
	if clean {
		defer m.mu.RUnlock()
		return m.file.Flush()
	}
	m.mu.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flush()
}

func (m *Image) clean() bool {
	if m.dirty > 0 || m.l1Lo < m.l1Hi || m.refs.lo < m.refs.hi || len(m.refs.freed) > 0 {
		return false
	}
	for _, b := range m.refs.blocks {
		if b.lo < b.hi {
			return false
		}
	}
	return true
}

// flush writes the metadata, each step durable before the next that relies on
// it: counts (and the data, which is written already), the table of counts,
// the L2 tables, the L1 table, and at last the counts of what is free. mu is
// held for writing.
func (m *Image) flush() error {
	if err := m.refs.flushBlocks(); err != nil {
		return err
	}
	if err := m.file.Flush(); err != nil {
		return err
	}
	changed, err := m.refs.flushTable()
	if err != nil {
		return err
	}
	if changed {
		if err := m.file.Flush(); err != nil {
			return err
		}
	}
	if err := m.flushTables(); err != nil {
		return err
	}
	if err := m.refs.settle(); err != nil {
		return err
	}
	return m.refs.flushBlocks()
}

// flushTables writes the L2 tables, then the L1 table, and ends durable.
func (m *Image) flushTables() error {
	for _, t := range m.tables {
		if !t.dirty() {
			continue
		}
		if err := m.writeTable(t.offset, t.entries, t.lo, t.hi); err != nil {
			return fmt.Errorf("write an L2 table: %w", err)
		}
		t.lo, t.hi = 0, 0
		m.dirty--
	}
	if err := m.file.Flush(); err != nil {
		return err
	}
	if m.l1Lo >= m.l1Hi {
		return nil
	}
	if err := m.writeTable(m.h.l1Offset, m.l1, m.l1Lo, m.l1Hi); err != nil {
		return fmt.Errorf("write the L1 table: %w", err)
	}
	m.l1Lo, m.l1Hi = 0, 0
	return m.file.Flush()
}

// Discard implements blk.Store: whole clusters are given up, parts of clusters
// are punched out of the file. With a backing file whole clusters read as zero
// afterwards, so that its old data does not come back.
func (m *Image) Discard(off, n int64) error {
	for n > 0 {
		piece := m.upToCluster(off, n)
		if err := m.discardPiece(uint64(off), uint64(piece)); err != nil {
			return err
		}
		off, n = off+piece, n-piece
	}
	return nil
}

// upToCluster is how many of n bytes at off lie in the same cluster.
func (m *Image) upToCluster(off, n int64) int64 {
	cs := int64(m.h.clusterSize())
	return min(n, cs-off%cs)
}

// whole says whether n bytes at off are a cluster, of which the image's last may
// be a part of one.
func (m *Image) whole(off, n uint64) bool {
	cs := m.h.clusterSize()
	return n == cs || off%cs == 0 && off+n == uint64(m.info.Size)
}

func (m *Image) discardPiece(off, n uint64) error {
	e := uint64(0)
	if m.backing != nil {
		e = entryZero // which version 2 has no way to say
	}
	if !m.whole(off, n) || e != 0 && m.h.version < 3 {
		_, err := m.inPlace(off, func(at int64) error { return m.file.Discard(at, int64(n)) })
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.setEmpty(off, e); err != nil {
		return err
	}
	return m.relieve()
}

// inPlace calls f with the place in the file of the byte at off, if it lies in a
// cluster that is ours. If not, it says whether the byte reads as zero.
func (m *Image) inPlace(off uint64, f func(at int64) error) (done bool, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, err := m.entry(off)
	if err != nil {
		return false, err
	}
	k, cluster, err := m.decode(e)
	switch {
	case err != nil:
		return false, err
	case k == data && e&entryCopied != 0:
		_, _, in := m.place(off)
		return true, f(int64(cluster + in))
	}
	return k == zero || k == absent && m.backing == nil, nil
}

// setEmpty gives the cluster at a place the entry e, which refers to nothing.
// mu is held for writing.
func (m *Image) setEmpty(at, e uint64) error {
	l1, l2, _ := m.place(at)
	t, err := m.lookup(l1)
	if err != nil {
		return err
	}
	if t == nil && e == 0 || t != nil && t.entries[l2] == e {
		return nil
	}
	if t, l2, err = m.tableFor(at); err != nil {
		return err
	}
	m.replace(t, l2, e)
	return nil
}

// WriteZeroes implements blk.Store. Whole clusters become entries that say
// zero; of others a part is zeroed where it lies, or written if it lies nowhere.
func (m *Image) WriteZeroes(off, n int64, unmap, durable bool) error {
	for n > 0 {
		piece := m.upToCluster(off, n)
		if err := m.zeroPiece(uint64(off), uint64(piece), unmap); err != nil {
			return err
		}
		off, n = off+piece, n-piece
	}
	if durable {
		return m.Flush()
	}
	return nil
}

func (m *Image) zeroPiece(off, n uint64, unmap bool) error {
	if !m.whole(off, n) || m.h.version < 3 && m.backing != nil {
		done, err := m.inPlace(off, func(at int64) error { return m.file.WriteZeroes(at, int64(n), unmap, false) })
		if done || err != nil {
			return err
		}
		return m.WriteVec([][]byte{make([]byte, n)}, int64(off), false)
	}
	e := uint64(entryZero)
	if m.backing == nil {
		e = 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.setEmpty(off, e); err != nil {
		return err
	}
	return m.relieve()
}

var _ blk.Store = (*Image)(nil)
