// Package paging walks a guest's page tables as the processor does (SDM vol. 3,
// chapter 4): without paging, with 32-bit, PAE, 4-level and 5-level tables and
// all page sizes, with every access right that a page fault can be about.
//
// Translate is for completions, which access memory on the guest's behalf: it
// sets accessed and dirty bits and yields the error code of the page fault
// that the guest must get. Walk is for people: it changes nothing and keeps
// every entry it read.
//
// Tables are the guest's and may say anything. A walk reads at most five
// entries; one that lies outside guest memory is a fault of the guest's, as it
// would be on a board where nothing answers at that address.
package paging

import (
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Mode is how linear addresses become physical ones.
type Mode uint8

// Paging modes (SDM vol. 3, 4.1.1).
const (
	None   Mode = iota // paging is off: linear addresses are physical, 32 bits
	Legacy             // 32-bit paging: two levels of 4-byte entries
	PAE                // three levels of 8-byte entries, the first with four
	Level4             // IA-32e, four levels
	Level5             // IA-32e with CR4.LA57, five levels
)

var modeNames = [...]string{"no paging", "32-bit paging", "PAE paging", "4-level paging", "5-level paging"}

func (m Mode) String() string { return modeNames[m] }

// Access is what is done at an address.
type Access uint8

// Kinds of access. Read is the absence of the others.
const (
	Read  Access = 0
	Write Access = 1
	Fetch Access = 2 // of an instruction
	// Implicit is an access by the processor itself, to a descriptor table
	// or a task-state segment: a supervisor's whatever the privilege level,
	// and never excused from SMAP (SDM vol. 3, 4.6).
	Implicit Access = 4
)

// CPU is the part of a processor's state that a translation depends on.
type CPU struct {
	CR0, CR3, CR4, EFER uint64
	RFLAGS              uint64
	CPL                 uint8
	// MaxPhys is the number of physical address bits (CPUID 0x80000008);
	// bits above are reserved in entries. 0 means 52, the architecture's limit.
	MaxPhys uint8
}

// Of takes the state from a processor's registers.
func Of(r *x86.Regs, s *x86.Sregs) CPU {
	return CPU{CR0: s.CR0, CR3: s.CR3, CR4: s.CR4, EFER: s.EFER, RFLAGS: r.RFLAGS, CPL: s.CPL()}
}

// Mode is the paging mode that the control registers select.
func (c *CPU) Mode() Mode {
	switch {
	case c.CR0&x86.CR0PG == 0:
		return None
	case c.CR4&x86.CR4PAE == 0:
		return Legacy
	case c.EFER&x86.EFERLMA == 0:
		return PAE
	case c.CR4&x86.CR4LA57 == 0:
		return Level4
	}
	return Level5
}

// Canonical says whether the linear address can be used at all: outside IA-32e
// mode every address can, inside the bits above the translated ones must equal
// the highest of these.
func (c *CPU) Canonical(linear uint64) bool {
	bits := uint(48)
	switch c.Mode() {
	case Level4:
	case Level5:
		bits = 57
	default:
		return true
	}
	top := int64(linear) >> (bits - 1)
	return top == 0 || top == -1
}

// Cause is why a walk ended without an address.
type Cause uint8

// Causes.
const (
	Mapped        Cause = iota // it did not: there is a physical address
	NonCanonical               // the processor raises #GP or #SS, not #PF
	NotPresent                 // an entry's present bit is clear
	Outside                    // a table lies outside guest memory: nothing but ones is read there
	Reserved                   // a reserved bit is set in an entry
	NotWritable                // a store, and R/W is clear in an entry
	NotUser                    // an access from CPL 3, and U/S is clear in an entry
	NotExecutable              // an instruction fetch, and XD is set in an entry
	SMEP                       // a supervisor's instruction fetch from a user page
	SMAP                       // a supervisor's data access to a user page with RFLAGS.AC clear
)

var causeText = [...]string{
	"mapped", "the address is not canonical", "not present", "the table is outside guest memory",
	"a reserved bit is set", "not writable", "not a user page", "not executable (XD)",
	"a user page, which CR4.SMEP keeps the supervisor from executing",
	"a user page, which CR4.SMAP keeps the supervisor from touching while RFLAGS.AC is clear",
}

func (c Cause) String() string { return causeText[c] }

// Level is one step of a walk.
type Level struct {
	Table  string      // the table that holds the entry: PML5, PML4, PDPT, PD, PT
	Index  uint16      // of the entry in it
	Addr   memory.Addr // of the entry
	Entry  uint64      // as read
	Size   uint8       // bytes of an entry: 4 or 8
	Shift  uint8       // log2 of the linear bytes that the entry covers
	Leaf   bool        // the entry maps a page
	Absent bool        // the entry's address is outside guest memory
}

// Walk is a translation with everything that was looked at.
type Walk struct {
	Linear uint64
	Access Access
	Mode   Mode
	Levels [5]Level
	Depth  int // entries read

	Cause    Cause
	Code     uint32      // the page fault's error code, where Cause is one
	GPA      memory.Addr // where Cause is Mapped, or a right was missing
	PageSize uint64      // of the page found; 0 if none was

	User, Writable, Executable bool // the rights that the entries together give
}

// Translate returns the physical address of a linear one and sets the accessed
// bits on the way and, for a store, the dirty bit. ok is false where the guest
// must get a page fault with the error code code, or, if the address is not
// canonical (ask first), a general-protection fault.
func (c *CPU) Translate(g *memory.Guest, linear uint64, a Access) (gpa memory.Addr, code uint32, ok bool) {
	// Another CPU may change an entry between its reading and the setting of
	// its bits; then the walk is as good as not done. A guest that does so
	// for ever must not keep us: the processor sets these bits when it
	// likes, so leaving them is not wrong.
	const attempts = 8
	var w Walk
	for range attempts {
		c.walk(g, linear, a, &w)
		if w.Cause != Mapped {
			return 0, w.Code, false
		}
		if w.mark(g) {
			break
		}
	}
	return w.GPA, 0, true
}

// Walk translates without changing the tables and tells how.
func (c *CPU) Walk(g *memory.Guest, linear uint64, a Access) Walk {
	var w Walk
	c.walk(g, linear, a, &w)
	return w
}
