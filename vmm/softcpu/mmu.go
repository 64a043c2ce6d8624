package softcpu

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Translation of linear addresses: SDM vol. 3, chapter 4.

// access is what an access to memory wants, in the bits of a page fault's
// error code (SDM vol. 3, 4.7).
type access uint8

const (
	accWrite access = x86.PFWrite
	accUser  access = x86.PFUser
	accFetch access = x86.PFFetch
)

// Bits of paging-structure entries (SDM vol. 3, 4.5).
const (
	ptePresent  = 1 << 0
	pteWrite    = 1 << 1
	pteUser     = 1 << 2
	pteAccessed = 1 << 5
	pteDirty    = 1 << 6
	pteLarge    = 1 << 7
	pteGlobal   = 1 << 8
	pteNX       = 1 << 63

	physBits = 40 // MAXPHYADDR, as CPUID leaf 0x80000008 says
	physMask = 1<<physBits - 1
	pteAddr  = physMask &^ pageMask
	pteRsvd  = (1<<52 - 1) &^ physMask
)

// translation is the result of a page walk.
type translation struct {
	phys   uint64 // of the byte
	bits   uint8  // size of the page: 12, 21, 22 or 30
	global bool
}

// setMMU chooses the arrays of the TLB by CPL, SMAP and AC.
func (c *cpu) setMMU() {
	c.usePrivilege(c.privilege())
}

func (c *cpu) privilege() int {
	switch {
	case c.cpl == 3:
		return asUser
	case c.cr4&x86.CR4SMAP != 0 && c.flags&x86.FlagAC == 0:
		return asSupervisor
	}
	return asSupervisorAC
}

func (c *cpu) usePrivilege(p int) {
	c.tr, c.tw, c.tx = &c.tlb.r[p], &c.tlb.w[p], &c.tlb.x[p]
	c.tlb.priv = uint8(p)
}

// system runs f with the privilege of the accesses that the CPU makes by
// itself: to descriptor tables, task-state segments and exception stacks (SDM
// vol. 3, 4.6, "implicit supervisor-mode accesses").
func (c *cpu) system(f func() bool) bool {
	old := int(c.tlb.priv)
	p := asSupervisorAC
	if c.cr4&x86.CR4SMAP != 0 {
		p = asSupervisor
	}
	c.usePrivilege(p)
	c.tlb.system++
	ok := f()
	c.tlb.system--
	c.usePrivilege(old)
	return ok
}

// canonical checks and wraps a linear address: 64-bit code must name canonical
// addresses (SDM vol. 1, 3.3.7.1), all other code's addresses have 32 bits.
func (c *cpu) canonical(a uint64) (uint64, bool) {
	if !c.code64() && c.tlb.system == 0 {
		return uint64(uint32(a)), true
	}
	if uint64(int64(a<<16)>>16) != a {
		c.raiseCanonical()
		return a, false
	}
	return a, true
}

// page translates the page of a for an access and puts the translation in the
// TLB. page is nil if what is there is not RAM (for a store: not writable).
func (c *cpu) page(a uint64, acc access) (page *hostPage, phys uint64, ok bool) {
	a, ok = c.canonical(a)
	if !ok {
		return nil, 0, false
	}
	priv := int(c.tlb.priv)
	if priv == asUser {
		acc |= accUser
	}
	t := translation{phys: a & physMask, bits: 12, global: true}
	if c.cr0&x86.CR0PG != 0 {
		if t, ok = c.walk(a, acc); !ok {
			return nil, 0, false
		}
	}
	page, writable := c.vm.page(t.phys)
	if acc&accWrite != 0 && page != nil {
		if !writable {
			return nil, t.phys, true
		}
		c.vm.stored(t.phys)
		c.vm.dirty.mark(t.phys)
	}
	if c.debug.watching && acc&accFetch == 0 && c.debug.watched(a) {
		return page, t.phys, true
	}
	if acc&accWrite != 0 && page != nil {
		c.vm.storable.add(t.phys)
	}
	c.tlb.fill(priv, a, t, page, acc)
	return page, t.phys, true
}

