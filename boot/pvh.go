package boot

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// hvm_start_info, version 1 (xen/include/public/arch-x86/hvm/start_info.h), and
// what it points to, one after the other from pvhAddr:
//
//	 0  magic (4) = 0x336ec578        module list entry (one, the initrd)
//	 4  version (4) = 1                0  paddr (8)
//	 8  flags (4)                      8  size (8)
//	12  nr_modules (4)                16  cmdline_paddr (8)
//	16  modlist_paddr (8)             24  reserved (8)
//	24  cmdline_paddr (8)
//	32  rsdp_paddr (8)                memory map entry
//	40  memmap_paddr (8)               0  addr (8)
//	48  memmap_entries (4)             8  size (8)
//	52  reserved (4)                  16  type (4), as in E820
//	                                  20  reserved (4)
const (
	pvhMagic      = 0x336ec578
	pvhVersion    = 1
	pvhInfoSize   = 56
	pvhModuleSize = 32
	pvhMemmapSize = 24
)

func (p *params) encodePVH() []byte {
	const modules, memmap = pvhInfoSize, pvhInfoSize + pvhModuleSize
	b := make([]byte, memmap+len(p.e820)*pvhMemmapSize)
	le := binary.LittleEndian
	le.PutUint32(b, pvhMagic)
	le.PutUint32(b[4:], pvhVersion)
	if p.initrd.size > 0 {
		le.PutUint32(b[12:], 1)
		le.PutUint64(b[16:], uint64(pvhAddr)+modules)
		le.PutUint64(b[modules:], p.initrd.addr)
		le.PutUint64(b[modules+8:], p.initrd.size)
	}
	le.PutUint64(b[24:], p.cmdline.addr)
	le.PutUint64(b[32:], p.rsdp)
	le.PutUint64(b[40:], uint64(pvhAddr)+memmap)
	le.PutUint32(b[48:], uint32(len(p.e820)))
	for i, e := range p.e820 {
		t := b[memmap+i*pvhMemmapSize:]
		le.PutUint64(t, e.addr)
		le.PutUint64(t[8:], e.size)
		le.PutUint32(t[16:], e.kind)
	}
	return b
}

func (p *params) writePVH(g *memory.Guest) error { return g.WriteAt(p.encodePVH(), pvhAddr) }
