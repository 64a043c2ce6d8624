package boot

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// testSegment is a PT_LOAD for buildELF.
type testSegment struct {
	addr, virtual uint64
	data          []byte
	memSize       uint64 // 0: len(data)
}

// testELF describes an executable for buildELF.
type testELF struct {
	bits     int // 64 (default) or 32
	entry    uint64
	segments []testSegment
	notes    []byte // a PT_NOTE, if not nil
	align    uint64 // of the notes
	tight    bool   // no padding between the parts
}

// buildELF lays out an executable, each segment on a page of the file.
func buildELF(e testELF) []byte {
	headers, pad := 4096, 4096
	if e.tight {
		headers, pad = elf64HeaderSize+(len(e.segments)+1)*elf64PhdrSize, 1
	}
	phnum := len(e.segments)
	if e.notes != nil {
		phnum++
	}
	b := make([]byte, headers)
	le := binary.LittleEndian
	copy(b, elfMagic)
	b[4], b[5], b[6] = elfClass64, elfLSB, 1
	le.PutUint16(b[16:], elfTypeExec)
	le.PutUint16(b[18:], machineAMD64)
	le.PutUint32(b[20:], 1)
	phdr := elf64HeaderSize
	if e.bits == 32 {
		b[4], phdr = elfClass32, elf32HeaderSize
		le.PutUint16(b[18:], machine386)
		le.PutUint32(b[24:], uint32(e.entry))
		le.PutUint32(b[28:], uint32(phdr))
		le.PutUint16(b[42:], elf32PhdrSize)
		le.PutUint16(b[44:], uint16(phnum))
	} else {
		le.PutUint64(b[24:], e.entry)
		le.PutUint64(b[32:], uint64(phdr))
		le.PutUint16(b[54:], elf64PhdrSize)
		le.PutUint16(b[56:], uint16(phnum))
	}
	add := func(kind uint32, align uint64, s segment) {
		p := b[phdr:]
		le.PutUint32(p, kind)
		if e.bits == 32 {
			for i, v := range []uint64{s.offset, s.virtual, s.addr, s.size, s.memSize, 7, align} {
				le.PutUint32(p[4+4*i:], uint32(v))
			}
			phdr += elf32PhdrSize
			return
		}
		for i, v := range []uint64{s.offset, s.virtual, s.addr, s.size, s.memSize, align} {
			le.PutUint64(p[8+8*i:], v)
		}
		phdr += elf64PhdrSize
	}
	for _, s := range e.segments {
		add(ptLoad, 4096, segment{offset: uint64(len(b)), size: uint64(len(s.data)), addr: s.addr, virtual: s.virtual,
			memSize: max(s.memSize, uint64(len(s.data)))})
		b = append(b, s.data...)
		b = append(b, make([]byte, -len(b)&(pad-1))...)
	}
	if e.notes != nil {
		add(ptNote, e.align, segment{offset: uint64(len(b)), size: uint64(len(e.notes)), memSize: uint64(len(e.notes))})
		b = append(b, e.notes...)
	}
	return b
}

// note encodes an ELF note.
func note(name string, kind uint32, desc []byte, align int) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(name)))
	b = le.AppendUint32(b, uint32(len(desc)))
	b = le.AppendUint32(b, kind)
	b = append(b, name...)
	b = append(b, make([]byte, -len(b)&(align-1))...)
	b = append(b, desc...)
	return append(b, make([]byte, -len(b)&(align-1))...)
}

// pvhNote is the note of a PVH kernel behind another vendor's.
func pvhNote(entry uint32) []byte {
	b := note("GNU\x00", 3, []byte("build id of some length"), 4)
	return append(b, note("Xen\x00", noteXenPhys32Entry, binary.LittleEndian.AppendUint32(nil, entry), 4)...)
}

// tinyKernel is an executable as Linux's: physical entry, text and data with a
// bss behind it, and a PVH note.
func tinyKernel() testELF {
	return testELF{entry: 0x100_0123,
		segments: []testSegment{
			{addr: 0x100_0000, virtual: 0xffffffff81000000, data: bytes.Repeat([]byte("text"), 2000)},
			{addr: 0x120_0000, virtual: 0xffffffff81200000, data: bytes.Repeat([]byte("data"), 1000), memSize: 0x8000},
		},
		notes: pvhNote(0x100_0456)}
}

// tightKernel is an executable of a few hundred bytes.
func tightKernel() testELF {
	return testELF{entry: 0x100_0002, tight: true, notes: pvhNote(0x100_0003),
		segments: []testSegment{{addr: 0x100_0000, virtual: 0xffffffff81000000, data: []byte("text"), memSize: 0x1000}}}
}

// testBz describes a bzImage for buildBz.
type testBz struct {
	payload   []byte // as in the file, its size appended
	sects     uint8
	initSize  uint32
	protected []byte // in front of the payload; default a sector
}

// buildBz lays out a bzImage with protocol 2.15 and what an x86-64 kernel says
// in its header.
func buildBz(z testBz) []byte {
	sects := int(z.sects)
	if sects == 0 {
		sects = 4
	}
	b := make([]byte, (sects+1)*sector)
	le := binary.LittleEndian
	if z.protected == nil {
		z.protected = make([]byte, sector)
	}
	protected := append(bytes.Clone(z.protected), make([]byte, -len(z.protected)&15)...)
	offset := len(protected)
	protected = append(protected, z.payload...)
	protected = append(protected, make([]byte, -len(protected)&15)...)
	b[hdrSetupSects] = z.sects
	le.PutUint32(b[hdrSyssize:], uint32(len(protected)/16))
	le.PutUint16(b[hdrBootFlag:], bootFlag)
	b[hdrJump], b[hdrJump+1] = 0xeb, setupHeaderEnd+4-hdrMagic
	copy(b[hdrMagic:], magicHdrS)
	le.PutUint16(b[hdrVersion:], 0x020f)
	b[hdrLoadflags] = loadedHigh
	le.PutUint32(b[hdrInitrdAddrMax:], 0x7fffffff)
	le.PutUint32(b[hdrKernelAlign:], 0x200000)
	b[hdrRelocatable] = 1
	le.PutUint16(b[hdrXloadflags:], xlf64|1<<1)
	le.PutUint32(b[hdrCmdlineSize:], 2047)
	le.PutUint32(b[hdrPayloadOffset:], uint32(offset))
	le.PutUint32(b[hdrPayloadLength:], uint32(len(z.payload)))
	le.PutUint64(b[hdrPrefAddress:], 0x100_0000)
	le.PutUint32(b[hdrInitSize:], max(z.initSize, uint32(len(protected))))
	return append(b, protected...)
}

// file writes data to a file and opens it.
func file(t testing.TB, name string, data []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func guest(t testing.TB, size uint64) *memory.Guest {
	t.Helper()
	g, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// at returns guest memory, which must be there.
func at(t testing.TB, g *memory.Guest, a, n uint64) []byte {
	t.Helper()
	b, err := g.Bytes(memory.Addr(a), n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func u16(b []byte, off int) uint64 { return uint64(binary.LittleEndian.Uint16(b[off:])) }
func u32(b []byte, off int) uint64 { return uint64(binary.LittleEndian.Uint32(b[off:])) }
func u64(b []byte, off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
