// Package symbols names addresses in a guest kernel: from the symbol table of
// its ELF file, from a System.map, or from the table that the kernel carries in
// its own memory.
package symbols

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Table is the functions of a kernel, by address. A nil Table knows none.
type Table struct{ list []symbol }

type symbol struct {
	addr, size uint64 // size 0: not known
	name       string
}

// reach is how far behind a symbol of unknown size an address is still named
// after it.
const reach = 1 << 20

// Open reads a vmlinux or a System.map.
func Open(path string) (*Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("symbols: %w", err)
	}
	defer f.Close()
	t, err := Read(f)
	if err != nil {
		return nil, fmt.Errorf("symbols: %s: %w", path, err)
	}
	return t, nil
}

// Read reads a table from r.
func Read(r io.ReaderAt) (*Table, error) {
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil {
		return nil, errors.New("an empty file: want a vmlinux or a System.map")
	}
	if string(magic[:]) == elf.ELFMAG {
		return readELF(r)
	}
	return readMap(io.NewSectionReader(r, 0, 1<<40))
}

func readELF(r io.ReaderAt) (*Table, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	syms, err := f.Symbols()
	if errors.Is(err, elf.ErrNoSymbols) {
		image, err := io.ReadAll(io.NewSectionReader(r, 0, 1<<40))
		if err != nil {
			return nil, err
		}
		return FromKernel(image)
	}
	if err != nil {
		return nil, err
	}
	t := new(Table)
	for _, s := range syms {
		kind := elf.ST_TYPE(s.Info)
		if (kind == elf.STT_FUNC || kind == elf.STT_NOTYPE) && s.Section != elf.SHN_UNDEF && s.Section != elf.SHN_ABS && s.Name != "" {
			t.list = append(t.list, symbol{s.Value, s.Size, s.Name})
		}
	}
	return t.sorted()
}

// readMap reads lines of an address, a type as nm(1) has it, and a name.
func readMap(r io.Reader) (*Table, error) {
	t := new(Table)
	sc := bufio.NewScanner(r)
	for line := 1; sc.Scan(); line++ {
		fields := strings.Fields(sc.Text())
		if len(fields) < 3 {
			if len(bytes.TrimSpace(sc.Bytes())) == 0 {
				continue
			}
			return nil, fmt.Errorf("line %d: want an address, a type and a name: neither an ELF file nor a System.map", line)
		}
		addr, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil || len(fields[1]) != 1 {
			return nil, fmt.Errorf("line %d: want an address, a type and a name: neither an ELF file nor a System.map", line)
		}
		if strings.Contains("tTwW", fields[1]) {
			t.list = append(t.list, symbol{addr: addr, name: fields[2]})
		}
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	return t.sorted()
}

func (t *Table) sorted() (*Table, error) {
	if len(t.list) == 0 {
		return nil, errors.New("it names no functions")
	}
	// Of several names for an address, the one with a size, then the shortest
	// without a prefix of the linker's, is most use.
	slices.SortFunc(t.list, func(a, b symbol) int {
		return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(b.size, a.size), cmp.Compare(len(a.name), len(b.name)), cmp.Compare(a.name, b.name))
	})
	t.list = slices.CompactFunc(t.list, func(a, b symbol) bool { return a.addr == b.addr })
	return t, nil
}

// Len is how many functions the table has.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	return len(t.list)
}

// Name is the function that addr is in, with the offset: "start_kernel+0x1c".
// It is "" where there is none.
func (t *Table) Name(addr uint64) string {
	name, off, _, ok := t.Find(addr)
	switch {
	case !ok:
		return ""
	case off == 0:
		return name
	}
	return fmt.Sprintf("%s+%#x", name, off)
}

// Find is the function that addr is in, how far in, and how many of the
// addresses from addr on are in it too.
func (t *Table) Find(addr uint64) (name string, off, more uint64, ok bool) {
	if t == nil {
		return "", 0, 0, false
	}
	i, found := slices.BinarySearchFunc(t.list, addr, func(s symbol, a uint64) int { return cmp.Compare(s.addr, a) })
	if !found {
		i--
	}
	if i < 0 {
		return "", 0, 0, false
	}
	s := &t.list[i]
	off = addr - s.addr
	size := uint64(reach)
	switch {
	case i < len(t.list)-1:
		size = min(size, t.list[i+1].addr-s.addr)
	case s.size != 0:
		size = min(size, s.size)
	}
	if off >= size {
		return "", 0, 0, false
	}
	return s.name, off, size - off, true
}

// Addr is the address of the function called name.
func (t *Table) Addr(name string) (uint64, bool) {
	if t == nil {
		return 0, false
	}
	for _, s := range t.list {
		if s.name == name {
			return s.addr, true
		}
	}
	return 0, false
}
