package boot

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// checkTiny makes sure that tinyKernel's segments are in memory.
func checkTiny(t *testing.T, g *memory.Guest) {
	t.Helper()
	for _, s := range tinyKernel().segments {
		n := max(s.memSize, uint64(len(s.data)))
		want := make([]byte, n)
		copy(want, s.data)
		if !bytes.Equal(at(t, g, s.addr, n), want) {
			t.Errorf("segment at %#x is not in memory", s.addr)
		}
	}
}

func TestLoadELF(t *testing.T) {
	for name, mutable := range map[string]bool{"mapped": false, "copied": true} {
		t.Run(name, func(t *testing.T) {
			g := guest(t, 64<<20)
			e, err := Load(g, Image{Kernel: file(t, "vmlinux", buildELF(tinyKernel())), Mutable: mutable,
				CommandLine: "console=ttyS0 quiet"})
			if err != nil {
				t.Fatal(err)
			}
			checkTiny(t, g)
			if e.Protocol != ProtocolLinux || e.Regs.RIP != 0x1000123 || e.Regs.RFLAGS != 2 {
				t.Errorf("entry %v %+v", e.Protocol, e.Regs)
			}
			params := at(t, g, e.Regs.RSI, paramsSize)
			cmdline := at(t, g, u32(params, hdrCmdLinePtr), 20)
			if string(cmdline) != "console=ttyS0 quiet\x00" {
				t.Errorf("command line %q", cmdline)
			}
		})
	}
}

// walk translates a virtual address through the page tables that s points to.
func walk(t *testing.T, g *memory.Guest, s *x86.Sregs, v uint64) uint64 {
	t.Helper()
	table := s.CR3
	for _, shift := range []uint{39, 30} {
		e := u64(at(t, g, table+v>>shift&511*8, 8), 0)
		if e&3 != 3 {
			t.Fatalf("%#x: entry %#x at level %d", v, e, shift)
		}
		table = e &^ 0xfff
	}
	e := u64(at(t, g, table+v>>21&511*8, 8), 0)
	if e&0x83 != 0x83 {
		t.Fatalf("%#x: entry %#x of the page directory", v, e)
	}
	return e&^0x1fffff | v&0x1fffff
}

// TestLinuxEntryState checks the state that boot.rst, "64-bit Boot Protocol",
// asks for.
func TestLinuxEntryState(t *testing.T) {
	g := guest(t, 5<<30)
	kernel := tinyKernel()
	high := uint64(memory.HoleEnd) + 0x1000_0000
	kernel.segments = append(kernel.segments, testSegment{addr: high, virtual: 0x5000, data: []byte("high")})
	e, err := Load(g, Image{Kernel: file(t, "vmlinux", buildELF(kernel))})
	if err != nil {
		t.Fatal(err)
	}
	s := x86.Sregs{APICBase: 0xfee00900, CR2: 5}
	e.Apply(&s)
	const wantCR0 = x86.CR0PE | x86.CR0PG
	if s.CR0&wantCR0 != wantCR0 || s.CR4&x86.CR4PAE == 0 || s.EFER != x86.EFERLME|x86.EFERLMA || !s.LongMode() || s.CPL() != 0 {
		t.Errorf("not in 64-bit mode: %+v", s)
	}
	if s.CS.Selector != 0x10 || s.DS.Selector != 0x18 || s.DS != s.ES || s.DS != s.SS || s.DS.Type != 3 || s.TR.Type != 11 {
		t.Errorf("segments: cs %+v ds %+v", s.CS, s.DS)
	}
	if s.APICBase != 0xfee00900 {
		t.Error("a register that no protocol mentions has changed")
	}
	gdt := at(t, g, s.GDT.Base, uint64(s.GDT.Limit)+1)
	if u64(gdt, 0x10) != 0x00af9b000000ffff || u64(gdt, 0x18) != 0x00cf93000000ffff {
		t.Errorf("GDT %x", gdt)
	}
	for _, v := range []uint64{0, e.Regs.RIP, e.Regs.RSI, 0xc000_0000, math.MaxUint32, high, 0x1_4000_0000 - 1} {
		if p := walk(t, g, &s, v); p != v {
			t.Errorf("%#x is mapped to %#x", v, p)
		}
	}
	if string(at(t, g, high, 4)) != "high" {
		t.Error("the segment above 4 GiB is not loaded")
	}
}

