package boot

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

const noteXenPhys32Entry = 18 // XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h)

// readPVHNote searches a PT_NOTE segment for the note that gives the PVH entry
// point (Xen docs/misc/pvh.pandoc), and returns 0 if it is not there.
func readPVHNote(r io.ReaderAt, s segment, fileSize, align uint64) (uint64, error) {
	if s.offset > fileSize || s.size > fileSize-s.offset {
		return 0, fmt.Errorf("%d bytes at offset %d lie past the file's %d: it is cut short", s.size, s.offset, fileSize)
	}
	b := make([]byte, s.size)
	if err := readAt(r, b, s.offset); err != nil {
		return 0, err
	}
	return findPVHNote(b, align)
}

// findPVHNote walks the notes in b. The ABI knows one alignment, 4, but
// segments of GNU properties use 8 (p_align tells).
//
//	0  n_namesz (4)   length of the name with its NUL: 4
//	4  n_descsz (4)   4 or 8
//	8  n_type (4)     18
//	12 name           "Xen\0", padded to the alignment
//	16 descriptor     the physical address, padded too
func findPVHNote(b []byte, align uint64) (uint64, error) {
	if align != 8 {
		align = 4
	}
	le := binary.LittleEndian
	for len(b) >= 12 {
		nameLen, descLen, kind := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[8:])
		b = b[12:]
		// Both are below 2^32: no sum can wrap.
		desc := (12+nameLen+align-1)&^(align-1) - 12
		if desc+descLen > uint64(len(b)) {
			return 0, fmt.Errorf("a note of %d+%d bytes does not fit in its segment", nameLen, descLen)
		}
		if kind == noteXenPhys32Entry && string(b[:nameLen]) == "Xen\x00" {
			return pvhAddress(b[desc : desc+descLen])
		}
		next := (12+desc+descLen+align-1)&^(align-1) - 12
		b = b[min(next, uint64(len(b))):]
	}
	return 0, nil
}

func pvhAddress(desc []byte) (a uint64, err error) {
	switch len(desc) {
	case 4:
		a = uint64(binary.LittleEndian.Uint32(desc))
	case 8:
		a = binary.LittleEndian.Uint64(desc)
	default:
		return 0, fmt.Errorf("PVH note with a descriptor of %d bytes: want 4 or 8", len(desc))
	}
	if a == 0 || a > math.MaxUint32 {
		return 0, fmt.Errorf("PVH entry point %#x is no 32-bit address", a)
	}
	return a, nil
}
