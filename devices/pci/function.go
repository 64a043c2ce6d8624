package pci

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// Registers of a type 0 header (PCI 3.0 §6.1).
const (
	regVendor     = 0x00
	regDevice     = 0x02
	regCommand    = 0x04
	regStatus     = 0x06
	regRevision   = 0x08
	regClass      = 0x09
	regBAR        = 0x10
	regSubVendor  = 0x2c
	regSubDevice  = 0x2e
	regCapability = 0x34
	regLine       = 0x3c
	firstCap      = 0x40
	configSize    = 256

	commandMemory = 1 << 1
	// commandMask are the command bits that can be set: memory space, bus
	// master, parity response, SERR#, interrupt disable (§6.2.2).
	commandMask = 0x0546
	statusCaps  = 1 << 4 // a capability list is there (§6.2.3)
)

// Identity is who a function is.
type Identity struct {
	Vendor, Device       uint16
	SubVendor, SubDevice uint16
	Revision             uint8
	Class                uint32 // class, subclass, interface: 24 bits
	Name                 string // for messages
}

// Function is the one function of a device: its configuration space. BARs and
// capabilities are added before Host.Add.
type Function struct {
	id   Identity
	host *Host // of Add

	mu   sync.Mutex
	cfg  [configSize]byte
	mask [configSize]byte // the bits that a guest can write
	bars [6]*bar
	caps []capability
	last uint8 // where the list's last link stands
	next int   // where the next capability goes
}

// NewFunction returns a function without memory or capabilities.
func NewFunction(id Identity) *Function {
	f := &Function{id: id, last: regCapability, next: firstCap}
	le := binary.LittleEndian
	le.PutUint16(f.cfg[regVendor:], id.Vendor)
	le.PutUint16(f.cfg[regDevice:], id.Device)
	le.PutUint16(f.mask[regCommand:], commandMask)
	le.PutUint32(f.cfg[regRevision:], uint32(id.Revision)|id.Class<<8)
	le.PutUint16(f.cfg[regSubVendor:], id.SubVendor)
	le.PutUint16(f.cfg[regSubDevice:], id.SubDevice)
	f.mask[regLine] = 0xff // scratch for software (§6.2.4)
	return f
}

// Identity returns who the function is.
func (f *Function) Identity() Identity { return f.id }

// Capability is an entry of the capability list (PCI 3.0 §6.7).
type Capability struct {
	ID   uint8
	Data []byte // what follows the two bytes of the header
	Mask []byte // the bits of Data that a guest can write; nil: none

	// BeforeRead is called before a read of data[off:off+n], to bring it up
	// to date, AfterWrite after a write. data aliases the configuration
	// space. They must not access the function's configuration space
	// otherwise. nil: nothing to do.
	BeforeRead, AfterWrite func(data []byte, off, n int)
}

type capability struct {
	Capability
	at int // of Data in configuration space
}

// AddCapability appends c to the list.
func (f *Function) AddCapability(c Capability) error {
	n := 2 + len(c.Data)
	if f.next+n > configSize {
		return fmt.Errorf("pci: %s: no room for capability %#x of %d bytes", f.id.Name, c.ID, n)
	}
	at := f.next
	f.cfg[f.last] = uint8(at)
	f.cfg[at] = c.ID
	copy(f.cfg[at+2:], c.Data)
	copy(f.mask[at+2:], c.Mask)
	f.cfg[regStatus] |= statusCaps
	f.caps = append(f.caps, capability{c, at + 2})
	f.last = uint8(at + 1)
	// The list's pointers have no low two bits (§6.7).
	f.next = (at + n + 3) &^ 3
	return nil
}

// Read reads configuration space at off. What is past its end is all ones.
func (f *Function) Read(off uint64, p []byte) {
	if off >= configSize || off+uint64(len(p)) > configSize {
		ones(p)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks(int(off), len(p), func(c *capability) func([]byte, int, int) { return c.BeforeRead })
	copy(p, f.cfg[off:])
}

// Write writes configuration space at off, the bits that can be written.
func (f *Function) Write(off uint64, p []byte) {
	if off >= configSize || off+uint64(len(p)) > configSize {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, v := range p {
		at := int(off) + i
		f.cfg[at] = f.cfg[at]&^f.mask[at] | v&f.mask[at]
	}
	f.remap()
	f.hooks(int(off), len(p), func(c *capability) func([]byte, int, int) { return c.AfterWrite })
}

// hooks calls what which selects of the capabilities that an access touches.
func (f *Function) hooks(off, n int, which func(*capability) func([]byte, int, int)) {
	for i := range f.caps {
		c := &f.caps[i]
		from, to := max(off, c.at), min(off+n, c.at+len(c.Data))
		if from >= to {
			continue
		}
		if hook := which(c); hook != nil {
			hook(f.cfg[c.at:c.at+len(c.Data)], from-c.at, to-from)
		}
	}
}

func (f *Function) command() uint16 { return binary.LittleEndian.Uint16(f.cfg[regCommand:]) }

func (f *Function) inspect() Info {
	f.mu.Lock()
	defer f.mu.Unlock()
	info := Info{Identity: f.id, Command: f.command(), Config: append([]byte(nil), f.cfg[:]...)}
	for i, b := range f.bars {
		if b != nil {
			info.BARs = append(info.BARs, BARInfo{Index: i, Addr: f.address(i), Size: b.Size, Mapped: b.mapped})
		}
	}
	return info
}

// State is a function's part of a snapshot: its configuration space. What lies
// behind its BARs belongs to its device.
type State struct {
	Config []byte
}

// State returns the configuration space.
func (f *Function) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return State{Config: append([]byte(nil), f.cfg[:]...)}
}

// SetState takes the bits of s that a guest could have written, and maps the
// BARs where they were.
func (f *Function) SetState(s State) error {
	if len(s.Config) != configSize {
		return fmt.Errorf("pci: %s: configuration space of %d bytes", f.id.Name, len(s.Config))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range s.Config {
		if (s.Config[i]^f.cfg[i])&^f.mask[i] != 0 {
			return fmt.Errorf("pci: %s: saved from another device: byte %#x of configuration space is %#x, not %#x",
				f.id.Name, i, s.Config[i], f.cfg[i])
		}
	}
	copy(f.cfg[:], s.Config)
	f.remap()
	return nil
}
