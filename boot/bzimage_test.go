package boot

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packed returns the payload that a kernel build makes of elf: gzip carries its
// size itself, others have it appended.
func packed(t testing.TB, format string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "tiny."+format))
	if err != nil {
		t.Fatal(err)
	}
	return withSize(format, b, len(buildELF(tinyKernel())))
}

func withSize(format string, b []byte, size int) []byte {
	if format == "gzip" {
		return b
	}
	return binary.LittleEndian.AppendUint32(b, uint32(size))
}

var formatNames = []string{"gzip", "bzip2", "xz", "lzma", "lz4", "lzo", "zstd"}

// TestPayloadFormats loads a bzImage with each kind of payload; testdata/tiny.*
// are tinyKernel packed by the programs that kernel builds use.
func TestPayloadFormats(t *testing.T) {
	payloads := map[string][]byte{"none": buildELF(tinyKernel())}
	for _, f := range formatNames {
		payloads[f] = packed(t, f)
	}
	for name, p := range payloads {
		t.Run(name, func(t *testing.T) {
			g := guest(t, 64<<20)
			e, err := Load(g, Image{Kernel: file(t, "bzImage", buildBz(testBz{payload: p})), CommandLine: "quiet",
				Notef: t.Errorf})
			if err != nil {
				t.Fatal(err)
			}
			checkTiny(t, g)
			if e.Protocol != ProtocolLinux || e.Regs.RIP != 0x1000123 {
				t.Errorf("entry %v %#x: not the unpacked kernel's", e.Protocol, e.Regs.RIP)
			}
			b := at(t, g, e.Regs.RSI, paramsSize)
			if u16(b, hdrVersion) != 0x20f || b[hdrRelocatable] != 1 || b[hdrTypeOfLoader] != 0xff {
				t.Error("boot_params has not the image's own setup header")
			}
		})
	}
}

// packers are the programs, with the options of scripts/Makefile.lib and
// scripts/xz_wrap.sh.
var packers = map[string][]string{
	"gzip":  {"gzip", "-n", "-9"},
	"bzip2": {"bzip2", "-9"},
	"xz":    {"xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB"},
	"lzma":  {"xz", "--format=lzma", "-9"},
	"lz4":   {"lz4", "-l", "-9"},
	"lzo":   {"lzop", "-9"},
	"zstd":  {"zstd", "-q", "--ultra", "-22"},
}

// textKernel is an executable with n bytes of text that does not pack to
// nothing.
func textKernel(n int) []byte {
	kernel := tinyKernel()
	text := []byte("\xe8\x10\x20\x00\x00")
	for i := 0; len(text) < n; i++ {
		text = fmt.Appendf(text, "call %x; ", i*0x9e3779b9)
	}
	kernel.segments[0].data = text
	kernel.segments[1].addr += 16 << 20
	return buildELF(kernel)
}

// TestPayloadsOfSize unpacks payloads of several blocks of each format, where
// the programs to pack them are installed.
func TestPayloadsOfSize(t *testing.T) {
	small, large := textKernel(600<<10), textKernel(lz4Block+1)
	for name, args := range packers {
		elf := small
		if name == "lz4" {
			elf = large
		}
		t.Run(name, func(t *testing.T) {
			program, err := exec.LookPath(args[0])
			if err != nil {
				t.Skipf("%s is not installed", args[0])
			}
			cmd := exec.Command(program, append(args[1:], "-c")...)
			cmd.Stdin = bytes.NewReader(elf)
			b, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			got, format, err := unpack(withSize(name, b, len(elf)))
			if err != nil || format != name || !bytes.Equal(got, elf) {
				t.Errorf("unpacked %d bytes of %d as %q: %v", len(got), len(elf), format, err)
			}
		})
	}
}

