package boot

import (
	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// What the loader writes below 1 MiB. The kernel has copied or replaced all of
// it by the time it hands out that memory; only the EBDA and the BIOS area are
// reserved in the E820 map.
//
//	0x0_0400  BIOS data area: two words that tell where the EBDA is
//	0x0_0500  GDT
//	0x0_6000  hvm_start_info, its module list and memory map   (PVH)
//	0x0_7000  boot_params                                      (Linux)
//	0x0_8000  PML4, PDPT, then page directories, to 0x2_0000   (Linux)
//	0x2_0000  command line, at most 64 KiB with its NUL
//	0x9_fc00  EBDA: MP floating pointer and table
//	0xa_0000  (the video memory of a PC: nothing)
//	0xe_0000  BIOS area: ACPI tables, to 1 MiB
//	0x10_0000 kernel and initrd, from here on
const (
	bdaEBDA     memory.Addr = 0x40e
	bdaBaseKiB  memory.Addr = 0x413
	gdtAddr     memory.Addr = 0x500
	pvhAddr     memory.Addr = 0x6000
	paramsAddr  memory.Addr = 0x7000
	pageTables  memory.Addr = 0x8000
	cmdlineAddr memory.Addr = 0x2_0000
	ebdaAddr    memory.Addr = 0x9_fc00
	videoAddr   memory.Addr = 0xa_0000
	biosArea                = acpi.Base
	highMemory  memory.Addr = 0x10_0000

	cmdlineArea = 64 << 10
	maxTables   = int(cmdlineAddr-pageTables) / memory.PageSize
)

// minMemory is what everything below 1 MiB and a page above it needs.
const minMemory = uint64(highMemory) + memory.PageSize
