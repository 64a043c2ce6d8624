package acpi

import (
	"fmt"
	"slices"
)

// Names of devices that events are for.
const (
	namePowerButton = "PWRB"
	nameGeneration  = "VGEN"
)

const (
	notifyPressed = 0x80 // ACPI 6.4 table 5-164: S0 power button pressed
	notifyChanged = 0x80 // Virtual Machine Generation ID, "Usage"
)

// dsdtBody is the definition block: soft-off, and the devices.
func dsdtBody(c *Config) []byte {
	// _S5 (§7.4.2.6): SLP_TYP for the sleep control register, the rest unused.
	body := named("_S5", pack(integer(SleepS5), integer(0), integer(0), integer(0)))
	devices := slices.Concat(processors(c), events(c), chips(c), virtioMMIO(c), hostBridge(c))
	return append(body, scope("_SB", devices)...)
}

// processors are processor devices (§8.4); their _UID is that of the MADT.
func processors(c *Config) (b []byte) {
	for n := range c.CPUs {
		b = append(b, device(fmt.Sprintf("C%03X", n),
			named("_HID", text("ACPI0007")), named("_UID", integer(uint64(n))))...)
	}
	return b
}

// events is the generic event device (§5.6.9), with the devices that its
// events are for:
//
//	Method (_EVT, 1, Serialized) {
//	    Local0 = EVST                                   // clears them too
//	    If (Local0 & 1) { Notify (PWRB, 0x80) }
//	    If (Local0 & 2) { Notify (VGEN, 0x80) }
//	}
func events(c *Config) []byte {
	b := device(namePowerButton, named("_HID", eisaID("PNP0C0C")))
	handler := [][]byte{storeLocal0("EVST"), ifLocal0(EventPowerButton, notify(namePowerButton, notifyPressed))}
	if c.Generation != nil {
		b = append(b, generation()...)
		handler = append(handler, ifLocal0(EventGeneration, notify(nameGeneration, notifyChanged)))
	}
	return append(b, device("GED",
		named("_HID", text("ACPI0013")),
		named("_UID", integer(0)),
		crs(interrupt(EventGSI)),
		region("EVTS", PortEvents, 4),
		field32("EVTS", "EVST"),
		method("_EVT", 1, handler...))...)
}

// generation is the VM generation identifier (Microsoft, "Virtual Machine
// Generation ID"); ADDR has the low and the high half of its address. Guests
// know it by its _CID: that of the specification, which is longer than ACPI
// allows, or the one that Hyper-V added for that reason.
func generation() []byte {
	return device(nameGeneration,
		named("_HID", text("VITR0001")),
		named("_CID", pack(text("VM_Gen_Counter"), text("VMGENCTR"))),
		named("_DDN", text("VM_Gen_Counter")),
		named("ADDR", pack(integer(uint64(GenerationID)&0xffff_ffff), integer(uint64(GenerationID)>>32))))
}

// chips are those of a PC that a guest cannot find by itself: without a
// legacy PIC, interrupt lines are known from here only.
func chips(c *Config) (b []byte) {
	if c.COM1 {
		b = append(b, device("COM1", named("_HID", eisaID("PNP0501")), named("_UID", integer(1)),
			crs(ports(0x3f8, 8), interrupt(4)))...)
	}
	if c.COM2 {
		b = append(b, device("COM2", named("_HID", eisaID("PNP0501")), named("_UID", integer(2)),
			crs(ports(0x2f8, 8), interrupt(3)))...)
	}
	if c.RTC {
		b = append(b, device("RTC", named("_HID", eisaID("PNP0B00")), crs(ports(0x70, 2), interrupt(8)))...)
	}
	if c.PVPanic {
		b = append(b, device("PEVT", named("_HID", text("QEMU0001")), named("_STA", integer(0xf)),
			crs(ports(PortPVPanic, 1)))...)
	}
	return b
}

// virtioMMIO are virtio-mmio devices by the id that Linux's driver has for
// them (drivers/virtio/virtio_mmio.c). Their DMA is coherent.
func virtioMMIO(c *Config) (b []byte) {
	for n, v := range c.VirtioMMIO {
		b = append(b, device(fmt.Sprintf("V%03X", n),
			named("_HID", text("LNRO0005")), named("_UID", integer(uint64(n))), named("_CCA", integer(1)),
			crs(fixedMemory(uint32(v.Addr), v.Size), interrupt(v.GSI)))...)
	}
	return b
}

// hostBridge is the root of the PCI bus. It has no _PRT: no device has an
// interrupt pin. The second device claims the configuration space, without
// which Linux does not use it (pci_mmcfg_check_reserved).
func hostBridge(c *Config) []byte {
	p := c.PCI
	if p == nil {
		return nil
	}
	windows := [][]byte{addressSpace16(spaceBus, 0, 0, uint64(p.LastBus)+1)}
	if p.ConfigIO {
		windows = append(windows, ports(0xcf8, 8))
	}
	if p.IOWindow.Size > 0 {
		windows = append(windows, addressSpace16(spaceIO, ioWholeRange, uint64(p.IOWindow.Base), p.IOWindow.Size))
	}
	if p.Window.Size > 0 {
		windows = append(windows, addressSpace32(spaceMemory, memoryRW, uint64(p.Window.Base), p.Window.Size))
	}
	if p.Window64.Size > 0 {
		windows = append(windows, addressSpace64(spaceMemory, memoryRW, uint64(p.Window64.Base), p.Window64.Size))
	}
	bridge := device("PCI0",
		named("_HID", eisaID("PNP0A08")), named("_CID", eisaID("PNP0A03")),
		named("_UID", integer(0)), named("_SEG", integer(0)), named("_BBN", integer(0)), named("_CCA", integer(1)),
		crs(windows...))
	return append(bridge, device("MRES", named("_HID", eisaID("PNP0C02")),
		crs(fixedMemory(uint32(p.ECAM), p.ECAMSize())))...)
}

// ECAMSize is the size of the configuration space.
func (p *PCI) ECAMSize() uint32 { return (uint32(p.LastBus) + 1) << 20 }