func (t *tlb) fill(priv int, a uint64, tr translation, page *hostPage, acc access) {
	lin, i := a&^pageMask, a>>12&tlbMask
	if tr.bits > 12 {
		t.noteLarge(lin, tr.bits)
	}
	kind := kindRead
	switch {
	case acc&accFetch != 0:
		t.x[priv][i] = codeEntry{lin, tr.phys &^ pageMask, page}
		kind = kindFetch
	case page == nil:
		return
	case acc&accWrite != 0:
		t.w[priv][i] = tlbEntry{lin, page}
		kind = kindWrite
	default:
		t.r[priv][i] = tlbEntry{lin, page}
	}
	if !tr.global {
		t.noteLocal(kind, priv, lin)
	}
}

// walk translates a through the guest's paging structures and sets accessed
// and dirty bits. Without a translation it raises #PF.
func (c *cpu) walk(a uint64, acc access) (translation, bool) {
	if c.cr4&x86.CR4PAE == 0 {
		return c.walk32(a, acc)
	}
	if !c.long() {
		return c.walkPAE(a, acc)
	}
	table := c.cr3 & pteAddr
	rights, nx := uint64(pteWrite|pteUser), uint64(0)
	var path [4]uint64
	for level := 3; ; level-- {
		at := table + (a>>(12+9*level)&511)*8
		path[level] = at
		e := c.vm.physLoad64(at)
		if e&ptePresent == 0 {
			return translation{}, c.pageFault(a, acc, 0)
		}
		if c.reserved(e, level) {
			return translation{}, c.pageFault(a, acc, x86.PFPresent|x86.PFRsvd)
		}
		rights &= e
		nx |= e & pteNX
		if level == 0 || e&pteLarge != 0 {
			return c.leaf(a, acc, path[level:], e, rights, nx, uint8(12+9*level))
		}
		table = e & pteAddr
	}
}

// walkPAE is the three-level walk of protected mode with PAE (SDM vol. 3,
// 4.4). The entries of the first level have no rights of their own.
func (c *cpu) walkPAE(a uint64, acc access) (translation, bool) {
	e := c.vm.physLoad64(c.cr3&0xffffffe0 + a>>30&3*8)
	if e&ptePresent == 0 {
		return translation{}, c.pageFault(a, acc, 0)
	}
	const rsvdPDPTE = pteRsvd | pteNX | 0x1e6
	if e&rsvdPDPTE != 0 {
		return translation{}, c.pageFault(a, acc, x86.PFPresent|x86.PFRsvd)
	}
	rights, nx := uint64(pteWrite|pteUser), uint64(0)
	var path [4]uint64
	for level := 1; ; level-- {
		at := e&pteAddr + (a>>(12+9*level)&511)*8
		path[level] = at
		e = c.vm.physLoad64(at)
		if e&ptePresent == 0 {
			return translation{}, c.pageFault(a, acc, 0)
		}
		if c.reserved(e, level) {
			return translation{}, c.pageFault(a, acc, x86.PFPresent|x86.PFRsvd)
		}
		rights &= e
		nx |= e & pteNX
		if level == 0 || e&pteLarge != 0 {
			return c.leaf(a, acc, path[level:2], e, rights, nx, uint8(12+9*level))
		}
	}
}

// reserved says whether an 8-byte entry of a level has reserved bits set (SDM
// vol. 3, 4.4.2, 4.5.4).
func (c *cpu) reserved(e uint64, level int) bool {
	rsvd := uint64(pteRsvd)
	if c.efer&x86.EFERNXE == 0 {
		rsvd |= pteNX
	}
	switch {
	case level == 3:
		rsvd |= pteLarge
	case level > 0 && e&pteLarge != 0:
		rsvd |= (1<<(12+9*level) - 1) &^ 0x1fff // bit 12 is PAT
	}
	return e&rsvd != 0
}

