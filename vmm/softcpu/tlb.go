package softcpu

import (
	"encoding/binary"
)

// The software TLB has, for each privilege with which memory is accessed, one
// direct-mapped array for loads, one for stores and one for instruction
// fetches. An entry is there only if the access needs no check at all any
// more: permissions, accessed and dirty bits, the page being RAM and, for
// stores, the page having no decoded code. Everything else is a miss.

const (
	tlbBits = 10
	tlbSize = 1 << tlbBits
	tlbMask = tlbSize - 1

	pageSize   = 4096
	pageMask   = pageSize - 1
	tagInvalid = 1 // no page address has bit 0
)

// Privileges of an access, the index of a set of arrays.
const (
	asSupervisor = iota // with SMAP, user pages are out of bounds
	asUser
	asSupervisorAC // SMAP off, or RFLAGS.AC set by STAC
	privileges
)

type hostPage = [pageSize]byte

// tlbEntry is a translation for loads or for stores.
type tlbEntry struct {
	tag  uint64 // linear address of the page
	page *hostPage
}

// codeEntry is a translation for fetches. page is nil outside of RAM.
type codeEntry struct {
	tag  uint64
	phys uint64
	page *hostPage
}

type tlb struct {
	r, w [privileges][tlbSize]tlbEntry
	x    [privileges][tlbSize]codeEntry

	// local lists the entries of non-global pages, so that a change of
	// address space costs as much as was cached since the last one.
	local   [4096]uint16 // kind<<14 | privilege<<12 | index
	nlocal  int
	spilled bool // local was too small: everything has to go

	// large is a set of hashes of 2 MiB ranges that hold a piece of a large
	// page; INVLPG must drop all pieces. huge says that there are pieces of
	// 1 GiB pages.
	large [64]uint64
	huge  bool

	priv   uint8 // the privilege that cpu.tr, tw and tx are of
	system uint8 // depth of cpu.system
}

// Kinds of array in an element of tlb.local.
const (
	kindRead = iota
	kindWrite
	kindFetch
)

func (t *tlb) flushAll() {
	for p := range privileges {
		for i := range tlbSize {
			t.r[p][i].tag = tagInvalid
			t.w[p][i].tag = tagInvalid
			t.x[p][i].tag = tagInvalid
		}
	}
	t.nlocal, t.spilled, t.huge = 0, false, false
	t.large = [64]uint64{}
}

// flushLocal drops the translations of pages that are not global.
func (t *tlb) flushLocal() {
	if t.spilled {
		t.flushAll()
		return
	}
	for _, e := range t.local[:t.nlocal] {
		t.drop(e)
	}
	t.nlocal = 0
}

func (t *tlb) drop(e uint16) {
	p, i := e>>12&3, e&tlbMask
	switch e >> 14 {
	case kindRead:
		t.r[p][i].tag = tagInvalid
	case kindWrite:
		t.w[p][i].tag = tagInvalid
	default:
		t.x[p][i].tag = tagInvalid
	}
}

// noteLocal remembers that an entry is of a non-global page.
func (t *tlb) noteLocal(kind, priv int, lin uint64) {
	if t.nlocal == len(t.local) {
		t.spilled = true
		return
	}
	t.local[t.nlocal] = uint16(kind<<14 | priv<<12 | int(lin>>12&tlbMask))
	t.nlocal++
}

func (t *tlb) noteLarge(lin uint64, bits uint8) {
	h := lin >> 21 & 4095
	t.large[h/64] |= 1 << (h % 64)
	if bits > 22 {
		t.huge = true
	}
}

// flushPage drops the translations of the page that holds lin, and of all of
// the large page if it may be in one (SDM vol. 3, 4.10.4.1).
func (t *tlb) flushPage(lin uint64) {
	h := lin >> 21 & 4095
	switch {
	case t.huge:
		t.flushAll()
		return
	case t.large[h/64]>>(h%64)&1 != 0:
		t.flushRange(lin>>22<<22, 22) // 22: pages of 4 MiB exist too
		return
	}
	i := lin >> 12 & tlbMask
	for p := range privileges {
		t.r[p][i].tag = tagInvalid
		t.w[p][i].tag = tagInvalid
		t.x[p][i].tag = tagInvalid
	}
}

func (t *tlb) flushRange(base uint64, bits uint8) {
	for p := range privileges {
		for i := range tlbSize {
			if t.r[p][i].tag>>bits == base>>bits {
				t.r[p][i].tag = tagInvalid
			}
			if t.w[p][i].tag>>bits == base>>bits {
				t.w[p][i].tag = tagInvalid
			}
			if t.x[p][i].tag>>bits == base>>bits {
				t.x[p][i].tag = tagInvalid
			}
		}
	}
}

