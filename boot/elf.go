package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// debug/elf is not used: its documentation says that it is not hardened
// against adversarial input, and a kernel needs only the two headers below.

// ELF constants (System V ABI, "ELF Header" and "Program Header").
const (
	elfMagic     = "\x7fELF"
	elfClass32   = 1
	elfClass64   = 2
	elfLSB       = 1
	elfTypeExec  = 2
	elfTypeDyn   = 3
	machine386   = 3
	machineAMD64 = 62
	ptLoad       = 1
	ptNote       = 4

	elf32HeaderSize, elf32PhdrSize = 52, 32
	elf64HeaderSize, elf64PhdrSize = 64, 56

	// maxPhdrs bounds the program headers: a kernel has about five.
	maxPhdrs = 128
	// maxNotes bounds the bytes of notes that are searched.
	maxNotes = 1 << 20
)

// segment is a PT_LOAD program header: size bytes of the file from offset go
// to addr, followed by zeros up to memSize.
type segment struct {
	offset, size  uint64
	addr, memSize uint64 // physical
	virtual       uint64
}

func (s *segment) end() uint64 { return s.addr + s.memSize }

// elfImage is what matters of an ELF executable.
type elfImage struct {
	is64     bool
	entry    uint64 // e_entry
	segments []segment
	pvhEntry uint64 // physical address in the Xen note; 0: no such note
}

// elfHeader is what matters of an ELF header. The fields of both classes:
//
//	ELF32 header                 ELF64 header
//	 0  e_ident[16]               0  e_ident[16]
//	16  e_type, e_machine (2+2)  16  e_type, e_machine (2+2)
//	20  e_version (4)            20  e_version (4)
//	24  e_entry (4)              24  e_entry (8)
//	28  e_phoff (4)              32  e_phoff (8)
//	32  e_shoff (4)              40  e_shoff (8)
//	36  e_flags (4)              48  e_flags (4)
//	40  e_ehsize (2)             52  e_ehsize (2)
//	42  e_phentsize (2)          54  e_phentsize (2)
//	44  e_phnum (2)              56  e_phnum (2)
//
//	ELF32 program header         ELF64 program header
//	 0  p_type (4)                0  p_type (4)
//	 4  p_offset (4)              4  p_flags (4)
//	 8  p_vaddr (4)               8  p_offset (8)
//	12  p_paddr (4)              16  p_vaddr (8)
//	16  p_filesz (4)             24  p_paddr (8)
//	20  p_memsz (4)              32  p_filesz (8)
//	24  p_flags (4)              40  p_memsz (8)
//	28  p_align (4)              48  p_align (8)
type elfHeader struct {
	is64                      bool
	entry, phoff              uint64
	kind, machine             uint16
	phentsize, phnum, phdrLen uint16
}

// parseELF reads the headers of an ELF executable of size bytes.
func parseELF(r io.ReaderAt, size uint64) (*elfImage, error) {
	h, err := readELFHeader(r)
	if err != nil {
		return nil, err
	}
	if h.phentsize != h.phdrLen {
		return nil, fmt.Errorf("ELF program headers of %d bytes: want %d", h.phentsize, h.phdrLen)
	}
	if h.phnum == 0 || h.phnum > maxPhdrs {
		return nil, fmt.Errorf("ELF with %d program headers: want 1 to %d", h.phnum, maxPhdrs)
	}
	table := make([]byte, int(h.phnum)*int(h.phdrLen))
	if err := readAt(r, table, h.phoff); err != nil {
		return nil, fmt.Errorf("ELF program headers: %w", err)
	}
	img := &elfImage{is64: h.is64, entry: h.entry}
	notes := uint64(maxNotes)
	for i := range int(h.phnum) {
		kind, align, s := programHeader(table[i*int(h.phdrLen):], h.is64)
		switch {
		case kind == ptLoad && s.memSize > 0:
			if err := s.check(size); err != nil {
				return nil, fmt.Errorf("ELF segment %d: %w", i, err)
			}
			img.segments = append(img.segments, s)
		case kind == ptNote && img.pvhEntry == 0 && s.size <= notes:
			notes -= s.size
			if img.pvhEntry, err = readPVHNote(r, s, size, align); err != nil {
				return nil, fmt.Errorf("ELF note segment %d: %w", i, err)
			}
		}
	}
	if len(img.segments) == 0 {
		return nil, errors.New("ELF without anything to load")
	}
	return img, nil
}

func readELFHeader(r io.ReaderAt) (h elfHeader, err error) {
	var b [elf64HeaderSize]byte
	if err := readAt(r, b[:elf32HeaderSize], 0); err != nil {
		return h, fmt.Errorf("ELF header: %w", err)
	}
	le := binary.LittleEndian
	h.kind, h.machine = le.Uint16(b[16:]), le.Uint16(b[18:])
	switch {
	case string(b[:4]) != elfMagic:
		return h, errors.New("no ELF magic")
	case b[5] != elfLSB:
		return h, errors.New("ELF is big-endian: want one for x86-64")
	case h.kind != elfTypeExec && h.kind != elfTypeDyn:
		return h, fmt.Errorf("ELF type %d is not an executable", h.kind)
	case h.machine != machineAMD64 && h.machine != machine386:
		return h, fmt.Errorf("ELF for machine %d: want one for x86-64 (%d)", h.machine, machineAMD64)
	}
	switch b[4] {
	case elfClass32:
		h.entry, h.phoff = uint64(le.Uint32(b[24:])), uint64(le.Uint32(b[28:]))
		h.phentsize, h.phnum, h.phdrLen = le.Uint16(b[42:]), le.Uint16(b[44:]), elf32PhdrSize
	case elfClass64:
		if err := readAt(r, b[:], 0); err != nil {
			return h, fmt.Errorf("ELF header: %w", err)
		}
		h.is64 = true
		h.entry, h.phoff = le.Uint64(b[24:]), le.Uint64(b[32:])
		h.phentsize, h.phnum, h.phdrLen = le.Uint16(b[54:]), le.Uint16(b[56:]), elf64PhdrSize
	default:
		return h, fmt.Errorf("ELF class %d is neither 32 nor 64 bits", b[4])
	}
	return h, nil
}

