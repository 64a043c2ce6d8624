package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// haltKernel is an ELF kernel of one HLT at 1 MiB.
func haltKernel() []byte {
	const addr, headers = 1 << 20, 64 + 56
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	b := new(bytes.Buffer)
	for _, v := range []any{
		elf.Header64{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
			Entry: addr + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: 7, Vaddr: addr, Paddr: addr,
			Filesz: headers + 1, Memsz: headers + 1, Align: 4096},
		byte(0xf4),
	} {
		_ = binary.Write(b, binary.LittleEndian, v) // to a buffer, of sized fields: cannot fail
	}
	return b.Bytes()
}
