package memory

import "sync/atomic"

// Dirty is a set of guest pages, one bit a page. Pages beyond its size are
// ignored. Mark may be called from any goroutine.
type Dirty struct {
	words []atomic.Uint64
}

// NewDirty returns an empty set for the pages below end.
func NewDirty(end Addr) *Dirty {
	pages := (uint64(end) + PageSize - 1) / PageSize
	return &Dirty{words: make([]atomic.Uint64, (pages+63)/64)}
}

// Mark adds the pages that the n bytes at a touch.
func (d *Dirty) Mark(a Addr, n uint64) {
	if n == 0 {
		return
	}
	first, last := uint64(a)/PageSize, (uint64(a)+n-1)/PageSize
	last = min(last, uint64(len(d.words))*64-1)
	for p := first; p <= last; p++ {
		if w, bit := &d.words[p/64], uint64(1)<<(p%64); w.Load()&bit == 0 {
			w.Or(bit)
		}
	}
}

// Has says whether the page that holds a is in the set.
func (d *Dirty) Has(a Addr) bool {
	p := uint64(a) / PageSize
	return p/64 < uint64(len(d.words)) && d.words[p/64].Load()&(1<<(p%64)) != 0
}

// Count is the number of pages in the set.
func (d *Dirty) Count() int {
	n := 0
	for i := range d.words {
		for w := d.words[i].Load(); w != 0; w &= w - 1 {
			n++
		}
	}
	return n
}

// Merge adds the pages of o.
func (d *Dirty) Merge(o *Dirty) {
	for i := range min(len(d.words), len(o.words)) {
		if w := o.words[i].Load(); w != 0 {
			d.words[i].Or(w)
		}
	}
}
