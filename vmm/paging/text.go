package paging

import (
	"fmt"
	"strings"
)

// String tells the walk level by level, one line an entry:
//
//	0xffffffff81000000, 4-level paging:
//	  PML4[511] at 0x2000ff8 = 0x0000000002a11067  present writable user accessed dirty → table 0x2a11000
//	  …
//	  → 0x1000000 in a 2 MiB page
func (w *Walk) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%#x, %v:\n", w.Linear, w.Mode)
	for i := range w.Depth {
		fmt.Fprintf(&b, "  %s\n", w.Levels[i].describe(w.Mode))
	}
	switch {
	case w.Cause == Mapped:
		fmt.Fprintf(&b, "  → %#x in a %s page", uint64(w.GPA), sizeText(w.PageSize))
	case w.PageSize != 0:
		fmt.Fprintf(&b, "  → %#x in a %s page, but %v", uint64(w.GPA), sizeText(w.PageSize), w.Cause)
	default:
		fmt.Fprintf(&b, "  → no page: %v", w.Cause)
	}
	return b.String()
}

func (l *Level) describe(m Mode) string {
	at := fmt.Sprintf("%s[%d] at %#x", l.Table, l.Index, uint64(l.Addr))
	if l.Absent {
		return at + ": outside guest memory"
	}
	digits := int(l.Size) * 2
	s := fmt.Sprintf("%s = 0x%0*x  %s", at, digits, l.Entry, strings.Join(l.Bits(m), " "))
	switch {
	case l.Entry&bitPresent == 0:
	case l.Leaf:
		s += fmt.Sprintf(" → page %#x", uint64(l.page(m)))
	default:
		s += fmt.Sprintf(" → table %#x", l.Entry&addrMask)
	}
	return s
}

// Bits names the bits that are set in the entry.
func (l *Level) Bits(m Mode) []string {
	if l.Entry&bitPresent == 0 {
		return []string{"not-present"}
	}
	names := []struct {
		bit  uint64
		name string
	}{
		{bitPresent, "present"}, {bitWrite, "writable"}, {bitUser, "user"}, {bitPWT, "write-through"},
		{bitPCD, "cache-disabled"}, {bitAccessed, "accessed"}, {bitDirty, "dirty"}, {bitLarge, "large"},
		{bitGlobal, "global"}, {bitXD, "execute-disabled"},
	}
	var set []string
	for _, n := range names {
		switch {
		case l.Entry&n.bit == 0:
		case n.bit == bitDirty && !l.Leaf, n.bit == bitGlobal && !l.Leaf:
			// Ignored where the entry maps no page.
		case n.bit == bitLarge && l.Shift == 12:
			set = append(set, "PAT") // bit 7 of a page-table entry
		default:
			set = append(set, n.name)
		}
	}
	if !l.Leaf && m != Legacy && l.Shift == 30 && m == PAE {
		return set[:1]
	}
	return set
}

func sizeText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
