// Command align prepares a statically linked program for huge mappings of its
// file: align FILE.
//
// A guest that maps its root from persistent memory takes a page fault for
// every 4 KiB it touches, thousands of instructions each, unless a mapping
// covers an aligned 2 MiB whole. The linker (-R 0x200000) has put the segments
// at such addresses; this makes the read-only ones reach up to the next, over
// what is padding in the file.
package main

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
)

const huge = 2 << 20

// Offsets in a program header (ELF-64 object file format, version 1.5).
const (
	fileSize = 32
	memSize  = 40
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: align FILE")
		os.Exit(2)
	}
	if err := align(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "align %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func align(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var header elf.Header64
	if err := binary.Read(f, binary.LittleEndian, &header); err != nil {
		return err
	}
	program, err := elf.NewFile(f)
	if err != nil {
		return err
	}
	end := int64(0) // of what is loaded
	last := -1      // the read-only segment that ends where the next begins
	for i, p := range program.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Vaddr%huge != p.Off%huge || p.Vaddr%huge != 0 {
			return fmt.Errorf("a segment at %#x, in the file at %#x: link with -R %#x", p.Vaddr, p.Off, huge)
		}
		if last >= 0 {
			before := program.Progs[last]
			size := p.Vaddr - before.Vaddr
			if p.Off-before.Off != size {
				return fmt.Errorf("segments at %#x and %#x are not as far apart in the file", before.Vaddr, p.Vaddr)
			}
			at := int64(header.Phoff) + int64(last)*int64(header.Phentsize)
			if err := put(f, at, size); err != nil {
				return err
			}
		}
		end = max(end, int64(p.Off+p.Filesz))
		last = -1
		if p.Flags&elf.PF_W == 0 {
			last = i
		}
	}
	return cut(f, end)
}

// cut removes what is not loaded: the table of sections, which the linker put
// behind more padding.
func cut(f *os.File, end int64) error {
	// e_shoff; then e_shentsize, e_shnum and e_shstrndx.
	if _, err := f.WriteAt(make([]byte, 8), 40); err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, 6), 58); err != nil {
		return err
	}
	if err := f.Truncate(end); err != nil {
		return err
	}
	return f.Close()
}

func put(f *os.File, at int64, size uint64) error {
	b := binary.LittleEndian.AppendUint64(nil, size)
	if _, err := f.WriteAt(b, at+fileSize); err != nil {
		return err
	}
	_, err := f.WriteAt(b, at+memSize)
	return err
}
