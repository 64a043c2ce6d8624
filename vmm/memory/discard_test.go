package memory

import (
	"bytes"
	"testing"
)

func TestDiscard(t *testing.T) {
	g, err := New(4 * PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.AddAnonymous(HoleEnd, PageSize, PMEM); err != nil {
		t.Fatal(err)
	}
	full := bytes.Repeat([]byte{1}, 4*PageSize)
	if err := g.WriteAt(full, 0); err != nil {
		t.Fatal(err)
	}
	dirty := NewDirty(4 * PageSize)
	g.TrackDirty(dirty)
	if err := g.Discard(PageSize, 2*PageSize); err != nil {
		t.Fatal(err)
	}
	clear(full[PageSize : 3*PageSize])
	got := make([]byte, len(full))
	if err := g.ReadAt(got, 0); err != nil || !bytes.Equal(got, full) {
		t.Errorf("the wrong pages were discarded, %v", err)
	}
	if dirty.Count() != 2 || !dirty.Has(PageSize) || !dirty.Has(2*PageSize) {
		t.Errorf("%d pages noted as dirty, want the 2 discarded", dirty.Count())
	}
	for _, r := range []struct {
		a Addr
		n uint64
	}{{1, PageSize}, {0, 100}, {3 * PageSize, 2 * PageSize}, {HoleEnd, PageSize}, {1 << 40, PageSize}, {PageSize, 1<<64 - PageSize}} {
		if g.Discard(r.a, r.n) == nil {
			t.Errorf("discard of %#x bytes at %#x succeeded", r.n, uint64(r.a))
		}
	}
}
