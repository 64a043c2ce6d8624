package snapshot

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// State is everything of a machine but its memory's contents.
type State struct {
	Created time.Time `json:"created"`
	Maker   string    `json:"maker"` // the version of Vitrine that made it
	Base    *Base     `json:"base,omitempty"`

	Machine Machine  `json:"machine"`
	Memory  []Region `json:"memory"` // in the order of their addresses
	Pages   Pages    `json:"pages"`  // of the memory file: what is stored in it
	// Sums are the CRC-32C of the stored pages in each SumChunk bytes of the
	// memory file.
	Sums []uint32 `json:"sums"`

	CPUID []x86.CPUIDEntry `json:"cpuid"` // the accelerator's, before topology
	// Seen is what the first CPU's guest saw, where its host does not leave it
	// at CPUID and adds features.
	Seen  []x86.CPUIDEntry `json:"seen,omitempty"`
	CPUs  []CPU            `json:"cpus"`
	Chips x86.Chips        `json:"chips"`
	Clock uint64           `json:"clock"` // the machine's time in nanoseconds

	Platform map[string]json.RawMessage `json:"platform"` // chips by name
	Devices  []Device                   `json:"devices"`  // virtio devices in their order

	// Deterministic is what a deterministic machine keeps beside: what its
	// accelerator does next, and how much of its input is left.
	Deterministic json.RawMessage `json:"deterministic,omitempty"`

	// App is what the program that uses the VMM keeps: how it made the
	// machine's devices.
	App json.RawMessage `json:"app,omitempty"`
}

// Base is the snapshot that a differential one builds on.
type Base struct {
	ID   ID     `json:"id"`
	Path string `json:"path"` // relative to the differential snapshot's folder where that is possible
}

// Machine is what a machine was made of.
type Machine struct {
	Name       string   `json:"name"`
	Accel      string   `json:"accel"`
	CPUs       int      `json:"cpus"`
	Memory     uint64   `json:"memory"` // bytes of RAM
	Transport  string   `json:"transport"`
	ACPI       bool     `json:"acpi"`
	Generation [16]byte `json:"generation"`
	// GenerationAt is where the guest finds Generation in its memory, 0
	// where it is not told.
	GenerationAt uint64 `json:"generationAt,omitempty"`
}

// Region is a piece of guest memory and its place in the memory file.
type Region struct {
	Base     uint64      `json:"base"`
	Size     uint64      `json:"size"`
	Kind     memory.Kind `json:"kind"`
	ReadOnly bool        `json:"readOnly,omitempty"`
	Offset   uint64      `json:"offset"`
	// Image is the file that the region shows where no page is stored: a
	// persistent-memory image.
	Image *Image `json:"image,omitempty"`
	// External is memory that lies in a file of the user's: no page of it is
	// stored.
	External bool `json:"external,omitempty"`
}

// Image identifies a file that a snapshot refers to and does not contain.
type Image struct {
	Path   string `json:"path"`
	Size   uint64 `json:"size"` // bytes that are mapped
	CRC    uint32 `json:"crc"`  // CRC-32C of them
	Inode  uint64 `json:"inode"`
	Device uint64 `json:"device"`
	MTime  int64  `json:"mtime"` // nanoseconds
}

// CPU is a virtual CPU's state.
type CPU struct {
	Regs   x86.Regs      `json:"regs"`
	Sregs  x86.Sregs     `json:"sregs"`
	PDPTRs *[4]uint64    `json:"pdptrs,omitempty"` // with PAE paging
	Events x86.Events    `json:"events"`
	Debug  x86.DebugRegs `json:"debug"`
	MP     x86.MPState   `json:"mp"`
	XCR0   uint64        `json:"xcr0"`
	XSave  []byte        `json:"xsave"`
	LAPIC  x86.LAPIC     `json:"lapic"`
	MSRs   []MSR         `json:"msrs"`
	TSCkHz uint32        `json:"tscKHz,omitempty"`
}

// MSR is a model-specific register and its value.
type MSR struct {
	Index uint32 `json:"i"`
	Data  uint64 `json:"v"`
}

// Device is a virtio device's state: that of its transport, with its own in it.
type Device struct {
	Name  string          `json:"name"`
	Type  uint32          `json:"type"`
	State json.RawMessage `json:"state"`
}

// Limits of what a state may describe.
const (
	maxCPUs    = 256
	maxRegions = 64
	maxDevices = 256
	maxMemory  = 1 << 46
	maxXSave   = 64 << 10
	lapicPage  = 1024
)

// check refuses a state that contradicts itself or the size of its memory
// file.
func (s *State) check(fileSize uint64) error {
	switch {
	case s.Machine.CPUs < 1 || s.Machine.CPUs > maxCPUs || len(s.CPUs) != s.Machine.CPUs:
		return fmt.Errorf("state of %d CPUs for a machine of %d", len(s.CPUs), s.Machine.CPUs)
	case len(s.Memory) == 0 || len(s.Memory) > maxRegions:
		return fmt.Errorf("%d regions of memory", len(s.Memory))
	case len(s.Devices) > maxDevices:
		return fmt.Errorf("%d devices", len(s.Devices))
	}
	if err := s.checkMemory(fileSize); err != nil {
		return err
	}
	for i := range s.CPUs {
		if c := &s.CPUs[i]; len(c.XSave) > maxXSave || len(c.LAPIC.Regs) != lapicPage {
			return fmt.Errorf("CPU %d: an XSAVE area of %d bytes, a local APIC of %d", i, len(c.XSave), len(c.LAPIC.Regs))
		}
	}
	return nil
}

func (s *State) checkMemory(fileSize uint64) error {
	var next, ram, offset uint64
	for i := range s.Memory {
		r := &s.Memory[i]
		switch {
		case r.Size == 0 || r.Size > maxMemory || r.Size%memory.PageSize != 0 || r.Base%memory.PageSize != 0 || r.Base > maxMemory:
			return fmt.Errorf("region %d: %d bytes at %#x", i, r.Size, r.Base)
		case r.Base < next:
			return fmt.Errorf("region %d at %#x overlaps the one before", i, r.Base)
		case r.Offset != offset:
			return fmt.Errorf("region %d is at %#x of the memory file, want %#x", i, r.Offset, offset)
		case r.Image != nil && r.Image.Size > r.Size:
			return fmt.Errorf("region %d: an image of %d bytes in %d", i, r.Image.Size, r.Size)
		}
		next, offset = r.Base+r.Size, offset+r.Size
		if r.Kind == memory.RAM {
			ram += r.Size
		}
	}
	switch {
	case ram != s.Machine.Memory:
		return fmt.Errorf("%d bytes of RAM in regions, and the machine has %d", ram, s.Machine.Memory)
	case offset != fileSize:
		return fmt.Errorf("the regions have %d bytes, the memory file %d", offset, fileSize)
	case s.Pages.end() > fileSize/memory.PageSize:
		return fmt.Errorf("page %d is stored, and the memory file has %d", s.Pages.end()-1, fileSize/memory.PageSize)
	case uint64(len(s.Sums)) != (fileSize+SumChunk-1)/SumChunk:
		return fmt.Errorf("%d checksums for %d bytes", len(s.Sums), fileSize)
	}
	return nil
}

func decodeState(b []byte, fileSize uint64) (*State, error) {
	s := new(State)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err := s.check(fileSize); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return s, nil
}
