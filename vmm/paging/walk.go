package paging

import (
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Bits of entries, the same in all modes (SDM vol. 3, tables 4-4 to 4-20).
const (
	bitPresent  = 1 << 0
	bitWrite    = 1 << 1
	bitUser     = 1 << 2
	bitPWT      = 1 << 3
	bitPCD      = 1 << 4
	bitAccessed = 1 << 5
	bitDirty    = 1 << 6
	bitLarge    = 1 << 7
	bitGlobal   = 1 << 8
	bitXD       = 1 << 63

	addrMask = 0x000f_ffff_ffff_f000
)

// step is one level of a paging mode.
type step struct {
	table string
	shift uint8 // of the index in the linear address
	bits  uint8 // of the index
}

var steps = [...][]step{
	None:   nil,
	Legacy: {{"PD", 22, 10}, {"PT", 12, 10}},
	PAE:    {{"PDPT", 30, 2}, {"PD", 21, 9}, {"PT", 12, 9}},
	Level4: {{"PML4", 39, 9}, {"PDPT", 30, 9}, {"PD", 21, 9}, {"PT", 12, 9}},
	Level5: {{"PML5", 48, 9}, {"PML4", 39, 9}, {"PDPT", 30, 9}, {"PD", 21, 9}, {"PT", 12, 9}},
}

func (c *CPU) walk(g *memory.Guest, linear uint64, a Access, w *Walk) {
	*w = Walk{Linear: linear, Access: a, Mode: c.Mode(), User: true, Writable: true, Executable: true}
	switch {
	case w.Mode == None:
		w.GPA, w.PageSize = memory.Addr(uint32(linear)), memory.PageSize
		return
	case !c.Canonical(linear):
		w.Cause = NonCanonical
		return
	case w.Mode == Legacy || w.Mode == PAE:
		linear = uint64(uint32(linear))
	}
	if !c.descend(g, linear, w) {
		return
	}
	w.Cause = c.denied(w)
	if w.Cause != Mapped {
		w.Code = x86.PFPresent | c.accessCode(a)
	}
}

// descend reads entries until one maps a page. It returns false if none does.
func (c *CPU) descend(g *memory.Guest, linear uint64, w *Walk) bool {
	table := c.root(w.Mode)
	for _, s := range steps[w.Mode] {
		l := &w.Levels[w.Depth]
		w.Depth++
		*l = Level{Table: s.table, Shift: s.shift, Size: 8, Index: uint16(linear >> s.shift & (1<<s.bits - 1))}
		if w.Mode == Legacy {
			l.Size = 4
		}
		l.Addr = table + memory.Addr(uint64(l.Index)*uint64(l.Size))
		l.read(g)
		switch {
		case l.Absent:
			w.fail(Outside, x86.PFPresent|x86.PFRsvd|c.accessCode(w.Access))
			return false
		case l.Entry&bitPresent == 0:
			w.fail(NotPresent, c.accessCode(w.Access))
			return false
		}
		l.Leaf = s.shift == 12 || l.Entry&bitLarge != 0 && c.largeAllowed(w.Mode, s.shift)
		if l.Entry&c.reserved(w.Mode, l) != 0 {
			w.fail(Reserved, x86.PFPresent|x86.PFRsvd|c.accessCode(w.Access))
			return false
		}
		if w.Mode != PAE || s.shift != 30 { // a PDPTE of PAE has no rights
			w.User = w.User && l.Entry&bitUser != 0
			w.Writable = w.Writable && l.Entry&bitWrite != 0
			w.Executable = w.Executable && (w.Mode == Legacy || l.Entry&bitXD == 0)
		}
		if l.Leaf {
			w.PageSize = 1 << s.shift
			w.GPA = l.page(w.Mode) | memory.Addr(linear&(w.PageSize-1))
			return true
		}
		table = memory.Addr(l.Entry & addrMask)
		if w.Mode == Legacy {
			table = memory.Addr(l.Entry & 0xffff_f000)
		}
	}
	return false // unreachable: the last step is a leaf
}

func (w *Walk) fail(cause Cause, code uint32) { w.Cause, w.Code = cause, code }

// root is where CR3 says that the first table lies (SDM vol. 3, tables 4-3,
// 4-7 and 4-12).
func (c *CPU) root(m Mode) memory.Addr {
	switch m {
	case Legacy:
		return memory.Addr(c.CR3 & 0xffff_f000)
	case PAE:
		return memory.Addr(c.CR3 & 0xffff_ffe0)
	}
	return memory.Addr(c.CR3 & addrMask)
}

func (l *Level) read(g *memory.Guest) {
	var err error
	if l.Size == 4 {
		var v uint32
		v, err = g.LoadUint32(l.Addr)
		l.Entry = uint64(v)
	} else {
		l.Entry, err = g.LoadUint64(l.Addr)
	}
	if err != nil {
		l.Absent, l.Entry = true, ^uint64(0)
	}
}

// largeAllowed says whether bit 7 of an entry at this level selects a page
// instead of a table.
func (c *CPU) largeAllowed(m Mode, shift uint8) bool {
	switch m {
	case Legacy:
		return c.CR4&x86.CR4PSE != 0
	case PAE:
		return shift == 21
	}
	return shift == 21 || shift == 30
}

// reserved is the bits that must be zero in a present entry.
func (c *CPU) reserved(m Mode, l *Level) uint64 {
	maxPhys := uint(c.MaxPhys)
	if maxPhys == 0 || maxPhys > 52 {
		maxPhys = 52
	}
	if m == Legacy {
		if l.Leaf && l.Shift == 22 {
			// PSE-36: bits 20-13 are address bits 39-32, bit 21 is none.
			high := uint64(0xff) << 13
			if maxPhys < 40 {
				high &= 1<<(13+max(maxPhys, 32)-32) - 1
			}
			return 0x3f_e000 &^ high
		}
		return 0
	}
	r := uint64(addrMask) &^ (1<<maxPhys - 1)
	if c.EFER&x86.EFERNXE == 0 {
		r |= bitXD
	}
	switch {
	case m == PAE && l.Shift == 30:
		return r | bitXD | 0x7ff0_0000_0000_0000 | 0x1e6
	case m == PAE:
		r |= 0x7ff0_0000_0000_0000
	case l.Shift >= 39:
		r |= bitLarge
	}
	if l.Leaf && l.Shift > 12 {
		r |= (1<<l.Shift - 1) &^ 0x1fff // bit 12 is PAT
	}
	return r
}

// page is the physical address that a leaf maps.
func (l *Level) page(m Mode) memory.Addr {
	size := uint64(1) << l.Shift
	if m == Legacy {
		a := l.Entry & 0xffff_ffff &^ (size - 1)
		if l.Shift == 22 {
			a |= (l.Entry >> 13 & 0xff) << 32
		}
		return memory.Addr(a)
	}
	return memory.Addr(l.Entry & addrMask &^ (size - 1))
}

// userAccess says whether the access counts as one from CPL 3.
func (c *CPU) userAccess(a Access) bool { return c.CPL == 3 && a&Implicit == 0 }

// accessCode is the part of a page fault's error code that says what was done
// (SDM vol. 3, 4.7).
func (c *CPU) accessCode(a Access) uint32 {
	var code uint32
	if a&Write != 0 {
		code |= x86.PFWrite
	}
	if c.userAccess(a) {
		code |= x86.PFUser
	}
	nx := c.CR4&x86.CR4PAE != 0 && c.EFER&x86.EFERNXE != 0
	if a&Fetch != 0 && (nx || c.CR4&x86.CR4SMEP != 0) {
		code |= x86.PFFetch
	}
	return code
}

// denied checks the rights of a page that was found (SDM vol. 3, 4.6.1).
// Protection keys are not looked at: their registers are not part of the state
// that a completion has.
func (c *CPU) denied(w *Walk) Cause {
	write, fetch := w.Access&Write != 0, w.Access&Fetch != 0
	if c.userAccess(w.Access) {
		switch {
		case !w.User:
			return NotUser
		case write && !w.Writable:
			return NotWritable
		case fetch && !w.Executable:
			return NotExecutable
		}
		return Mapped
	}
	switch {
	case write && !w.Writable && c.CR0&x86.CR0WP != 0:
		return NotWritable
	case fetch && !w.Executable:
		return NotExecutable
	case fetch && w.User && c.CR4&x86.CR4SMEP != 0:
		return SMEP
	case !fetch && w.User && c.CR4&x86.CR4SMAP != 0 && (w.Access&Implicit != 0 || c.RFLAGS&x86.FlagAC == 0):
		return SMAP
	}
	return Mapped
}

// mark sets the accessed bits of the entries used and the dirty bit of the
// leaf that was written through. It returns false if an entry has changed
// since it was read. An entry in read-only memory stays as it is, as in a ROM.
func (w *Walk) mark(g *memory.Guest) bool {
	for i := range w.Depth {
		l := &w.Levels[i]
		if w.Mode == PAE && l.Shift == 30 {
			continue // no accessed bit
		}
		set := uint64(bitAccessed)
		if l.Leaf && w.Access&Write != 0 {
			set |= bitDirty
		}
		if l.Entry&set == set {
			continue
		}
		if !l.set(g, set) {
			return false
		}
	}
	return true
}

// set sets bits in the entry, if it is still what was read.
func (l *Level) set(g *memory.Guest, bits uint64) bool {
	if l.Size == 8 {
		ok, err := g.CompareAndSwapUint64(l.Addr, l.Entry, l.Entry|bits)
		return ok || err != nil
	}
	// A 4-byte entry, by way of the aligned eight bytes around it.
	at := l.Addr &^ 7
	shift := uint(l.Addr&4) * 8
	old, err := g.LoadUint64(at)
	if err != nil {
		return true
	}
	if uint32(old>>shift) != uint32(l.Entry) {
		return false
	}
	ok, err := g.CompareAndSwapUint64(at, old, old|bits<<shift)
	return ok || err != nil
}
