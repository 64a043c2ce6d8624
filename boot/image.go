package boot

import (
	"errors"
	"os"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// MaxCPUs is the number of CPUs that the tables describe at most.
const MaxCPUs = 32

// Image is what to boot, and what the guest is told about the machine.
type Image struct {
	// Kernel is a bzImage or an ELF executable. It is read with ReadAt, its
	// offset is left alone, and it may be closed after Load.
	Kernel *os.File
	// Initrd is the initial RAM disk; nil means none.
	Initrd *os.File
	// CommandLine is the kernel's command line, without a NUL byte.
	CommandLine string
	// Protocol is how to enter the kernel. ProtocolAuto takes the Linux 64-bit
	// entry, or PVH where the image offers only that.
	Protocol Protocol
	// CacheDir keeps what bzImages unpack to, so that a kernel is unpacked
	// once. "" unpacks it into memory at each boot.
	CacheDir string
	// Mutable says that the files may be overwritten in place while the guest
	// runs, so that their contents are copied. Otherwise whole pages of them
	// are mapped (memory.Guest.MapFile), and guests share them.
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

// Load puts img into the guest's memory, whose regions are all there, and
// returns the state in which the first CPU starts.
func Load(g *memory.Guest, img Image) (Entry, error) {
	return Entry{}, errors.New("boot: no loader for this image")
}
