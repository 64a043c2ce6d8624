package vmm

import "github.com/vitrine-vmm/vitrine/vmm/memory"

// Where things lie in a guest. RAM starts at 0, leaves out the 1 GiB below
// 4 GiB and goes on from there; what the boot loader writes below 1 MiB is
// listed in package boot.
//
//	0x0000_0000  RAM, up to 3 GiB
//	0xc000_0000  32-bit PCI window, 256 MiB
//	0xd000_0000  virtio-mmio, 4 KiB a device
//	0xe000_0000  PCI ECAM, one bus (1 MiB)
//	0xfec0_0000  I/O APIC
//	0xfee0_0000  local APICs
//	0xfffb_c000  KVM's own pages for real mode on Intel (4 pages)
//	0x1_0000_0000  RAM above 3 GiB
//	              then persistent-memory images, from the next 128 MiB on
//	              then the 64-bit PCI window
const (
	pciWindow      = 0xc000_0000
	pciWindowSize  = 0x1000_0000
	virtioMMIO     = 0xd000_0000
	virtioMMIOSize = 0x1000
	pciECAM        = 0xe000_0000
	pciECAMSize    = 0x10_0000

	// pmemAlign is the size of a Linux memory section (SECTION_SIZE_BITS of
	// x86-64), so that an image's struct pages never share one with RAM.
	pmemAlign = 128 << 20
)

// Ports and interrupt lines of the chips of a PC.
const (
	portCOM1  = 0x3f8
	portRTC   = 0x70
	portI8042 = 0x60
	portPCI   = 0xcf8
	gsiCOM1   = 4
	gsiSCI    = 9
)

// mmioLines are the interrupt lines for virtio-mmio devices, in the order in
// which they are given out: those of the 24 that no chip of a PC uses.
var mmioLines = []uint32{5, 6, 7, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}

// alignUp rounds a up to a multiple of n, a power of two.
func alignUp(a memory.Addr, n uint64) memory.Addr {
	return (a + memory.Addr(n) - 1) &^ memory.Addr(n-1)
}