// leaf checks the rights that the levels leave, marks the entries of path
// (leaf first) as used and makes the translation.
func (c *cpu) leaf(a uint64, acc access, path []uint64, e, rights, nx uint64, bits uint8) (translation, bool) {
	if !c.allowed(acc, rights, nx) {
		return translation{}, c.pageFault(a, acc, x86.PFPresent)
	}
	want := uint64(pteAccessed)
	if acc&accWrite != 0 {
		want |= pteDirty
	}
	if e&want != want {
		c.vm.physOr64(path[0], want)
	}
	for _, at := range path[1:] {
		if c.vm.physLoad64(at)&pteAccessed == 0 {
			c.vm.physOr64(at, pteAccessed)
		}
	}
	in := uint64(1)<<bits - 1
	return translation{
		phys:   e&pteAddr&^in | a&in,
		bits:   bits,
		global: e&pteGlobal != 0 && c.cr4&x86.CR4PGE != 0,
	}, true
}

// allowed is SDM vol. 3, 4.6, "Determination of access rights".
func (c *cpu) allowed(acc access, rights, nx uint64) bool {
	user := rights&pteUser != 0
	if acc&accFetch != 0 && nx != 0 {
		return false
	}
	if acc&accUser != 0 {
		return user && (acc&accWrite == 0 || rights&pteWrite != 0)
	}
	switch {
	case acc&accFetch != 0:
		return !user || c.cr4&x86.CR4SMEP == 0
	case user && c.tlb.priv == asSupervisor && c.cr4&x86.CR4SMAP != 0:
		return false
	}
	return acc&accWrite == 0 || rights&pteWrite != 0 || c.cr0&x86.CR0WP == 0
}

// walk32 is the two-level walk without PAE, with pages of 4 KiB and 4 MiB
// (SDM vol. 3, 4.3).
func (c *cpu) walk32(a uint64, acc access) (translation, bool) {
	at := c.cr3&0xfffff000 + a>>22&1023*4
	e := uint64(c.vm.physLoad32(at))
	if e&ptePresent == 0 {
		return translation{}, c.pageFault(a, acc, 0)
	}
	rights := e
	if e&pteLarge != 0 && c.cr4&x86.CR4PSE != 0 {
		if e&(1<<21) != 0 {
			return translation{}, c.pageFault(a, acc, x86.PFPresent|x86.PFRsvd)
		}
		phys := e&0xffc00000 | e>>13&0xff<<32
		return c.leaf32(a, acc, at, 0, e, rights, phys, 22)
	}
	dir := at
	at = e&0xfffff000 + a>>12&1023*4
	e = uint64(c.vm.physLoad32(at))
	if e&ptePresent == 0 {
		return translation{}, c.pageFault(a, acc, 0)
	}
	return c.leaf32(a, acc, at, dir, e, rights&e, e&0xfffff000, 12)
}

func (c *cpu) leaf32(a uint64, acc access, at, dir, e, rights, phys uint64, bits uint8) (translation, bool) {
	if !c.allowed(acc, rights, 0) {
		return translation{}, c.pageFault(a, acc, x86.PFPresent)
	}
	want := uint32(pteAccessed)
	if acc&accWrite != 0 {
		want |= pteDirty
	}
	if uint32(e)&want != want {
		c.vm.physOr32(at, want)
	}
	if dir != 0 {
		c.vm.physOr32(dir, pteAccessed)
	}
	return translation{
		phys:   phys | a&(1<<bits-1),
		bits:   bits,
		global: e&pteGlobal != 0 && c.cr4&x86.CR4PGE != 0,
	}, true
}

// pageFault raises #PF for a; code is the present and reserved bits. It
// returns false.
func (c *cpu) pageFault(a uint64, acc access, code uint32) bool {
	code |= uint32(acc & (accWrite | accUser))
	nxe := c.efer&x86.EFERNXE != 0 && c.cr4&x86.CR4PAE != 0
	if acc&accFetch != 0 && (nxe || c.cr4&x86.CR4SMEP != 0) {
		code |= x86.PFFetch
	}
	c.exc.address = a
	return c.raiseCode(x86.VectorPF, code)
}