func TestPVHEntryState(t *testing.T) {
	g := guest(t, 64<<20)
	e, err := Load(g, Image{Kernel: file(t, "vmlinux", buildELF(tinyKernel())), Protocol: ProtocolPVH})
	if err != nil {
		t.Fatal(err)
	}
	checkTiny(t, g)
	s := x86.Sregs{EFER: x86.EFERLMA, CR4: x86.CR4PAE}
	e.Apply(&s)
	if e.Protocol != ProtocolPVH || e.Regs.RIP != 0x1000456 || s.CR0 != x86.CR0PE|x86.CR0ET || s.CR4 != 0 || s.EFER != 0 {
		t.Errorf("entry %v %+v %+v", e.Protocol, e.Regs, s)
	}
	if s.CS.DB != 1 || s.CS.L != 0 || s.CS.Limit != math.MaxUint32 || s.TR.Limit != 0x67 || s.TR.Type != 11 {
		t.Errorf("segments: cs %+v tr %+v", s.CS, s.TR)
	}
}

func TestProtocolChoice(t *testing.T) {
	linux := tinyKernel()
	noNote := tinyKernel()
	noNote.notes = nil
	virtual := tinyKernel()
	virtual.entry = 0xffffffff81000010
	virtualNoNote := virtual
	virtualNoNote.notes = nil
	only32 := tinyKernel()
	only32.bits = 32
	only32.segments = only32.segments[:1]
	only32.segments[0].virtual = 0x100_0000
	nowhere := tinyKernel()
	nowhere.entry, nowhere.notes = 0x10, nil
	for _, c := range []struct {
		name  string
		elf   testELF
		want  Protocol
		got   Protocol
		entry uint64
		err   string
	}{
		{"both, auto", linux, ProtocolAuto, ProtocolLinux, 0x1000123, ""},
		{"both, pvh", linux, ProtocolPVH, ProtocolPVH, 0x1000456, ""},
		{"both, linux", linux, ProtocolLinux, ProtocolLinux, 0x1000123, ""},
		{"no note, auto", noNote, ProtocolAuto, ProtocolLinux, 0x1000123, ""},
		{"no note, pvh", noNote, ProtocolPVH, 0, 0, "no PVH note"},
		{"virtual entry and a note, auto", virtual, ProtocolAuto, ProtocolPVH, 0x1000456, ""},
		{"virtual entry and a note, linux", virtual, ProtocolLinux, ProtocolLinux, 0x1000010, ""},
		{"virtual entry only", virtualNoNote, ProtocolAuto, ProtocolLinux, 0x1000010, ""},
		{"32 bits, auto", only32, ProtocolAuto, ProtocolPVH, 0x1000456, ""},
		{"32 bits, linux", only32, ProtocolLinux, 0, 0, "32-bit ELF has no 64-bit entry"},
		{"entry nowhere", nowhere, ProtocolAuto, 0, 0, "entry point 0x10 is in no segment"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := Load(guest(t, 64<<20), Image{Kernel: file(t, "vmlinux", buildELF(c.elf)), Protocol: c.want})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || e.Protocol != c.got || e.Regs.RIP != c.entry {
				t.Errorf("%v at %#x, %v; want %v at %#x", e.Protocol, e.Regs.RIP, err, c.got, c.entry)
			}
		})
	}
}

