package clinic

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// CoreCPU is one CPU's part of a core.
type CoreCPU struct {
	Regs         x86.Regs
	Sregs        x86.Sregs
	KernelGSBase uint64 // IA32_KERNEL_GS_BASE
}

// A core is an ELF file of type ET_CORE (System V ABI, chapter 5):
//
//	ELF header
//	program headers: PT_NOTE; PT_LOAD for each piece of guest memory by
//	    physical address (virtual address 0xffff…: none); PT_LOAD for each range
//	    that the first CPU's page tables map, of the same bytes of the file
//	notes: for each CPU NT_PRSTATUS, which gdb reads, and the control registers
//	    in the form of QEMU's dumps, by which crash finds a kernel's place
//	guest memory, page-aligned; pages of zeros are holes
const (
	elfHeaderSize  = 64
	progHeaderSize = 56
	prstatusSize   = 336
	qemuStateSize  = 8 + 18*8 + 10*24 + 6*8
	ptLoad         = 1
	ptNote         = 4
	ntPRStatus     = 1
	typeCore       = 4
	machineX8664   = 62
	maxRanges      = 8192
)

// WriteCore writes memory and CPUs as a core that gdb and crash open. w must be
// at its start and empty.
func WriteCore(w io.WriteSeeker, mem *memory.Guest, cpus []CoreCPU) error {
	if len(cpus) == 0 {
		return fmt.Errorf("core: no CPU")
	}
	notes := coreNotes(cpus)
	var ranges []mapping
	if s := &cpus[0].Sregs; s.CR0&x86.CR0PG != 0 {
		ranges = mappings(mem, &cpus[0])
	}
	regions := mem.Regions()
	headers := elfHeaderSize + progHeaderSize*(1+len(regions)+len(ranges))
	data := uint64(headers+len(notes)+memory.PageSize-1) &^ (memory.PageSize - 1)

	c := coreWriter{out: elfHeader(1 + len(regions) + len(ranges))}
	c.program(ptNote, uint64(headers), 0, 0, uint64(len(notes)))
	at := data
	offsets := make([]uint64, len(regions))
	for i := range regions {
		r := &regions[i]
		offsets[i] = at
		c.program(ptLoad, at, uint64(0xffff)<<48|uint64(r.Base), uint64(r.Base), uint64(len(r.Bytes)))
		at += uint64(len(r.Bytes))
	}
	for _, m := range ranges {
		i := slices.IndexFunc(regions, func(r memory.Region) bool { return m.phys >= r.Base && m.phys < r.End() })
		c.program(ptLoad, offsets[i]+uint64(m.phys-regions[i].Base), m.virt, uint64(m.phys), m.size)
	}
	c.out = append(c.out, notes...)
	if _, err := w.Write(c.out); err != nil {
		return fmt.Errorf("core: %w", err)
	}
	return writeMemory(w, regions, data)
}

type coreWriter struct{ out []byte }

func elfHeader(programs int) []byte {
	le := binary.LittleEndian
	h := make([]byte, elfHeaderSize)
	copy(h, "\x7fELF\x02\x01\x01")
	le.PutUint16(h[16:], typeCore)
	le.PutUint16(h[18:], machineX8664)
	le.PutUint32(h[20:], 1)
	le.PutUint64(h[32:], elfHeaderSize)
	le.PutUint16(h[52:], elfHeaderSize)
	le.PutUint16(h[54:], progHeaderSize)
	le.PutUint16(h[56:], uint16(programs))
	return h
}

func (c *coreWriter) program(kind uint32, off, virt, phys, size uint64) {
	le := binary.LittleEndian
	c.out = le.AppendUint32(c.out, kind)
	flags := uint32(7)
	if kind == ptNote {
		flags = 0
	}
	c.out = le.AppendUint32(c.out, flags)
	for _, v := range []uint64{off, virt, phys, size, size, 0} {
		c.out = le.AppendUint64(c.out, v)
	}
}

// writeMemory writes the regions one after the other from offset at on, and
// seeks over pages of zeros.
func writeMemory(w io.WriteSeeker, regions []memory.Region, at uint64) error {
	written := uint64(0) // where w stands
	for _, r := range regions {
		for off := 0; off < len(r.Bytes); {
			n := run(r.Bytes[off:])
			if n == 0 {
				off, at = off+memory.PageSize, at+memory.PageSize
				continue
			}
			if written != at {
				if _, err := w.Seek(int64(at), io.SeekStart); err != nil {
					return fmt.Errorf("core: %w", err)
				}
			}
			if _, err := w.Write(r.Bytes[off : off+n]); err != nil {
				return fmt.Errorf("core: guest memory at %#x: %w", uint64(r.Base)+uint64(off), err)
			}
			off, at = off+n, at+uint64(n)
			written = at
		}
	}
	if written == at {
		return nil
	}
	// The last pages are zero: the file is as long all the same.
	if _, err := w.Seek(int64(at)-1, io.SeekStart); err != nil {
		return fmt.Errorf("core: %w", err)
	}
	if _, err := w.Write([]byte{0}); err != nil {
		return fmt.Errorf("core: %w", err)
	}
	return nil
}

