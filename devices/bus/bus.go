// Package bus maps address ranges to devices: one Bus for port I/O, one for
// MMIO.
package bus

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Device is a device as the CPU sees it: registers at offsets from where it is
// mapped. len(p) is the width of the access: 1, 2, 4 or 8 bytes. There is no
// error: a guest's access cannot fail for the VMM, so a register that does not
// exist reads as the device's data sheet says, else as all ones.
type Device interface {
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
}

// Range is the addresses [Base, Base+Size), with a name for messages.
type Range struct {
	Base, Size uint64
	Name       string
}

func (r Range) String() string { return fmt.Sprintf("%s at %#x-%#x", r.Name, r.Base, r.Base+r.Size-1) }

func (r Range) contains(a uint64) bool { return a-r.Base < r.Size }

func (r Range) overlaps(o Range) bool { return r.Base-o.Base < o.Size || o.Base-r.Base < r.Size }

type mapping struct {
	Range
	dev Device
}

// Bus dispatches accesses. Lookups take no lock; Map and Unmap may be called
// while vCPUs run (a PCI BAR that moves).
type Bus struct {
	mu   sync.Mutex
	maps atomic.Pointer[[]mapping] // sorted by Base, disjoint
}

// New returns an empty bus.
func New() *Bus {
	b := new(Bus)
	b.maps.Store(new([]mapping))
	return b
}

// Map places d at r. An overlap is an error that names both ranges.
func (b *Bus) Map(r Range, d Device) error {
	if r.Size == 0 || r.Base+r.Size-1 < r.Base {
		return fmt.Errorf("bus: map %s: empty or wrapping range", r.Name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.maps.Load()
	for _, m := range old {
		if m.overlaps(r) {
			return fmt.Errorf("bus: map %v: overlaps %v", r, m.Range)
		}
	}
	maps := append(slices.Clone(old), mapping{r, d})
	slices.SortFunc(maps, func(x, y mapping) int { return cmp.Compare(x.Base, y.Base) })
	b.maps.Store(&maps)
	return nil
}

// Unmap removes the mapping that starts at base and says whether there was one.
func (b *Bus) Unmap(base uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.maps.Load()
	i := slices.IndexFunc(old, func(m mapping) bool { return m.Base == base })
	if i < 0 {
		return false
	}
	maps := slices.Delete(slices.Clone(old), i, i+1)
	b.maps.Store(&maps)
	return true
}

// Ranges lists what is mapped, in the order of addresses.
func (b *Bus) Ranges() []Range {
	var rs []Range
	for _, m := range *b.maps.Load() {
		rs = append(rs, m.Range)
	}
	return rs
}

// Lookup returns the device that claims a and the offset of a in its range.
func (b *Bus) Lookup(a uint64) (d Device, off uint64, r Range, ok bool) {
	if m := b.find(a); m != nil {
		return m.dev, a - m.Base, m.Range, true
	}
	return nil, 0, Range{}, false
}

func (b *Bus) find(a uint64) *mapping {
	maps := *b.maps.Load()
	lo, hi := 0, len(maps)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if maps[mid].Base <= a {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 || !maps[lo-1].contains(a) {
		return nil
	}
	return &maps[lo-1]
}

// Read fills p with what the device at a answers. What nobody claims, and the
// part of an access that passes its device's end, reads as all ones: a bus
// without a driver floats high.
func (b *Bus) Read(a uint64, p []byte) {
	m := b.find(a)
	if m == nil || uint64(len(p)) > m.Size-(a-m.Base) {
		for i := range p {
			p[i] = 0xff
		}
		return
	}
	m.dev.Read(a-m.Base, p)
}

// Write hands p to the device at a. Nobody there: it is lost.
func (b *Bus) Write(a uint64, p []byte) {
	m := b.find(a)
	if m == nil || uint64(len(p)) > m.Size-(a-m.Base) {
		return
	}
	m.dev.Write(a-m.Base, p)
}
