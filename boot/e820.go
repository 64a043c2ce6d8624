package boot

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Types of memory in the E820 map (ACPI 6.4 table 15-374; 12 is Linux's
// E820_TYPE_PRAM, which NVDIMMs had before ACPI 6 and nd_e820 turns into
// /dev/pmem*).
const (
	e820RAM      = 1
	e820Reserved = 2
	e820PRAM     = 12
)

// maxE820 is the length of boot_params' table (E820_MAX_ENTRIES_ZEROPAGE).
const maxE820 = 128

// e820Entry is one range of the memory map. Ranges are disjoint and sorted.
type e820Entry struct {
	addr, size uint64
	kind       uint32
}

// e820Map describes the guest's memory to its kernel: RAM without what a PC
// keeps for itself below 1 MiB, the EBDA and the BIOS area where tables are
// (they stay readable after boot), persistent-memory images, and the PCI
// configuration space, which Linux does not use before ACPI runs unless it is
// reserved here.
func e820Map(regions []memory.Region, tables *acpi.Config) ([]e820Entry, error) {
	var m []e820Entry
	add := func(from, to memory.Addr, kind uint32) {
		if from < to {
			m = append(m, e820Entry{uint64(from), uint64(to - from), kind})
		}
	}
	for i := range regions {
		r := &regions[i]
		switch {
		case r.Kind == memory.PRAM:
			add(r.Base, r.End(), e820PRAM)
		case r.Kind == memory.RAM && r.Base < highMemory:
			add(r.Base, min(r.End(), ebdaAddr), e820RAM)
			add(max(r.Base, ebdaAddr), min(r.End(), videoAddr), e820Reserved)
			add(max(r.Base, biosArea), min(r.End(), highMemory), e820Reserved)
			add(highMemory, r.End(), e820RAM)
		case r.Kind == memory.RAM:
			add(r.Base, r.End(), e820RAM)
		}
	}
	if tables != nil && tables.PCI != nil {
		add(tables.PCI.ECAM, tables.PCI.ECAM+memory.Addr(tables.PCI.ECAMSize()), e820Reserved)
	}
	slices.SortFunc(m, func(a, b e820Entry) int { return cmp.Compare(a.addr, b.addr) })
	if len(m) > maxE820 {
		return nil, fmt.Errorf("%d ranges of memory: the E820 map has room for %d", len(m), maxE820)
	}
	return m, nil
}

// writeBDA tells where the EBDA is, in the two words of the BIOS data area in
// which kernels look: its segment at 0x40e, and the KiB of memory below it at
// 0x413 (Linux: reserve_bios_regions).
func writeBDA(g *memory.Guest) error {
	w := writer{g: g}
	w.uint16(bdaEBDA, uint16(ebdaAddr>>4))
	w.uint16(bdaBaseKiB, uint16(ebdaAddr>>10))
	return w.err
}

// resetVector is where a PC's processor begins, in the BIOS: kernels that know
// no better way to reset the machine jump there in real mode (Linux
// machine_real_restart; it does so first where the ACPI tables are
// hardware-reduced, because it takes the firmware for EFI then).
const resetVector memory.Addr = 0xf_fff0

// writeResetVector puts there what resets the machine through the keyboard
// controller.
func writeResetVector(g *memory.Guest) error {
	return g.WriteAt([]byte{
		0xb0, 0xfe, // mov al, 0xfe: pulse the reset line
		0xe6, 0x64, // out 0x64, al
		0xf4,       // hlt
		0xeb, 0xfd, // jmp back to hlt
	}, resetVector)
}