// loadSlow is a load that the TLB does not have. With accWrite it checks that
// the bytes can be written.
func (c *cpu) loadSlow(a uint64, size uint8, acc access) (uint64, bool) {
	if n := pageSize - a&pageMask; n < uint64(size) {
		return c.loadSplit(a, size, acc)
	}
	page, phys, ok := c.page(a, acc)
	if !ok {
		return 0, false
	}
	if c.debug.watching {
		c.accessed(a, size, false)
	}
	if page == nil {
		return c.deviceLoad(phys, size)
	}
	var b [8]byte
	copy(b[:size], page[phys&pageMask:])
	return binary.LittleEndian.Uint64(b[:]), true
}

// loadSplit loads from both sides of a page boundary.
func (c *cpu) loadSplit(a uint64, size uint8, acc access) (uint64, bool) {
	if !c.probe(a, uint64(size), acc) {
		return 0, false
	}
	var v uint64
	for i := range uint64(size) {
		b, ok := c.loadSlow(a+i, 1, acc)
		if !ok {
			return 0, false
		}
		v |= b << (8 * i)
	}
	return v, true
}

func (c *cpu) storeSlow(a uint64, size uint8, v uint64) bool {
	if n := pageSize - a&pageMask; n < uint64(size) {
		return c.storeSplit(a, size, v)
	}
	page, phys, ok := c.page(a, accWrite)
	if !ok {
		return false
	}
	if c.debug.watching {
		c.accessed(a, size, true)
	}
	if page == nil {
		return c.deviceStore(phys, size, v)
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	copy(page[phys&pageMask:], b[:size])
	return true
}

// storeSplit stores across a page boundary. Nothing is written unless both
// pages can be.
func (c *cpu) storeSplit(a uint64, size uint8, v uint64) bool {
	if !c.probe(a, uint64(size), accWrite) {
		return false
	}
	for i := range uint64(size) {
		if !c.storeSlow(a+i, 1, v>>(8*i)) {
			return false
		}
	}
	return true
}

// probe raises the fault that an access to n bytes (at most a page) would.
func (c *cpu) probe(a, n uint64, acc access) bool {
	if _, ok := c.canonical(a + n - 1); !ok {
		return false
	}
	if _, _, ok := c.page(a, acc); !ok {
		return false
	}
	if a&pageMask+n <= pageSize {
		return true
	}
	_, _, ok := c.page((a+n-1)&^pageMask, acc)
	return ok
}

// page returns the host's bytes of the page at phys, nil if there is no RAM.
func (vm *VM) page(phys uint64) (page *hostPage, writable bool) {
	for i := range vm.ram {
		r := &vm.ram[i]
		if off := phys - r.base; off < uint64(len(r.bytes)) {
			off &^= pageMask
			return (*hostPage)(r.bytes[off : off+pageSize]), !r.readOnly
		}
	}
	return nil, false
}

// physLoad64 reads a paging-structure entry. Where there is no memory the bus
// floats high.
func (vm *VM) physLoad64(a uint64) uint64 {
	if p, _ := vm.page(a); p != nil {
		return binary.LittleEndian.Uint64(p[a&pageMask&^7:])
	}
	return ^uint64(0)
}

func (vm *VM) physLoad32(a uint64) uint32 {
	if p, _ := vm.page(a); p != nil {
		return binary.LittleEndian.Uint32(p[a&pageMask&^3:])
	}
	return ^uint32(0)
}

// physOr64 sets bits of a paging-structure entry.
func (vm *VM) physOr64(a, bits uint64) {
	p, writable := vm.page(a)
	if p == nil || !writable {
		return
	}
	vm.stored(a)
	vm.dirty.mark(a)
	b := p[a&pageMask&^7:]
	binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)|bits)
}

func (vm *VM) physOr32(a uint64, bits uint32) {
	vm.physOr64(a, uint64(bits)<<(8*(a&4)))
}
