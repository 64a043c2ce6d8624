package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// MSI is one message-signalled interrupt of the accelerator's.
type MSI interface {
	Set(addr uint64, data uint32) error // new message; takes effect for the next Fire
	Fire() error                        // deliver once
	Close() error
}

// MSI-X (PCI 3.0 §6.8.2).
const (
	capMSIX         = 0x11
	msixEntrySize   = 16
	msixMaxVectors  = 2048
	msixEnable      = 1 << 15 // message control
	msixFuncMask    = 1 << 14
	msixEntryMasked = 1 // vector control
)

// MSIX is a function's MSI-X capability, table and pending bits.
type MSIX struct {
	newMSI func() (MSI, error)

	mu       sync.Mutex
	enabled  bool
	masked   bool // all of them
	vectors  []vector
	onFailed func(error)
}

type vector struct {
	addr    uint64
	data    uint32
	control uint32
	pending bool
	msi     MSI  // from the first time it was unmasked
	current bool // msi has this message
}

// NewMSIX returns n vectors, all masked. newMSI is called for each one that
// the guest uses; failed is told when the accelerator refuses what the guest
// wants.
func NewMSIX(n int, newMSI func() (MSI, error), failed func(error)) (*MSIX, error) {
	if n < 1 || n > msixMaxVectors {
		return nil, fmt.Errorf("pci: %d MSI-X vectors: want 1 to %d", n, msixMaxVectors)
	}
	m := &MSIX{newMSI: newMSI, vectors: make([]vector, n), onFailed: failed}
	for i := range m.vectors {
		m.vectors[i].control = msixEntryMasked
	}
	return m, nil
}

// Vectors is the number of vectors.
func (m *MSIX) Vectors() int { return len(m.vectors) }

// TableSize and PBASize are the bytes that the table and the pending bits take
// in a BAR.
func (m *MSIX) TableSize() uint64 { return uint64(len(m.vectors)) * msixEntrySize }

// PBASize is the size of the pending bits.
func (m *MSIX) PBASize() uint64 { return uint64(len(m.vectors)+63) / 64 * 8 }

// Capability is the entry for the capability list, with the table and the
// pending bits at offsets of BAR number bar.
func (m *MSIX) Capability(bar int, table, pba uint32) Capability {
	le := binary.LittleEndian
	data, mask := make([]byte, 10), make([]byte, 10)
	le.PutUint16(data, uint16(len(m.vectors)-1))
	le.PutUint16(mask, msixEnable|msixFuncMask)
	le.PutUint32(data[2:], table|uint32(bar))
	le.PutUint32(data[6:], pba|uint32(bar))
	return Capability{ID: capMSIX, Data: data, Mask: mask, AfterWrite: func(data []byte, _, _ int) {
		m.setControl(le.Uint16(data))
	}}
}

// setControl takes the message control register.
func (m *MSIX) setControl(v uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.enabled, m.masked = v&msixEnable != 0, v&msixFuncMask != 0
	for i := range m.vectors {
		if !m.enabled {
			m.vectors[i].pending = false
		}
		m.settle(i)
	}
}

// Enabled says whether the guest has chosen MSI-X for its interrupts.
func (m *MSIX) Enabled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.enabled
}

// Fire delivers vector i, or notes that it is pending while it is masked. A
// vector that is not there, and all while MSI-X is off, are lost.
func (m *MSIX) Fire(i int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.enabled || i < 0 || i >= len(m.vectors) {
		return nil
	}
	if m.isMasked(i) {
		m.vectors[i].pending = true
		return nil
	}
	return m.deliver(i)
}

func (m *MSIX) isMasked(i int) bool {
	return m.masked || m.vectors[i].control&msixEntryMasked != 0
}

// deliver gives the accelerator the vector's message if it has another one,
// and fires.
func (m *MSIX) deliver(i int) error {
	if err := m.prepare(i); err != nil {
		return err
	}
	return m.vectors[i].msi.Fire()
}

func (m *MSIX) prepare(i int) (err error) {
	v := &m.vectors[i]
	if v.msi == nil {
		if v.msi, err = m.newMSI(); err != nil {
			v.msi = nil
			return fmt.Errorf("msi-x vector %d: %w", i, err)
		}
	}
	if v.current {
		return nil
	}
	if err := v.msi.Set(v.addr, v.data); err != nil {
		return fmt.Errorf("msi-x vector %d: message %#x to %#x: %w", i, v.data, v.addr, err)
	}
	v.current = true
	return nil
}