// TestDamagedPayload cuts and changes each payload at every byte: unpacking
// fails or gives an ELF of the right size, and never more.
func TestDamagedPayload(t *testing.T) {
	size := len(buildELF(tinyKernel()))
	for _, name := range formatNames {
		p := packed(t, name)
		for i := range p {
			if b, _, err := unpack(p[:i]); err == nil && len(b) != size {
				t.Errorf("%s cut to %d bytes gives %d bytes", name, i, len(b))
			}
			q := bytes.Clone(p)
			q[i] ^= 0x55
			if b, _, err := unpack(q); err == nil && len(b) != size {
				t.Errorf("%s changed at byte %d gives %d bytes", name, i, len(b))
			}
		}
	}
}

func TestPayloadBomb(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(append([]byte(elfMagic), make([]byte, 10<<20)...))
	_ = w.Close()
	b := z.Bytes()
	binary.LittleEndian.PutUint32(b[len(b)-4:], 1000)
	if _, _, err := unpack(b); err == nil {
		t.Error("10 MiB unpacked where 1000 bytes were announced")
	}
	binary.LittleEndian.PutUint32(b[len(b)-4:], maxUnpacked+1)
	if _, _, err := unpack(b); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("more than the bound announced: %v", err)
	}
}

// TestOwnEntry has bzImages that do not unpack start by themselves.
func TestOwnEntry(t *testing.T) {
	protected := bytes.Repeat([]byte("startup code "), 100)
	for _, c := range []struct {
		name    string
		payload string
		memory  uint64
		init    uint32
		load    uint64
	}{
		{"unknown format", "?????? unknown ??????", 64 << 20, 8 << 20, 0x100_0000},
		{"no ELF inside", string(withSize("lz4", []byte("\x02\x21\x4c\x18\x05\x00\x00\x00\x40abcd"), 4)), 64 << 20, 8 << 20, 0x100_0000},
		{"preferred place too high", "?", 16 << 20, 8 << 20, 0x80_0000},
		{"little room", "?", 16 << 20, 14<<20 + 1, 0x20_0000 - 0x20_0000&0x1f_ffff},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := guest(t, c.memory)
			var notes []string
			img := Image{Kernel: file(t, "bzImage", buildBz(testBz{payload: []byte(c.payload), protected: protected,
				initSize: c.init})), Notef: func(f string, args ...any) { notes = append(notes, fmt.Sprintf(f, args...)) }}
			e, err := Load(g, img)
			if c.name == "little room" {
				if err == nil || !strings.Contains(err.Error(), "too little memory") {
					t.Errorf("%v at %#x", err, e.Regs.RIP)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if e.Regs.RIP != c.load+0x200 || !bytes.Equal(at(t, g, c.load, uint64(len(protected))), protected) {
				t.Errorf("entry %#x, want %#x with the protected-mode part below it", e.Regs.RIP, c.load+0x200)
			}
			if start := u32(at(t, g, e.Regs.RSI, paramsSize), hdrCode32Start); start != c.load {
				t.Errorf("code32_start %#x", start)
			}
			if len(notes) != 1 || !strings.Contains(notes[0], "starts by its own entry") {
				t.Errorf("notes %q", notes)
			}
		})
	}
}

