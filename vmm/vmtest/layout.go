//go:build linux && amd64

package vmtest

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Selectors in the guest's GDT.
const (
	KernelCode64 = 0x08
	KernelData   = 0x10
	UserData     = 0x1b
	UserCode64   = 0x23
	TSSSelector  = 0x28
	KernelCode32 = 0x38
)

func (g *Guest) put64(at int, v uint64) { binary.LittleEndian.PutUint64(g.RAM[at:], v) }

// layOut writes tables and handlers.
func (g *Guest) layOut() {
	g.pages()
	for at, d := range map[int]uint64{
		KernelCode64:    0x00af9b000000ffff,
		KernelData:      0x00cf93000000ffff,
		UserData &^ 3:   0x00cff3000000ffff,
		UserCode64 &^ 3: 0x00affb000000ffff,
		TSSSelector:     0x00008b0000000067 | TSS<<16,
		KernelCode32:    0x00cf9b000000ffff,
	} {
		g.put64(GDT+at, d)
	}
	if g.Mode == Kernel64 || g.Mode == User64 {
		g.put64(TSS+4, HandStack)
	} else {
		g.put64(TSS+4, HandStack|KernelData<<32)
	}
	for v := range 32 {
		g.handler(v)
	}
}

func (g *Guest) handler(v int) {
	at := uint64(handlers + 16*v)
	copy(g.RAM[at:], []byte{0xe6, byte(v), 0xf4}) // out v, al; hlt
	gate := byte(0x8e)
	if v == 3 || v == 4 {
		gate = 0xee
	}
	switch g.Mode {
	case Real:
		binary.LittleEndian.PutUint32(g.RAM[4*v:], uint32(at))
	case Kernel32:
		g.put64(IDT+8*v, at|KernelCode32<<16|uint64(gate)<<40)
	default:
		g.put64(IDT+16*v, at|KernelCode64<<16|uint64(gate)<<40)
	}
}

func (g *Guest) pages() {
	const all = 0x67 // present, writable, user, accessed, dirty
	g.put64(PML4, PML4+0x1000|all)
	g.put64(PML4+0x1000, PML4+0x2000|all)
	for i := range size >> 21 {
		pt := PML4 + 0x3000 + i*0x1000
		g.put64(PML4+0x2000+8*i, uint64(pt)|all)
		for j := range 512 {
			page := i<<21 | j<<12
			e := uint64(page) | all
			switch {
			case page == Absent:
				e = 0
			case page == ReadOnly:
				e &^= 2
			case page == Kernel, page < code:
				e &^= 4
			}
			g.put64(pt+8*j, e)
		}
	}
}

// enter sets system registers for the guest's mode.
func (g *Guest) enter(s *x86.Sregs) {
	if g.Mode == Real {
		s.CS.Base, s.CS.Selector = 0, 0
		for _, seg := range []*x86.Segment{&s.DS, &s.ES, &s.SS, &s.FS, &s.GS} {
			seg.Base, seg.Selector = 0, 0
		}
		s.IDT = x86.DTable{Limit: 0x3ff}
		return
	}
	s.CR0 = x86.CR0PE | x86.CR0ET | x86.CR0NE | x86.CR0MP | x86.CR0WP
	s.CR4 = x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4OSXSAVE
	s.GDT, s.IDT = x86.DTable{Base: GDT, Limit: 0x47}, x86.DTable{Base: IDT, Limit: 0x1ff}
	s.TR = x86.Segment{Base: TSS, Limit: 0x67, Selector: TSSSelector, Type: 11, Present: 1}
	data := x86.Segment{Limit: ^uint32(0), Selector: KernelData, Type: 3, Present: 1, DB: 1, S: 1, G: 1}
	s.CS = x86.Segment{Limit: ^uint32(0), Selector: KernelCode32, Type: 11, Present: 1, DB: 1, S: 1, G: 1}
	if g.Mode != Kernel32 {
		s.CR0 |= x86.CR0PG
		s.CR3, s.EFER = PML4, x86.EFERLME|x86.EFERLMA|x86.EFERSCE|x86.EFERNXE
		s.CR4 |= x86.CR4PAE | x86.CR4FSGSBASE
		s.CS = x86.Segment{Limit: ^uint32(0), Selector: KernelCode64, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	}
	if g.Mode == User64 {
		s.CS.Selector, s.CS.DPL = UserCode64, 3
		data.Selector, data.DPL = UserData, 3
	}
	s.DS, s.ES, s.SS, s.FS, s.GS = data, data, data, data, data
}
