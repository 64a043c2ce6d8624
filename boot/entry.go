package boot

import (
	"encoding/binary"
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Selectors that boot.rst prescribes for the 64-bit entry ("64-bit Boot
// Protocol": __BOOT_CS, __BOOT_DS), and one for the task segment that VMX
// wants.
const (
	selectorCode = 0x10
	selectorData = 0x18
	selectorTask = 0x20
)

// Descriptors (SDM vol. 3, 3.4.5): flat, present, ring 0, accessed.
const (
	descCode64 = 0x00af_9b00_0000_ffff // L=1
	descCode32 = 0x00cf_9b00_0000_ffff // D=1
	descData   = 0x00cf_9300_0000_ffff
	descTask   = 0x0000_8b00_0000_0067 // busy TSS of 104 bytes at 0
	gdtEntries = 6                     // the task's descriptor counts as two in long mode
)

// Page-table entry bits (SDM vol. 3, table 4-15 and 4-17).
const (
	ptePresent  = 1 << 0
	pteWritable = 1 << 1
	pteLarge    = 1 << 7
)

// Types of segment (SDM vol. 3, table 3-1 and 3-2).
const (
	typeCode = 11 // execute, read, accessed
	typeData = 3  // read, write, accessed
	typeTask = 11 // busy TSS
)

func writeGDT(g *memory.Guest, code uint64) error {
	var b [gdtEntries * 8]byte
	binary.LittleEndian.PutUint64(b[selectorCode:], code)
	binary.LittleEndian.PutUint64(b[selectorData:], descData)
	binary.LittleEndian.PutUint64(b[selectorTask:], descTask)
	return g.WriteAt(b[:], gdtAddr)
}

// writePageTables maps the first 4 GiB, and the range of the kernel if it is
// elsewhere, onto themselves with pages of 2 MiB: boot.rst asks for the
// kernel, boot_params and the command line.
//
//	0x8000 PML4: entry 0 → PDPT
//	0x9000 PDPT: entry n → page directory of GiB n
//	0xa000 page directories, of GiB 0…3, then those of the kernel
func writePageTables(g *memory.Guest, low, high uint64) error {
	const gib = 1 << 30
	gibs := []uint64{0, 1, 2, 3}
	for n := max(low/gib, 4); high > 4*gib && n <= (high-1)/gib; n++ {
		gibs = append(gibs, n)
		if 2+len(gibs) > maxTables || n >= 512 {
			return fmt.Errorf("kernel at %#x-%#x: too large or too high to be entered with paging on", low, high)
		}
	}
	b := make([]byte, (2+len(gibs))*memory.PageSize)
	le := binary.LittleEndian
	le.PutUint64(b, uint64(pageTables)+memory.PageSize|ptePresent|pteWritable)
	for i, n := range gibs {
		offset := uint64(2+i) * memory.PageSize
		le.PutUint64(b[memory.PageSize+n*8:], uint64(pageTables)+offset|ptePresent|pteWritable)
		for j := range uint64(512) {
			le.PutUint64(b[offset+j*8:], n*gib+j<<21|ptePresent|pteWritable|pteLarge)
		}
	}
	return g.WriteAt(b, pageTables)
}

// entryLinux is the state of the 64-bit boot protocol: long mode, identity
// mapping, flat segments, interrupts off, RSI at boot_params.
func entryLinux(rip uint64) Entry {
	return Entry{
		Protocol: ProtocolLinux,
		Regs:     x86.Regs{RIP: rip, RSI: uint64(paramsAddr), RFLAGS: x86.Flag1},
		Apply: func(s *x86.Sregs) {
			applyFlat(s, x86.Segment{Limit: 0xffffffff, Selector: selectorCode, Type: typeCode,
				Present: 1, S: 1, L: 1, G: 1})
			s.CR0 = x86.CR0PE | x86.CR0ET | x86.CR0NE | x86.CR0PG
			s.CR3 = uint64(pageTables)
			s.CR4 = x86.CR4PAE
			s.EFER = x86.EFERLME | x86.EFERLMA
		},
	}
}

// entryPVH is the state of the PVH boot ABI (Xen docs/misc/pvh.pandoc): 32-bit
// protected mode without paging, EBX at hvm_start_info.
func entryPVH(rip uint64) Entry {
	return Entry{
		Protocol: ProtocolPVH,
		Regs:     x86.Regs{RIP: rip, RBX: uint64(pvhAddr), RFLAGS: x86.Flag1},
		Apply: func(s *x86.Sregs) {
			applyFlat(s, x86.Segment{Limit: 0xffffffff, Selector: selectorCode, Type: typeCode,
				Present: 1, S: 1, DB: 1, G: 1})
			s.CR0 = x86.CR0PE | x86.CR0ET
			s.CR3, s.CR4, s.EFER = 0, 0, 0
		},
	}
}

func applyFlat(s *x86.Sregs, code x86.Segment) {
	data := x86.Segment{Limit: 0xffffffff, Selector: selectorData, Type: typeData, Present: 1, S: 1, DB: 1, G: 1}
	s.CS = code
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.TR = x86.Segment{Limit: 0x67, Selector: selectorTask, Type: typeTask, Present: 1}
	s.LDT = x86.Segment{Unusable: 1}
	s.GDT = x86.DTable{Base: uint64(gdtAddr), Limit: gdtEntries*8 - 1}
	s.IDT = x86.DTable{}
	s.CR2, s.CR8 = 0, 0
}
