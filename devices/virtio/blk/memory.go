package blk

import (
	"sync"
)

// Memory is a disk in memory, for tests and for scratch disks.
type Memory struct {
	info Info
	mu   sync.RWMutex
	data []byte
}

var _ NonWaiting = (*Memory)(nil)

// NewMemory returns a disk over data, whose length must be a multiple of
// SectorSize.
func NewMemory(data []byte, readOnly bool) *Memory {
	return &Memory{data: data, info: Info{
		Size: int64(len(data)) &^ (SectorSize - 1), ReadOnly: readOnly,
		Discard: !readOnly, WriteZeroes: !readOnly, ID: "memory",
	}}
}

// Info implements Store.
func (m *Memory) Info() Info { return m.info }

// ReadVec implements Store.
func (m *Memory) ReadVec(vec [][]byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, b := range vec {
		off += int64(copy(b, m.data[off:]))
	}
	return nil
}

// ReadNow implements NonWaiting.
func (m *Memory) ReadNow(vec [][]byte, off int64) bool { return m.ReadVec(vec, off) == nil }

// WriteVec implements Store.
func (m *Memory) WriteVec(vec [][]byte, off int64, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range vec {
		off += int64(copy(m.data[off:], b))
	}
	return nil
}

// Flush implements Store.
func (m *Memory) Flush() error { return nil }

// Discard implements Store: discarded data reads as zero.
func (m *Memory) Discard(off, n int64) error { return m.WriteZeroes(off, n, true, false) }

// WriteZeroes implements Store.
func (m *Memory) WriteZeroes(off, n int64, _, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.data[off : off+n])
	return nil
}

// Close implements Store.
func (m *Memory) Close() error { return nil }
