// Package memory is guest physical memory: where it lies, and bounded access
// to it.
//
// Everything that a guest hands to the VMM as an address goes through a Guest,
// which either returns a slice that ends where the access ends or a
// *RangeError. A slice aliases memory that the guest's CPUs change at any
// moment: read a value once, check the copy, use the copy.
package memory

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Addr is a guest physical address.
type Addr uint64

// PageSize is the size of a guest page: the granule of mapping and of dirty
// tracking.
const PageSize = 4096

// HoleStart and HoleEnd bound the addresses below 4 GiB that never hold RAM:
// MMIO windows, the I/O APIC, the local APICs and the firmware's place.
const (
	HoleStart Addr = 0xc000_0000
	HoleEnd   Addr = 0x1_0000_0000
)

// RangeError reports an access outside guest memory.
type RangeError struct {
	Addr Addr
	Len  uint64
}

func (e *RangeError) Error() string {
	return fmt.Sprintf("guest memory: no %d bytes at %#x", e.Len, uint64(e.Addr))
}

// Kind says what a region is for; E820 and snapshots treat them differently.
type Kind uint8

// Kinds of region.
const (
	RAM  Kind = iota // ordinary memory
	PRAM             // E820 type 12: a persistent-memory image that the VMM supplies
	PMEM             // the window of a virtio-pmem device: not in the E820 map
)

// Region is a contiguous piece of guest physical memory.
type Region struct {
	Base     Addr
	Bytes    []byte // page-aligned host memory; its length is a multiple of PageSize
	Kind     Kind
	ReadOnly bool   // the guest must not write (a read-only KVM memory slot)
	File     string // the file that backs it, if one does; for listing only
	unmap    func() error
}

// End is the first address past the region.
func (r *Region) End() Addr { return r.Base + Addr(len(r.Bytes)) }

// Guest is the memory of one guest. Its methods may be called from any
// goroutine; regions are only added before the guest first runs.
type Guest struct {
	mu      sync.Mutex
	regions atomic.Pointer[[]Region] // sorted by Base, disjoint
	dirty   atomic.Pointer[Dirty]
	written atomic.Pointer[func(a Addr, n uint64)]
}

// New returns size bytes of zeroed RAM from address 0, with the part that does
// not fit below HoleStart placed from HoleEnd on. size must be a positive
// multiple of PageSize. Host pages are allocated when first touched.
func New(size uint64) (*Guest, error) {
	if size == 0 || size%PageSize != 0 {
		return nil, fmt.Errorf("guest memory: size %d is not a positive multiple of %d", size, PageSize)
	}
	g := NewEmpty()
	low := min(size, uint64(HoleStart))
	if err := g.AddAnonymous(0, low, RAM); err != nil {
		return nil, err
	}
	if size > low {
		if err := g.AddAnonymous(HoleEnd, size-low, RAM); err != nil {
			g.Close()
			return nil, err
		}
	}
	return g, nil
}

// NewEmpty returns a guest without memory, for callers that place every region
// themselves (a restore).
func NewEmpty() *Guest {
	g := new(Guest)
	g.regions.Store(new([]Region))
	return g
}

// AddAnonymous adds size bytes of zeroed memory at base.
func (g *Guest) AddAnonymous(base Addr, size uint64, kind Kind) error {
	b, unmap, err := mapAnonymous(size)
	if err != nil {
		return fmt.Errorf("guest memory: map %d bytes: %w", size, err)
	}
	return g.add(Region{Base: base, Bytes: b, Kind: kind, unmap: unmap})
}

// AddRegion adds memory that the caller owns; r.Bytes must be page-aligned and
// stay valid until Close, which does not release it.
func (g *Guest) AddRegion(r Region) error {
	r.unmap = nil
	return g.add(r)
}

func (g *Guest) add(r Region) error {
	err := g.insert(r)
	if err != nil && r.unmap != nil {
		_ = r.unmap()
	}
	return err
}

