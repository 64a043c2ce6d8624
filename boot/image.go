package boot

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// MaxCPUs is the number of CPUs that the tables describe at most.
const MaxCPUs = acpi.MaxCPUs

// Image is what to boot, and what the guest is told about the machine.
type Image struct {
	// Kernel is a bzImage or an ELF executable. It is read with ReadAt, its
	// offset is left alone, and it may be closed after Load.
	Kernel *os.File
	// Initrd is the initial RAM disk; nil means none.
	Initrd *os.File
	// UnpackInitrd spares the guest that work where its CPU is slow: a packed
	// initial RAM disk is unpacked here, if that leaves most of the memory.
	UnpackInitrd bool
	// CommandLine is the kernel's command line, without a NUL byte.
	CommandLine string
	// Protocol is how to enter the kernel. ProtocolAuto takes the Linux 64-bit
	// entry, or PVH where the image offers only that.
	Protocol Protocol
	// CacheDir keeps what bzImages unpack to, so that a kernel is unpacked
	// once. "" unpacks it into memory at each boot.
	CacheDir string
	// Mutable says that the kernel's file may be overwritten in place while the
	// guest runs, so that its contents are copied. Otherwise whole pages of it
	// are mapped (memory.Guest.MapFile), and guests share them. An initial RAM
	// disk is copied.
	Mutable bool

	// CPUs is the number of CPUs in the MP table; their APIC ids are 0…CPUs-1.
	// 0 means that there is no MP table. It does not depend on ACPI.
	CPUs int
	// LevelLines are the I/O APIC pins that the MP table calls
	// level-triggered, active high. All others are edge-triggered, active high.
	LevelLines []uint32
	// ACPI describes the machine for the ACPI tables; nil means none.
	ACPI *acpi.Config

	// Notef, if not nil, is told what deserves a line in a log: that a bzImage
	// could not be unpacked and starts by itself, that the cache failed.
	Notef func(format string, args ...any)
}

// kernel is a kernel that has been found good: what goes where, and how it is
// entered.
type kernel struct {
	protocol Protocol
	entry    uint64 // physical
	source   source // what the segments' offsets refer to
	segments []segment
	low, end uint64 // the physical range of all segments

	header        []byte // setup header from 0x1f1 on; nil: none
	cmdlineSize   uint64 // without the NUL
	initrdAddrMax uint64
	release       func() // of the source, after loading
}

// Load puts img into the guest's memory and returns the state in which the
// first CPU starts. All regions must have been added, and RAM must be zero, as
// memory.New makes it: what the kernel expects to be zero is not written.
// Errors name the file, and say how much memory is needed if it is too little.
func Load(g *memory.Guest, img Image) (Entry, error) {
	if img.Kernel == nil {
		return Entry{}, fmt.Errorf("boot: no kernel: give a bzImage or an ELF vmlinux")
	}
	k, err := img.open(g)
	if err != nil {
		return Entry{}, fmt.Errorf("boot: kernel %q: %w", img.Kernel.Name(), err)
	}
	defer k.release()
	entry, err := img.load(g, k)
	if err != nil {
		return Entry{}, fmt.Errorf("boot: %w", err)
	}
	return entry, nil
}

func (img *Image) load(g *memory.Guest, k *kernel) (Entry, error) {
	p := params{header: k.header, load: k.low}
	var err error
	if p.initrd, err = img.placeInitrd(g, k); err != nil {
		return Entry{}, err
	}
	for i := range k.segments {
		s := &k.segments[i]
		if err := k.source.place(g, memory.Addr(s.addr), s.offset, s.size); err != nil {
			return Entry{}, fmt.Errorf("kernel %q: %w", img.Kernel.Name(), err)
		}
	}
	if p.cmdline, err = img.writeCommandLine(g, k.cmdlineSize); err != nil {
		return Entry{}, err
	}
	if p.e820, err = e820Map(g.Regions(), img.ACPI); err != nil {
		return Entry{}, err
	}
	if p.rsdp, err = img.writeTables(g); err != nil {
		return Entry{}, err
	}
	return k.enter(g, &p)
}

// enter writes what the protocol asks for.
func (k *kernel) enter(g *memory.Guest, p *params) (Entry, error) {
	if k.protocol == ProtocolPVH {
		if err := writeGDT(g, descCode32); err != nil {
			return Entry{}, err
		}
		return entryPVH(k.entry), p.writePVH(g)
	}
	if err := writeGDT(g, descCode64); err != nil {
		return Entry{}, err
	}
	if err := writePageTables(g, k.low, k.end); err != nil {
		return Entry{}, err
	}
	return entryLinux(k.entry), p.write(g)
}

func (img *Image) writeCommandLine(g *memory.Guest, limit uint64) (blob, error) {
	n := uint64(len(img.CommandLine))
	if limit = min(limit, cmdlineArea-1); n > limit {
		return blob{}, fmt.Errorf("command line of %d bytes: this kernel takes at most %d", n, limit)
	}
	if strings.IndexByte(img.CommandLine, 0) >= 0 {
		return blob{}, fmt.Errorf("command line %q has a NUL byte", img.CommandLine)
	}
	return blob{uint64(cmdlineAddr), n + 1}, g.WriteAt(append([]byte(img.CommandLine), 0), cmdlineAddr)
}

// writeTables writes what describes the machine, whatever the protocol.
func (img *Image) writeTables(g *memory.Guest) (rsdp uint64, err error) {
	if err := errors.Join(writeBDA(g), writeResetVector(g)); err != nil {
		return 0, err
	}
	if img.CPUs != 0 {
		mp, err := mpTable(ebdaAddr, img.CPUs, img.LevelLines)
		if err != nil {
			return 0, err
		}
		if err := g.WriteAt(mp, ebdaAddr); err != nil {
			return 0, err
		}
	}
	if img.ACPI == nil {
		return 0, nil
	}
	tables, err := acpi.Build(*img.ACPI)
	if err != nil {
		return 0, err
	}
	for _, t := range tables {
		if err := g.WriteAt(t.Data, t.Addr); err != nil {
			return 0, fmt.Errorf("ACPI table %s: %w", t.Signature, err)
		}
	}
	return uint64(acpi.Base), nil
}

func (img *Image) notef(format string, args ...any) {
	if img.Notef != nil {
		img.Notef(format, args...)
	}
}
