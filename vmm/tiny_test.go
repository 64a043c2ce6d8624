package vmm_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// tinyKernel writes an ELF kernel that consists of code, entered in 64-bit
// mode at 1 MiB, and returns its path.
func tinyKernel(t testing.TB, code []byte) string {
	t.Helper()
	const addr, headers = 1 << 20, 64 + 56
	var b bytes.Buffer
	le := binary.LittleEndian
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	for _, v := range []any{
		elf.Header64{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
			Entry: addr + headers, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: 7, Vaddr: addr, Paddr: addr,
			Filesz: uint64(headers + len(code)), Memsz: uint64(headers + len(code)), Align: 4096},
		code,
	} {
		if err := binary.Write(&b, le, v); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "tiny.elf")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// powerOff is the code that ends a run by the debug port: mov edx, 0x510;
// mov al, 0x11; out dx, al; jmp $.
var powerOff = []byte{0xba, 0x10, 0x05, 0, 0, 0xb0, 0x11, 0xee, 0xeb, 0xfe}
