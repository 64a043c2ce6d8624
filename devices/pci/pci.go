// Package pci is a PCI bus with its host bridge (PCI Local Bus 3.0):
// configuration space by port and by ECAM, base address registers that move,
// capabilities, MSI-X.
package pci

import (
	"fmt"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

// Mapper is where the memory of functions is mapped: a *bus.Bus.
type Mapper interface {
	Map(r bus.Range, d bus.Device) error
	Unmap(base uint64) bool
}

// Window is a range of guest physical addresses that belongs to the bus.
type Window struct{ Base, Size uint64 }

func (w Window) contains(base, size uint64) bool {
	return base >= w.Base && base-w.Base < w.Size && size <= w.Size-(base-w.Base)
}

// Devices is how many devices a bus has room for (PCI 3.0 §3.2.2.3.2).
const Devices = 32

// Host is a host bridge and bus 0, of which it is device 0. The other devices
// have one function each.
type Host struct {
	mmio    Mapper
	windows []Window
	ports   ports

	mu   sync.RWMutex
	devs [Devices]*Function
	used []uint64 // of each window, from its start: what Add gave away
}

// The host bridge's identity: a plain bridge that no driver binds to, as other
// machine monitors show it.
const (
	bridgeVendor = 0x8086
	bridgeDevice = 0x0d57
	bridgeClass  = 0x060000
)

// NewHost returns a bus without functions but the bridge. The memory of
// functions lies inside the windows and is mapped on mmio while the guest has
// it enabled.
func NewHost(mmio Mapper, windows ...Window) *Host {
	h := &Host{mmio: mmio, windows: windows, used: make([]uint64, len(windows))}
	h.ports.host = h
	h.devs[0] = NewFunction(Identity{Vendor: bridgeVendor, Device: bridgeDevice, Class: bridgeClass, Name: "host bridge"})
	return h
}

// Add puts f at the next free device number and gives its base address
// registers addresses, as firmware would. Decoding stays off until the guest
// enables it.
func (h *Host) Add(f *Function) (device int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for device = 1; device < Devices && h.devs[device] != nil; device++ {
	}
	if device == Devices {
		return 0, fmt.Errorf("pci: no room for %s: the bus has %d devices", f.id.Name, Devices)
	}
	for i, b := range f.bars {
		if b == nil {
			continue
		}
		addr, err := h.place(b)
		if err != nil {
			return 0, fmt.Errorf("pci: %s: base address register %d: %w", f.id.Name, i, err)
		}
		f.setAddress(i, addr)
	}
	f.host = h
	h.devs[device] = f
	return device, nil
}

// place takes room for b from the first window that has it.
func (h *Host) place(b *bar) (uint64, error) {
	for i, w := range h.windows {
		addr := (w.Base + h.used[i] + b.Size - 1) &^ (b.Size - 1)
		if !w.contains(addr, b.Size) || !b.Wide && addr+b.Size > 1<<32 {
			continue
		}
		h.used[i] = addr + b.Size - w.Base
		return addr, nil
	}
	return 0, fmt.Errorf("no window has room for %d bytes", b.Size)
}

// decodes says whether memory at base belongs to the bus.
func (h *Host) decodes(base, size uint64) bool {
	for _, w := range h.windows {
		if w.contains(base, size) {
			return true
		}
	}
	return false
}

func (h *Host) function(device, function uint64) *Function {
	if device >= Devices || function != 0 {
		return nil
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.devs[device]
}

// Info is what there is to see of a function.
type Info struct {
	Device   int // its number on the bus
	Identity Identity
	Command  uint16
	BARs     []BARInfo
	Config   []byte // the configuration space
}

// BARInfo is what there is to see of a base address register.
type BARInfo struct {
	Index      int
	Addr, Size uint64
	Mapped     bool
}

// Inspect lists the functions on the bus, the bridge first.
func (h *Host) Inspect() []Info {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var infos []Info
	for i, f := range h.devs {
		if f != nil {
			info := f.inspect()
			info.Device = i
			infos = append(infos, info)
		}
	}
	return infos
}

// ones is what a read gives that nobody answers: a master abort (PCI 3.0
// §3.2.2.3.4).
func ones(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}
