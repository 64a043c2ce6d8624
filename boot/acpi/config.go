// Package acpi builds the ACPI tables of a machine without firmware: the
// hardware-reduced profile (ACPI 6.4 §4.1), in which no register block of a
// chip set exists, power management goes through a sleep control register, and
// events arrive through a generic event device.
package acpi

import "github.com/vitrine-vmm/vitrine/vmm/memory"

// Where the tables lie: the part of the BIOS area that Linux and other systems
// search for the root pointer, which the E820 map reserves.
const (
	Base memory.Addr = 0xe0000 // the RSDP; the tables follow
	End  memory.Addr = 0xff000 // end of the tables

	// GenerationID is where the 16 bytes of the VM generation identifier lie.
	// After a restore the VMM writes new ones there and raises event
	// EventGeneration.
	GenerationID memory.Addr = 0xff000
)

// Registers of the machine's power management, I/O ports (ACPI 6.4 §4.8.3.7 and
// §4.8.3.6; the event port is ours, read by the _EVT method of the DSDT).
const (
	PortSleepControl = 0x600 // 8 bits: SLP_TYPx in bits 2…4, SLP_EN in bit 5
	PortSleepStatus  = 0x601 // 8 bits: WAK_STS in bit 7
	PortReset        = 0x602 // 8 bits: ResetValue resets
	PortEvents       = 0x604 // 32 bits: pending events, cleared by reading
	PortPVPanic      = 0x505

	ResetValue = 0x01
	SleepS5    = 5 // SLP_TYPx of soft-off

	EventPowerButton = 1 << 0
	EventGeneration  = 1 << 1

	// EventGSI is the generic event device's line: edge-triggered, active
	// high. Reading PortEvents takes all events at once, so one edge for each
	// is enough and a line held up would serve nothing.
	EventGSI = 9
)

// Config is the machine that the tables describe.
type Config struct {
	CPUs       int          // 1…32; APIC ids are 0…CPUs-1
	VirtioMMIO []VirtioMMIO // in the order of their instances
	PCI        *PCI         // nil: no PCI
	COM1       bool         // port 0x3f8, GSI 4
	COM2       bool         // port 0x2f8, GSI 3
	RTC        bool         // port 0x70, GSI 8
	I8042      bool         // ports 0x60 and 0x64: a keyboard controller for reset
	PVPanic    bool         // port 0x505
	Generation *[16]byte    // the VM generation identifier; nil: no such device
}

// VirtioMMIO is a virtio-mmio device.
type VirtioMMIO struct {
	Addr memory.Addr
	Size uint32
	GSI  uint32 // edge-triggered, active high
}

// PCI is a host bridge on segment 0 whose devices interrupt by MSI-X only.
type PCI struct {
	ECAM     memory.Addr // configuration space, 1 MiB a bus
	LastBus  uint8       // buses 0…LastBus
	Window   Range       // 32-bit memory window
	Window64 Range       // 64-bit memory window; Size 0: none
	IOWindow Range       // port window; Size 0: none
	ConfigIO bool        // ports 0xcf8…0xcff work too
}

// Range is a range of addresses.
type Range struct {
	Base memory.Addr
	Size uint64
}

// Table is a table and where it goes.
type Table struct {
	Signature string // "RSDP" for the root pointer, which has no table header
	Addr      memory.Addr
	Data      []byte
}

// MaxCPUs is the number of CPUs that the tables describe at most: APIC ids up
// to 254 fit in their entries, and nobody has needed more than this.
const MaxCPUs = 32

// Addresses of the interrupt controllers, as every PC has them.
const (
	LocalAPIC = 0xfee0_0000
	IOAPIC    = 0xfec0_0000
)