func programHeader(b []byte, is64 bool) (kind uint32, align uint64, s segment) {
	le := binary.LittleEndian
	kind = le.Uint32(b)
	if is64 {
		s = segment{offset: le.Uint64(b[8:]), virtual: le.Uint64(b[16:]), addr: le.Uint64(b[24:]),
			size: le.Uint64(b[32:]), memSize: le.Uint64(b[40:])}
		return kind, le.Uint64(b[48:]), s
	}
	s = segment{offset: uint64(le.Uint32(b[4:])), virtual: uint64(le.Uint32(b[8:])), addr: uint64(le.Uint32(b[12:])),
		size: uint64(le.Uint32(b[16:])), memSize: uint64(le.Uint32(b[20:]))}
	return kind, uint64(le.Uint32(b[28:])), s
}

// check makes sure that the segment is inside a file of fileSize bytes and
// that its addresses do not wrap.
func (s *segment) check(fileSize uint64) error {
	switch {
	case s.size > s.memSize:
		return fmt.Errorf("%d bytes in the file, %d in memory", s.size, s.memSize)
	case s.offset > fileSize || s.size > fileSize-s.offset:
		return fmt.Errorf("%d bytes at offset %d lie past the file's %d: it is cut short", s.size, s.offset, fileSize)
	case s.memSize > math.MaxUint64-s.addr || s.memSize > math.MaxUint64-s.virtual:
		return fmt.Errorf("%d bytes at address %#x wrap", s.memSize, s.addr)
	case s.addr < uint64(highMemory):
		return fmt.Errorf("address %#x is below 1 MiB, where the boot parameters go: link the kernel at 1 MiB or higher", s.addr)
	}
	return nil
}

// span returns the first physical address and the end of all segments.
func (img *elfImage) span() (low, high uint64) {
	low = math.MaxUint64
	for i := range img.segments {
		low, high = min(low, img.segments[i].addr), max(high, img.segments[i].end())
	}
	return low, high
}

// physicalEntry turns e_entry into a physical address. Linux puts the physical
// address there (ENTRY(phys_startup_64) in vmlinux.lds.S); others put the
// virtual one, as the ABI says.
func (img *elfImage) physicalEntry() (addr uint64, isPhysical bool, err error) {
	for i := range img.segments {
		if s := &img.segments[i]; img.entry >= s.addr && img.entry < s.end() {
			return img.entry, true, nil
		}
	}
	for i := range img.segments {
		if s := &img.segments[i]; img.entry >= s.virtual && img.entry-s.virtual < s.memSize {
			return img.entry - s.virtual + s.addr, false, nil
		}
	}
	return 0, false, fmt.Errorf("ELF entry point %#x is in no segment", img.entry)
}

// choose settles on a protocol that the image offers. Of two it takes the
// Linux entry, which skips the kernel's 32-bit start; but an image with a PVH
// note whose e_entry is virtual is no Linux, and its note is what it wants.
func (img *elfImage) choose(want Protocol) (Protocol, uint64, error) {
	pvhErr := img.checkPVH()
	entry, physical, linuxErr := img.physicalEntry()
	if !img.is64 {
		linuxErr = errors.New("a 32-bit ELF has no 64-bit entry")
	}
	switch {
	case want == ProtocolPVH && pvhErr != nil:
		return want, 0, pvhErr
	case want == ProtocolPVH:
		return want, img.pvhEntry, nil
	case want == ProtocolLinux && linuxErr != nil:
		return want, 0, linuxErr
	case want == ProtocolLinux, linuxErr == nil && (physical || pvhErr != nil):
		return ProtocolLinux, entry, nil
	case pvhErr == nil:
		return ProtocolPVH, img.pvhEntry, nil
	}
	return want, 0, fmt.Errorf("%w, and %w", linuxErr, pvhErr)
}

func (img *elfImage) checkPVH() error {
	if img.pvhEntry == 0 {
		return errors.New("no PVH note (a Linux needs CONFIG_PVH=y for one)")
	}
	for i := range img.segments {
		if s := &img.segments[i]; img.pvhEntry >= s.addr && img.pvhEntry < s.end() {
			return nil
		}
	}
	return fmt.Errorf("PVH entry point %#x is in no segment", img.pvhEntry)
}

// readAt fills p from offset, or fails.
func readAt(r io.ReaderAt, p []byte, offset uint64) error {
	if offset > math.MaxInt64 {
		return io.ErrUnexpectedEOF
	}
	n, err := r.ReadAt(p, int64(offset))
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
