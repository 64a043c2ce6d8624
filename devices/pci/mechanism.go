package pci

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

// PortBase is where PCs have the configuration ports; PortSize is how many
// there are.
const (
	PortBase = 0xcf8
	PortSize = 8
)

// ECAMSize is the size of the enhanced configuration space of one bus.
const ECAMSize = 1 << 20

// Ports returns configuration mechanism #1 (PCI 3.0 §3.2.2.3.2): a device of
// PortSize ports, CONFIG_ADDRESS and CONFIG_DATA.
func (h *Host) Ports() bus.Device { return &h.ports }

type ports struct {
	host    *Host
	address atomic.Uint32
}

const (
	configEnable  = 1 << 31
	configAddress = configEnable | 0x00fffffc // the bits that are there
	configData    = 4                         // offset of CONFIG_DATA
)

// Read implements bus.Device. CONFIG_ADDRESS is a register for accesses of 32
// bits; smaller ones go elsewhere, here nowhere.
func (c *ports) Read(off uint64, p []byte) {
	ones(p)
	switch {
	case off == 0 && len(p) == 4:
		binary.LittleEndian.PutUint32(p, c.address.Load())
	case off >= configData && off+uint64(len(p)) <= PortSize:
		if f, reg := c.target(off); f != nil {
			f.Read(reg, p)
		}
	}
}

// Write implements bus.Device.
func (c *ports) Write(off uint64, p []byte) {
	switch {
	case off == 0 && len(p) == 4:
		c.address.Store(binary.LittleEndian.Uint32(p) & configAddress)
	case off >= configData && off+uint64(len(p)) <= PortSize:
		if f, reg := c.target(off); f != nil {
			f.Write(reg, p)
		}
	}
}

// target is what CONFIG_ADDRESS selects: enable, bus, device, function,
// register.
func (c *ports) target(off uint64) (f *Function, reg uint64) {
	a := uint64(c.address.Load())
	if a&configEnable == 0 || a>>16&0xff != 0 {
		return nil, 0
	}
	return c.host.function(a>>11&0x1f, a>>8&7), a&0xfc + off - configData
}

// SetAddress and Address are for snapshots: CONFIG_ADDRESS.
func (h *Host) SetAddress(v uint32) { h.ports.address.Store(v & configAddress) }

// Address returns CONFIG_ADDRESS.
func (h *Host) Address() uint32 { return h.ports.address.Load() }

// ECAM returns the enhanced configuration mechanism for bus 0 (PCI Express
// Base 3.0 §7.2.2): a device of ECAMSize bytes.
func (h *Host) ECAM() bus.Device { return ecam{h} }

type ecam struct{ host *Host }

// Read implements bus.Device.
func (e ecam) Read(off uint64, p []byte) {
	ones(p)
	if f := e.host.function(off>>15, off>>12&7); f != nil {
		f.Read(off&0xfff, p)
	}
}

// Write implements bus.Device.
func (e ecam) Write(off uint64, p []byte) {
	if f := e.host.function(off>>15, off>>12&7); f != nil {
		f.Write(off&0xfff, p)
	}
}