func TestDamagedBzImage(t *testing.T) {
	le := binary.LittleEndian
	put32 := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { le.PutUint32(b[off:], v); return b }
	}
	put8 := func(off int, v uint8) func([]byte) []byte {
		return func(b []byte) []byte { b[off] = v; return b }
	}
	for _, c := range []struct {
		name   string
		damage func([]byte) []byte
		err    string
	}{
		{"boot flag", put8(hdrBootFlag, 0), "not an ELF or bzImage"},
		{"magic", put8(hdrMagic, 'h'), "not an ELF or bzImage"},
		{"old protocol", put8(hdrVersion, 7), ""},
		{"ancient protocol", func(b []byte) []byte { le.PutUint16(b[hdrVersion:], 0x0202); return b }, "2.02 is older"},
		{"zImage", put8(hdrLoadflags, 0), "zImage"},
		{"header ends early", put8(hdrJump+1, 0x10), "before its fields"},
		{"more setup sectors than bytes", put8(hdrSetupSects, 255), "cut short"},
		{"syssize", put32(hdrSyssize, 0xffff_ffff), "cut short"},
		{"syssize zero", put32(hdrSyssize, 0), "cut short"},
		{"payload offset", put32(hdrPayloadOffset, 0xffff_fff0), "lies past"},
		{"payload length", put32(hdrPayloadLength, 0xffff_ffff), "lies past"},
		{"alignment", put32(hdrKernelAlign, 3), "no power of two"},
		{"alignment zero", put32(hdrKernelAlign, 0), "no power of two"},
		{"initrd's limit", put32(hdrInitrdAddrMax, 5), "below 1 MiB"},
		{"cut in the header", func(b []byte) []byte { return b[:hdrPrefAddress] }, "not an ELF or bzImage"},
		{"cut behind the header", func(b []byte) []byte { return b[:setupHeaderEnd+1] }, "damaged bzImage"},
		{"cut in the payload", func(b []byte) []byte { return b[:len(b)-100] }, "cut short"},
		{"no 64-bit entry, damaged payload", func(b []byte) []byte {
			le.PutUint16(b[hdrXloadflags:], 0)
			b[6*sector] = 0
			return b
		}, "without a 64-bit entry"},
		{"preferred address, damaged payload", func(b []byte) []byte {
			le.PutUint64(b[hdrPrefAddress:], 1<<63)
			b[6*sector] = 0
			return b
		}, "preferred address"},
		{"init_size, damaged payload", func(b []byte) []byte {
			le.PutUint32(b[hdrInitSize:], 0xffff_ffff)
			b[6*sector] = 0
			return b
		}, "no guest has RAM there"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := c.damage(buildBz(testBz{payload: packed(t, "zstd")}))
			_, err := Load(guest(t, 64<<20), Image{Kernel: file(t, "bzImage", image)})
			if c.name == "old protocol" { // the low byte alone: 2.07
				c.err = "2.07 is older"
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

func TestPVHFromBzImage(t *testing.T) {
	image := file(t, "bzImage", buildBz(testBz{payload: packed(t, "gzip")}))
	e, err := Load(guest(t, 64<<20), Image{Kernel: image, Protocol: ProtocolPVH})
	if err != nil || e.Protocol != ProtocolPVH || e.Regs.RIP != 0x1000456 {
		t.Errorf("%v %#x, %v", e.Protocol, e.Regs.RIP, err)
	}
	image = file(t, "bzImage", buildBz(testBz{payload: []byte("?")}))
	if _, err := Load(guest(t, 64<<20), Image{Kernel: image, Protocol: ProtocolPVH}); err == nil {
		t.Error("PVH entry of a bzImage that does not unpack")
	}
}

func TestCommandLine(t *testing.T) {
	image := buildBz(testBz{payload: packed(t, "gzip")})
	binary.LittleEndian.PutUint32(image[hdrCmdlineSize:], 100)
	for _, c := range []struct{ line, err string }{
		{strings.Repeat("x", 100), ""},
		{strings.Repeat("x", 101), "takes at most 100"},
		{"a\x00b", "NUL byte"},
	} {
		_, err := Load(guest(t, 64<<20), Image{Kernel: file(t, "bzImage", image), CommandLine: c.line})
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%d bytes: %v, want %q", len(c.line), err, c.err)
		}
	}
}

func TestOwnEntryCutOff(t *testing.T) {
	b := buildBz(testBz{payload: []byte("?"), protected: make([]byte, 100)})
	_, err := Load(guest(t, 64<<20), Image{Kernel: file(t, "bzImage", b)})
	if err == nil || !strings.Contains(err.Error(), "before its 64-bit entry") {
		t.Errorf("a kernel of 100 bytes: %v", err)
	}
}
