package symbols

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
)

// WriteMap writes the table as a System.map: address, type and name, a line each.
func (t *Table) WriteMap(w io.Writer) error {
	var b bytes.Buffer
	for _, s := range t.list {
		fmt.Fprintf(&b, "%016x t %s\n", s.addr, s.name)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteELF writes the table as the symbol table of an x86-64 ELF file without
// code, for debuggers (GDB: symbol-file, or as its argument).
func (t *Table) WriteELF(w io.Writer) error {
	const (
		headerSize  = 64
		sectionSize = 64
		symbolSize  = 24
		text        = 1 // section numbers
	)
	names, syms := []byte{0}, make([]byte, symbolSize)
	le := binary.LittleEndian
	for i, s := range t.list {
		syms = le.AppendUint32(syms, uint32(len(names)))
		syms = append(syms, byte(elf.STT_FUNC)|byte(elf.STB_GLOBAL)<<4, 0)
		syms = le.AppendUint16(syms, text)
		syms = le.AppendUint64(syms, s.addr)
		syms = le.AppendUint64(syms, t.length(i))
		names = append(append(names, s.name...), 0)
	}
	sectionNames := []byte("\x00.text\x00.symtab\x00.strtab\x00.shstrtab\x00")
	low := t.list[0].addr
	high := t.list[len(t.list)-1].addr + t.length(len(t.list)-1)
	at := uint64(headerSize)
	section := func(name int, kind elf.SectionType, link, size, align, entry uint64) elf.Section64 {
		s := elf.Section64{Name: uint32(name), Type: uint32(kind), Off: at, Size: size, Link: uint32(link), Addralign: align, Entsize: entry}
		at += size
		return s
	}
	code := elf.Section64{Name: 1, Type: uint32(elf.SHT_NOBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR),
		Addr: low, Off: at, Size: high - low, Addralign: 16}
	sections := []elf.Section64{{}, code,
		section(7, elf.SHT_SYMTAB, 3, uint64(len(syms)), 8, symbolSize),
		section(15, elf.SHT_STRTAB, 0, uint64(len(names)), 1, 0),
		section(23, elf.SHT_STRTAB, 0, uint64(len(sectionNames)), 1, 0)}
	sections[2].Info = 1 // the first symbol that is not local
	header := elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: at, Ehsize: headerSize,
		Shentsize: sectionSize, Shnum: uint16(len(sections)), Shstrndx: uint16(len(sections) - 1)}
	for _, part := range []any{header, syms, names, sectionNames, sections} {
		if err := binary.Write(w, le, part); err != nil {
			return err
		}
	}
	return nil
}

// length is the size of function i: to the next one where nobody says.
func (t *Table) length(i int) uint64 {
	s := &t.list[i]
	switch {
	case s.size != 0:
		return s.size
	case i+1 < len(t.list):
		return min(t.list[i+1].addr-s.addr, reach)
	}
	return 1
}
