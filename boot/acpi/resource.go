package acpi

import "encoding/binary"

// Resource descriptors (ACPI 6.4 §6.4), the contents of _CRS.

// crs is Name (_CRS, ResourceTemplate () { … }).
func crs(descriptors ...[]byte) []byte {
	const endTag = 0x79 // §6.4.2.9; a checksum of 0 counts as right
	return named("_CRS", buffer(append(descriptors, []byte{endTag, 0})...))
}

// ports is an I/O port descriptor (§6.4.2.5) at a fixed place.
//
//	0  0x47            4  highest base (2)
//	1  16-bit decode   6  alignment (1)
//	2  lowest base (2) 7  length (1)
func ports(base uint16, n uint8) []byte {
	le := binary.LittleEndian
	b := le.AppendUint16([]byte{0x47, 1}, base)
	return append(le.AppendUint16(b, base), 1, n)
}

// interrupt is an extended interrupt descriptor (§6.4.3.6): consumer,
// edge-triggered, active high, exclusive.
//
//	0  0x89, length 6 (2)   4  number of interrupts = 1
//	3  flags                5  GSI (4)
func interrupt(gsi uint32) []byte {
	const consumer, edge = 1 << 0, 1 << 1
	return binary.LittleEndian.AppendUint32([]byte{0x89, 6, 0, consumer | edge, 1}, gsi)
}

// fixedMemory is a 32-bit fixed memory descriptor (§6.4.3.4), read and write.
//
//	0  0x86, length 9 (2)   4  base (4)
//	3  writable             8  length (4)
func fixedMemory(base, size uint32) []byte {
	le := binary.LittleEndian
	return le.AppendUint32(le.AppendUint32([]byte{0x86, 9, 0, 1}, base), size)
}

// Address space descriptors (§6.4.3.5): what a host bridge hands to its bus.
//
//	0  0x88 word, 0x87 double word, 0x8a quad word; length (2)
//	3  type: 0 memory, 1 ports, 2 bus numbers
//	4  general flags: both ends fixed
//	5  flags of the type
//	6  granularity, first, last, translation, length: 2, 4 or 8 bytes each
const (
	spaceMemory, spaceIO, spaceBus = 0, 1, 2

	endsFixed    = 1<<2 | 1<<3
	memoryRW     = 1 // not cacheable; "prefetchable" would keep ordinary BARs out
	ioWholeRange = 3
)

func addressSpace16(kind, flags uint8, base, size uint64) []byte {
	b := []byte{0x88, 13, 0, kind, endsFixed, flags}
	for _, v := range []uint64{0, base, base + size - 1, 0, size} {
		b = binary.LittleEndian.AppendUint16(b, uint16(v))
	}
	return b
}

func addressSpace32(kind, flags uint8, base, size uint64) []byte {
	b := []byte{0x87, 23, 0, kind, endsFixed, flags}
	for _, v := range []uint64{0, base, base + size - 1, 0, size} {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return b
}

func addressSpace64(kind, flags uint8, base, size uint64) []byte {
	b := []byte{0x8a, 43, 0, kind, endsFixed, flags}
	for _, v := range []uint64{0, base, base + size - 1, 0, size} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