func (g *Guest) insert(r Region) error {
	if len(r.Bytes) == 0 || len(r.Bytes)%PageSize != 0 || r.Base%PageSize != 0 || r.End() < r.Base {
		return fmt.Errorf("guest memory: region at %#x of %d bytes is not page-aligned", uint64(r.Base), len(r.Bytes))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	old := *g.regions.Load()
	for i := range old {
		if r.Base < old[i].End() && old[i].Base < r.End() {
			return fmt.Errorf("guest memory: region %#x-%#x overlaps %#x-%#x",
				uint64(r.Base), uint64(r.End()), uint64(old[i].Base), uint64(old[i].End()))
		}
	}
	rs := append(slices.Clone(old), r)
	slices.SortFunc(rs, func(a, b Region) int {
		if a.Base < b.Base {
			return -1
		}
		return 1
	})
	g.regions.Store(&rs)
	return nil
}

// Regions returns the regions in the order of their addresses. The slice is
// not to be changed.
func (g *Guest) Regions() []Region { return *g.regions.Load() }

// Size is the number of bytes of RAM.
func (g *Guest) Size() uint64 {
	var n uint64
	for _, r := range g.Regions() {
		if r.Kind == RAM {
			n += uint64(len(r.Bytes))
		}
	}
	return n
}

// Bytes returns the n bytes at a for reading. The slice's capacity is its
// length. An access that is not wholly inside one region is a *RangeError.
func (g *Guest) Bytes(a Addr, n uint64) ([]byte, error) {
	b, _, ok := g.find(a, n)
	if !ok {
		return nil, &RangeError{a, n}
	}
	return b, nil
}

// WritableBytes returns the n bytes at a for writing, and notes the pages as
// dirty where somebody tracks them. Read-only regions are refused.
func (g *Guest) WritableBytes(a Addr, n uint64) ([]byte, error) {
	b, readOnly, ok := g.find(a, n)
	if !ok || readOnly {
		return nil, &RangeError{a, n}
	}
	g.noteWrite(a, n)
	return b, nil
}

func (g *Guest) find(a Addr, n uint64) (b []byte, readOnly, ok bool) {
	rs := *g.regions.Load()
	for i := range rs {
		r := &rs[i]
		if a < r.Base {
			break
		}
		// off is compared with the room left, never off+n with the end:
		// the sum could wrap.
		off, size := uint64(a-r.Base), uint64(len(r.Bytes))
		if off < size {
			if n > size-off {
				return nil, false, false
			}
			return r.Bytes[off : off+n : off+n], r.ReadOnly, true
		}
	}
	return nil, false, false
}

// noteWrite tells whoever tracks writes that the VMM is about to write.
func (g *Guest) noteWrite(a Addr, n uint64) {
	if d := g.dirty.Load(); d != nil {
		d.Mark(a, n)
	}
	if f := g.written.Load(); f != nil {
		(*f)(a, n)
	}
}

// OnWrite has f called before the VMM writes to guest memory on behalf of a
// device or a debugger (not for the guest's own stores). A software CPU drops
// its decoded instructions there. nil ends it.
func (g *Guest) OnWrite(f func(a Addr, n uint64)) {
	if f == nil {
		g.written.Store(nil)
		return
	}
	g.written.Store(&f)
}

// TrackDirty starts (or, with nil, ends) noting the VMM's own writes in d.
func (g *Guest) TrackDirty(d *Dirty) { g.dirty.Store(d) }

// ReadAt copies len(p) bytes from a to p.
func (g *Guest) ReadAt(p []byte, a Addr) error {
	b, err := g.Bytes(a, uint64(len(p)))
	if err != nil {
		return err
	}
	copy(p, b)
	return nil
}

// WriteAt copies p to a.
func (g *Guest) WriteAt(p []byte, a Addr) error {
	b, err := g.WritableBytes(a, uint64(len(p)))
	if err != nil {
		return err
	}
	copy(b, p)
	return nil
}

// Close releases the memory. No slice of it may be used any more.
func (g *Guest) Close() error {
	var first error
	for _, r := range *g.regions.Swap(new([]Region)) {
		if r.unmap != nil {
			if err := r.unmap(); err != nil && first == nil {
				first = fmt.Errorf("guest memory: unmap %#x: %w", uint64(r.Base), err)
			}
		}
	}
	return first
}