// settle is called when a vector may have been unmasked: the guest pays for
// the new message now, not the device at the next interrupt, and what is
// pending is delivered (§6.8.3.3).
func (m *MSIX) settle(i int) {
	if !m.enabled || m.isMasked(i) {
		return
	}
	err := m.prepare(i)
	if err == nil && m.vectors[i].pending {
		m.vectors[i].pending = false
		err = m.deliver(i)
	}
	if err != nil && m.onFailed != nil {
		m.onFailed(err)
	}
}

// ReadTable reads the table. Accesses are of 32 or 64 bits, aligned (§6.8.2);
// others read as ones.
func (m *MSIX) ReadTable(off uint64, p []byte) {
	if !m.accessOK(off, p, m.TableSize()) {
		ones(p)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; i < len(p); i += 4 {
		binary.LittleEndian.PutUint32(p[i:], m.load(off+uint64(i)))
	}
}

func (m *MSIX) accessOK(off uint64, p []byte, size uint64) bool {
	n := uint64(len(p))
	return (n == 4 || n == 8) && off%n == 0 && off < size && n <= size-off
}

func (m *MSIX) load(off uint64) uint32 {
	v := &m.vectors[off/msixEntrySize]
	switch off % msixEntrySize {
	case 0:
		return uint32(v.addr)
	case 4:
		return uint32(v.addr >> 32)
	case 8:
		return v.data
	}
	return v.control
}

// WriteTable writes the table.
func (m *MSIX) WriteTable(off uint64, p []byte) {
	if !m.accessOK(off, p, m.TableSize()) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; i < len(p); i += 4 {
		m.store(off+uint64(i), binary.LittleEndian.Uint32(p[i:]))
	}
	m.settle(int(off / msixEntrySize))
}

func (m *MSIX) store(off uint64, x uint32) {
	v := &m.vectors[off/msixEntrySize]
	switch off % msixEntrySize {
	case 0:
		v.addr = v.addr&^0xffffffff | uint64(x&^3) // DWORD aligned (§6.8.2.7)
	case 4:
		v.addr = v.addr&0xffffffff | uint64(x)<<32
	case 8:
		v.data = x
	case 12:
		v.control = x & msixEntryMasked
		return
	}
	v.current = false
}

// ReadPBA reads the pending bits, which cannot be written.
func (m *MSIX) ReadPBA(off uint64, p []byte) {
	if !m.accessOK(off, p, m.PBASize()) {
		ones(p)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(p)
	for i := range 8 * len(p) {
		if n := 8*off + uint64(i); n < uint64(len(m.vectors)) && m.vectors[n].pending {
			p[i/8] |= 1 << (i % 8)
		}
	}
}

// MSIXState is what a snapshot keeps of the table.
type MSIXState struct {
	Enabled, Masked bool
	Vectors         []VectorState
}

// VectorState is an entry of the table with its pending bit.
type VectorState struct {
	Addr    uint64
	Data    uint32
	Masked  bool
	Pending bool
}

// State returns the table.
func (m *MSIX) State() MSIXState {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := MSIXState{Enabled: m.enabled, Masked: m.masked}
	for _, v := range m.vectors {
		s.Vectors = append(s.Vectors, VectorState{v.addr, v.data, v.control&msixEntryMasked != 0, v.pending})
	}
	return s
}

// SetState takes a table.
func (m *MSIX) SetState(s MSIXState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(s.Vectors) != len(m.vectors) {
		return fmt.Errorf("pci: MSI-X table of %d vectors, and this has %d", len(s.Vectors), len(m.vectors))
	}
	m.enabled, m.masked = s.Enabled, s.Masked
	for i, sv := range s.Vectors {
		v := &m.vectors[i]
		v.addr, v.data, v.pending, v.control, v.current = sv.Addr&^3, sv.Data, sv.Pending, 0, false
		if sv.Masked {
			v.control = msixEntryMasked
		}
		m.settle(i)
	}
	return nil
}

// Close gives the accelerator its interrupts back.
func (m *MSIX) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs error
	m.enabled = false
	for i := range m.vectors {
		if v := &m.vectors[i]; v.msi != nil {
			errs = errors.Join(errs, v.msi.Close())
			v.msi, v.current = nil, false
		}
	}
	return errs
}
