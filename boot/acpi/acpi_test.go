package acpi

import "github.com/vitrine-vmm/vitrine/vmm/memory"

func testConfigs() map[string]Config {
	id := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	var devices []VirtioMMIO
	for n := range 15 {
		devices = append(devices, VirtioMMIO{Addr: 0xd000_0000 + 0x1000*memory.Addr(n), Size: 0x1000, GSI: uint32(5 + n)})
	}
	return map[string]Config{
		"bare": {CPUs: 1},
		"mmio": {CPUs: 4, COM1: true, RTC: true, PVPanic: true, VirtioMMIO: devices},
		"pci": {CPUs: 2, COM1: true, COM2: true, RTC: true, I8042: true, PVPanic: true, Generation: &id,
			PCI: &PCI{ECAM: 0xe000_0000, Window: Range{0xc000_0000, 0x1000_0000}, ConfigIO: true}},
		"everything": {CPUs: MaxCPUs, COM1: true, COM2: true, RTC: true, I8042: true, PVPanic: true, Generation: &id,
			VirtioMMIO: devices, PCI: &PCI{ECAM: 0xe000_0000, LastBus: 255, Window: Range{0xc000_0000, 0x1000_0000},
				Window64: Range{0x40_0000_0000, 0x40_0000_0000}, IOWindow: Range{0x1000, 0xf000}, ConfigIO: true}},
	}
}
