package boot

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Constants of the MultiProcessor Specification 1.4.
const (
	mpProcessor = 0 // entry types, table 4-3
	mpBus       = 1
	mpIOAPIC    = 2
	mpInterrupt = 3
	mpLocal     = 4

	mpInt    = 0 // interrupt types, table 4-10
	mpNMI    = 1
	mpExtInt = 3

	mpEdge  = 0x5 // flags, table 4-10: active high (1), edge (1<<2)
	mpLevel = 0xd // active high, level (3<<2)

	mpEnabled   = 1
	mpBootstrap = 2

	mpAllCPUs      = 0xff
	lapicVersion   = 0x14
	ioapicVersion  = 0x11
	ioapicPins     = 24
	cascadePin     = 2
	mpHeaderSize   = 44
	mpFloatingSize = 16
)

// mpTable encodes the floating pointer and the configuration table behind it,
// to lie at addr.
//
//	floating pointer (§4.1)          configuration table header (§4.2)
//	 0  "_MP_"                        0  "PCMP"
//	 4  table's address (4)           4  length (2), of header and entries
//	 8  length (1) = 1 paragraph      6  revision (1) = 4
//	 9  revision (1) = 4              7  checksum (1)
//	10  checksum (1)                  8  OEM id (8), product id (12)
//	11  features (5) = 0: a table    28  OEM table: address (4), size (2)
//	    follows, no IMCR             34  number of entries (2)
//	                                 36  local APICs' address (4)
//	                                 40  extended table (2+1), reserved (1)
//
// Entries: the CPUs, whose APIC ids are 0…cpus-1 and of which 0 boots; an ISA
// bus; the I/O APIC, whose id follows the CPUs'; one interrupt for each pin but
// the PIC's cascade, of the ISA line of the same number; ExtINT and NMI to
// LINT0 and LINT1 of all CPUs. Lines 16 to 23 no ISA bus ever had, yet they are
// described on it too: Linux takes the number of an ISA line as it is, and
// there is no PCI routing to describe.
func mpTable(addr memory.Addr, cpus int, levelLines []uint32) ([]byte, error) {
	if cpus < 1 || cpus > MaxCPUs {
		return nil, fmt.Errorf("MP table: %d CPUs: want 1 to %d", cpus, MaxCPUs)
	}
	entries, n := mpEntries(cpus, levelLines)
	le := binary.LittleEndian
	b := make([]byte, mpFloatingSize+mpHeaderSize, mpFloatingSize+mpHeaderSize+len(entries))
	copy(b, "_MP_")
	le.PutUint32(b[4:], uint32(addr)+mpFloatingSize)
	b[8], b[9] = 1, 4
	b[10] = checksum(b[:mpFloatingSize])

	b = append(b, entries...)
	t := b[mpFloatingSize:]
	copy(t, "PCMP")
	le.PutUint16(t[4:], uint16(len(t)))
	t[6] = 4
	copy(t[8:], "VITRINE VIRTUAL     ")
	le.PutUint16(t[34:], uint16(n))
	le.PutUint32(t[36:], acpi.LocalAPIC)
	t[7] = checksum(t)
	return b, nil
}

func mpEntries(cpus int, levelLines []uint32) (b []byte, n int) {
	ioapic := uint8(cpus)
	le := binary.LittleEndian
	// Processor (§4.3.1): type, APIC id, its version, flags, signature (4),
	// feature flags (4), reserved (8). The signature and flags are those that
	// CPUID gives; zero leaves the kernel to ask that.
	for id := range cpus {
		flags := uint8(mpEnabled)
		if id == 0 {
			flags |= mpBootstrap
		}
		b = append(b, mpProcessor, uint8(id), lapicVersion, flags)
		b = append(b, make([]byte, 16)...)
		n++
	}
	// Bus (§4.3.2): type, id, name (6). I/O APIC (§4.3.3): type, id, version,
	// flags, address (4).
	b = append(b, mpBus, 0)
	b = append(b, "ISA   "...)
	b = append(b, mpIOAPIC, ioapic, ioapicVersion, mpEnabled)
	b = le.AppendUint32(b, acpi.IOAPIC)
	n += 2
	// Interrupt (§4.3.4, §4.3.5): type, interrupt type, flags (2), source bus,
	// its line, destination APIC, its pin.
	interrupt := func(entry, kind uint8, flags uint16, line, apic, pin uint8) {
		b = append(b, entry, kind)
		b = le.AppendUint16(b, flags)
		b = append(b, 0, line, apic, pin)
		n++
	}
	for pin := range uint8(ioapicPins) {
		flags := uint16(mpEdge)
		if slices.Contains(levelLines, uint32(pin)) {
			flags = mpLevel
		}
		if pin != cascadePin {
			interrupt(mpInterrupt, mpInt, flags, pin, ioapic, pin)
		}
	}
	interrupt(mpLocal, mpExtInt, 0, 0, mpAllCPUs, 0)
	interrupt(mpLocal, mpNMI, 0, 0, mpAllCPUs, 1)
	return b, n
}

// checksum is the byte that makes the sum of b zero.
func checksum(b []byte) (sum uint8) {
	for _, c := range b {
		sum -= c
	}
	return sum
}