// protect drops the translations for stores to a host page, because code in it
// has been decoded or its stores are to be counted.
func (t *tlb) protect(page *hostPage) {
	for p := range privileges {
		for i := range tlbSize {
			if t.w[p][i].page == page {
				t.w[p][i].tag = tagInvalid
			}
		}
	}
}

// protectAll drops all translations for stores.
func (t *tlb) protectAll() {
	for p := range privileges {
		for i := range tlbSize {
			t.w[p][i].tag = tagInvalid
		}
	}
}

// Loads and stores. The address is linear. The tag of a hit is the page of the
// access's last byte: one that crosses into the next page is a miss, because
// that page has another index.

func (c *cpu) load8(a uint64) (uint64, bool) {
	e := &c.tr[a>>12&tlbMask]
	if e.tag == a&^pageMask {
		return uint64(e.page[a&pageMask]), true
	}
	return c.loadSlow(a, 1, 0)
}

func (c *cpu) load16(a uint64) (uint64, bool) {
	e := &c.tr[a>>12&tlbMask]
	if e.tag == (a+1)&^pageMask {
		return uint64(binary.LittleEndian.Uint16(e.page[a&pageMask:])), true
	}
	return c.loadSlow(a, 2, 0)
}

func (c *cpu) load32(a uint64) (uint64, bool) {
	e := &c.tr[a>>12&tlbMask]
	if e.tag == (a+3)&^pageMask {
		return uint64(binary.LittleEndian.Uint32(e.page[a&pageMask:])), true
	}
	return c.loadSlow(a, 4, 0)
}

func (c *cpu) load64(a uint64) (uint64, bool) {
	e := &c.tr[a>>12&tlbMask]
	if e.tag == (a+7)&^pageMask {
		return binary.LittleEndian.Uint64(e.page[a&pageMask:]), true
	}
	return c.loadSlow(a, 8, 0)
}

func (c *cpu) store8(a, v uint64) bool {
	e := &c.tw[a>>12&tlbMask]
	if e.tag == a&^pageMask {
		e.page[a&pageMask] = uint8(v)
		return true
	}
	return c.storeSlow(a, 1, v)
}

func (c *cpu) store16(a, v uint64) bool {
	e := &c.tw[a>>12&tlbMask]
	if e.tag == (a+1)&^pageMask {
		binary.LittleEndian.PutUint16(e.page[a&pageMask:], uint16(v))
		return true
	}
	return c.storeSlow(a, 2, v)
}

func (c *cpu) store32(a, v uint64) bool {
	e := &c.tw[a>>12&tlbMask]
	if e.tag == (a+3)&^pageMask {
		binary.LittleEndian.PutUint32(e.page[a&pageMask:], uint32(v))
		return true
	}
	return c.storeSlow(a, 4, v)
}

func (c *cpu) store64(a, v uint64) bool {
	e := &c.tw[a>>12&tlbMask]
	if e.tag == (a+7)&^pageMask {
		binary.LittleEndian.PutUint64(e.page[a&pageMask:], v)
		return true
	}
	return c.storeSlow(a, 8, v)
}

// load reads size bytes, zero-extended.
func (c *cpu) load(a uint64, size uint8) (uint64, bool) {
	switch size {
	case 8:
		return c.load64(a)
	case 4:
		return c.load32(a)
	case 2:
		return c.load16(a)
	}
	return c.load8(a)
}

// store writes the low size bytes of v.
func (c *cpu) store(a uint64, size uint8, v uint64) bool {
	switch size {
	case 8:
		return c.store64(a, v)
	case 4:
		return c.store32(a, v)
	case 2:
		return c.store16(a, v)
	}
	return c.store8(a, v)
}

// loadRMW reads what a store to the same place will replace; it faults where
// the store would.
func (c *cpu) loadRMW(a uint64, size uint8) (uint64, bool) {
	e := &c.tw[a>>12&tlbMask]
	if e.tag == (a+uint64(size)-1)&^pageMask {
		p := e.page[a&pageMask:]
		switch size {
		case 8:
			return binary.LittleEndian.Uint64(p), true
		case 4:
			return uint64(binary.LittleEndian.Uint32(p)), true
		case 2:
			return uint64(binary.LittleEndian.Uint16(p)), true
		}
		return uint64(p[0]), true
	}
	return c.loadSlow(a, size, accWrite)
}