// run is how many bytes p begins with before a page of zeros, at most 1 MiB.
func run(p []byte) int {
	n := 0
	for n < len(p) && n < 1<<20 && !zeroPage(p[n:n+memory.PageSize]) {
		n += memory.PageSize
	}
	return n
}

var zeros [memory.PageSize]byte

func zeroPage(p []byte) bool { return [memory.PageSize]byte(p) == zeros }

func coreNotes(cpus []CoreCPU) []byte {
	var out []byte
	for i := range cpus {
		out = appendNote(out, "CORE", ntPRStatus, prstatus(i, &cpus[i]))
	}
	for i := range cpus {
		out = appendNote(out, "QEMU", 0, qemuState(&cpus[i]))
	}
	return out
}

func appendNote(out []byte, name string, kind uint32, desc []byte) []byte {
	le := binary.LittleEndian
	out = le.AppendUint32(out, uint32(len(name)+1))
	out = le.AppendUint32(out, uint32(len(desc)))
	out = le.AppendUint32(out, kind)
	out = append(out, name...)
	out = append(out, make([]byte, 4-len(name)%4)...)
	return append(out, desc...)
}

// prstatus is struct elf_prstatus of x86-64; the thread's number is the CPU's
// and one.
func prstatus(id int, c *CoreCPU) []byte {
	le := binary.LittleEndian
	b := make([]byte, prstatusSize)
	le.PutUint32(b[32:], uint32(id+1))
	r, s := &c.Regs, &c.Sregs
	for i, v := range []uint64{r.R15, r.R14, r.R13, r.R12, r.RBP, r.RBX, r.R11, r.R10, r.R9, r.R8, r.RAX, r.RCX, r.RDX,
		r.RSI, r.RDI, ^uint64(0), r.RIP, uint64(s.CS.Selector), r.RFLAGS, r.RSP, uint64(s.SS.Selector), s.FS.Base, s.GS.Base,
		uint64(s.DS.Selector), uint64(s.ES.Selector), uint64(s.FS.Selector), uint64(s.GS.Selector)} {
		le.PutUint64(b[112+8*i:], v)
	}
	return b
}

// qemuState is struct QEMUCPUState of QEMU's target/i386/arch_dump.c, version 1.
func qemuState(c *CoreCPU) []byte {
	le := binary.LittleEndian
	out := le.AppendUint32(nil, 1)
	out = le.AppendUint32(out, qemuStateSize)
	r, s := &c.Regs, &c.Sregs
	for _, v := range []uint64{r.RAX, r.RBX, r.RCX, r.RDX, r.RSI, r.RDI, r.RSP, r.RBP, r.R8, r.R9, r.R10, r.R11,
		r.R12, r.R13, r.R14, r.R15, r.RIP, r.RFLAGS} {
		out = le.AppendUint64(out, v)
	}
	segment := func(selector uint16, limit, flags uint32, base uint64) {
		out = le.AppendUint32(out, uint32(selector))
		out = le.AppendUint32(out, limit)
		out = le.AppendUint32(out, flags)
		out = le.AppendUint32(out, 0)
		out = le.AppendUint64(out, base)
	}
	for _, g := range []*x86.Segment{&s.CS, &s.DS, &s.ES, &s.FS, &s.GS, &s.SS, &s.LDT, &s.TR} {
		flags := uint32(g.Type)<<8 | uint32(g.S)<<12 | uint32(g.DPL)<<13 | uint32(g.Present)<<15 |
			uint32(g.AVL)<<20 | uint32(g.L)<<21 | uint32(g.DB)<<22 | uint32(g.G)<<23
		segment(g.Selector, g.Limit, flags, g.Base)
	}
	segment(0, uint32(s.GDT.Limit), 0, s.GDT.Base)
	segment(0, uint32(s.IDT.Limit), 0, s.IDT.Base)
	for _, v := range []uint64{s.CR0, 0, s.CR2, s.CR3, s.CR4, c.KernelGSBase} {
		out = le.AppendUint64(out, v)
	}
	return out
}