func TestDamagedELF(t *testing.T) {
	le := binary.LittleEndian
	const phdr = elf64HeaderSize
	put64 := func(off int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint64(b[off:], v); return b }
	}
	put16 := func(off int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint16(b[off:], v); return b }
	}
	for _, c := range []struct {
		name   string
		damage func([]byte) []byte
		err    string
	}{
		{"class", put16(4, 7|1<<8), "class 7"},
		{"byte order", func(b []byte) []byte { b[5] = 2; return b }, "big-endian"},
		{"relocatable object", put16(16, 1), "type 1 is not an executable"},
		{"other machine", put16(18, 183), "machine 183"},
		{"no program headers", put16(56, 0), "0 program headers"},
		{"too many program headers", put16(56, math.MaxUint16), "65535 program headers"},
		{"size of program headers", put16(54, 32), "32 bytes"},
		{"program headers past the end", put64(32, 1<<40), "program headers: unexpected EOF"},
		{"program headers at the end of time", put64(32, math.MaxUint64), "program headers: unexpected EOF"},
		{"segment past the file", put64(phdr+8, 1<<40), "cut short"},
		{"segment's end wraps", put64(phdr+8, math.MaxUint64), "cut short"},
		{"more in the file than in memory", put64(phdr+40, 1), "bytes in the file"},
		{"size wraps", put64(phdr+40, math.MaxUint64), "wrap"},
		{"address below 1 MiB", put64(phdr+24, 0x1000), "below 1 MiB"},
		{"address in the hole", put64(phdr+elf64PhdrSize+24, 0xd000_0000), "no guest has RAM there"},
		{"address beyond all", put64(phdr+elf64PhdrSize+24, 1<<50), "no guest has RAM there"},
		{"address that wraps", put64(phdr+24, math.MaxUint64-100), "wrap"},
		{"address above memory", put64(phdr+elf64PhdrSize+24, 80<<20), "give it at least 81 MiB"},
		{"truncated in the header", func(b []byte) []byte { return b[:50] }, "ELF header"},
		{"truncated in the 64-bit header", func(b []byte) []byte { return b[:60] }, "ELF header"},
		{"truncated in a segment", func(b []byte) []byte { return b[:9000] }, "cut short"},
		{"truncated in the notes", func(b []byte) []byte { return b[:len(b)-4] }, "cut short"},
		{"notes' length", put64(phdr+2*elf64PhdrSize+32, 30), "does not fit"},
		{"nothing to load", func(b []byte) []byte {
			le.PutUint32(b[phdr:], 0)
			le.PutUint32(b[phdr+elf64PhdrSize:], 0)
			return b
		}, "without anything to load"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := guest(t, 64<<20)
			_, err := Load(g, Image{Kernel: file(t, "vmlinux", c.damage(buildELF(tinyKernel())))})
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

func TestPVHNote(t *testing.T) {
	entry4 := binary.LittleEndian.AppendUint32(nil, 0x100_0000)
	entry8 := binary.LittleEndian.AppendUint64(nil, 0x100_0000)
	xen := func(desc []byte, align int) []byte { return note("Xen\x00", noteXenPhys32Entry, desc, align) }
	// The name and descriptor of a note of 8-byte alignment start at multiples
	// of 8 of the note, header included.
	property := append(note("GNU\x00", 5, make([]byte, 16), 8), note("Xen\x00", noteXenPhys32Entry, entry8, 8)...)
	for _, c := range []struct {
		name  string
		notes []byte
		align uint64
		want  uint64
		err   string
	}{
		{"4 bytes", xen(entry4, 4), 4, 0x100_0000, ""},
		{"8 bytes", xen(entry8, 4), 4, 0x100_0000, ""},
		{"alignment 0 means 4", xen(entry4, 4), 0, 0x100_0000, ""},
		{"behind others", append(note("A\x00", 9, []byte{1, 2, 3}, 4), pvhNote(0x100_0000)...), 4, 0x100_0000, ""},
		{"alignment 8", property, 8, 0x100_0000, ""},
		{"none", note("Xen\x00", 1, entry4, 4), 4, 0, ""},
		{"another vendor's", note("Zen\x00", noteXenPhys32Entry, entry4, 4), 4, 0, ""},
		{"nothing", nil, 4, 0, ""},
		{"a few bytes", make([]byte, 11), 4, 0, ""},
		{"last descriptor without padding", note("Xen\x00", noteXenPhys32Entry, entry4, 4)[:20], 4, 0x100_0000, ""},
		{"2 bytes", xen([]byte{1, 2}, 4), 4, 0, "descriptor of 2 bytes"},
		{"zero", xen(make([]byte, 4), 4), 4, 0, "no 32-bit address"},
		{"above 4 GiB", xen(binary.LittleEndian.AppendUint64(nil, 1<<32), 4), 4, 0, "no 32-bit address"},
		{"name past the end", []byte{0xff, 0xff, 0xff, 0xff, 4, 0, 0, 0, 18, 0, 0, 0}, 4, 0, "does not fit"},
		{"descriptor past the end", []byte{4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 18, 0, 0, 0, 'X', 'e', 'n', 0}, 4, 0, "does not fit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := findPVHNote(c.notes, c.align)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%#x, %v; want %#x, %q", got, err, c.want, c.err)
			}
		})
	}
}

func TestNotAKernel(t *testing.T) {
	for _, c := range []struct{ data, want string }{
		{"", "not an ELF or bzImage: the file is empty"},
		{"MZ" + strings.Repeat("\x00", 1000), "an EFI program"},
		{"MZ" + strings.Repeat("\x00", 0x36) + "ARM\x64", "for x86-64"},
		{"\x1f\x8b\x08", "gzip data; unpack it first"},
		{"070701000", "that is an initrd"},
		{"#!/bin/sh\n", "it starts with 23 21 2f"},
	} {
		f := file(t, "kernel", []byte(c.data))
		_, err := Load(guest(t, 16<<20), Image{Kernel: f})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "boot: kernel \""+f.Name()) {
			t.Errorf("%q: %v, want %q", c.data[:min(len(c.data), 10)], err, c.want)
		}
	}
	if _, err := Load(guest(t, 16<<20), Image{}); err == nil {
		t.Error("no kernel, and no error")
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := Load(guest(t, 16<<20), Image{Kernel: dir}); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Errorf("a directory: %v", err)
	}
}
