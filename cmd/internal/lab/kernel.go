package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// haltKernel is an ELF kernel of one HLT at 1 MiB.
func haltKernel() []byte { return elfProgram([]byte{0xf4}, 1<<20) }

// elfProgram is an ELF executable of code that begins at its first byte and does
// not care where it is; the file is at addr, a multiple of the page size.
func elfProgram(code []byte, addr uint64) []byte {
	const headers = 64 + 56
	size := uint64(headers + len(code))
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	b := new(bytes.Buffer)
	for _, v := range []any{
		elf.Header64{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
			Entry: addr + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: 7, Vaddr: addr, Paddr: addr,
			Filesz: size, Memsz: size, Align: 4096},
		code,
	} {
		_ = binary.Write(b, binary.LittleEndian, v) // to a buffer, of sized fields: cannot fail
	}
	return b.Bytes()
}
