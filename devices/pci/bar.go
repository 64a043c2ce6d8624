package pci

import (
	"encoding/binary"
	"fmt"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

// BAR is memory that a function decodes (PCI 3.0 §6.2.5.1).
type BAR struct {
	Size   uint64 // a power of two, at least 16; 4 KiB and more keeps pages apart
	Wide   bool   // a 64-bit register, which takes the place of two
	Device bus.Device

	// Moved is called when the guest has the memory at another address, or
	// none. nil: nobody needs to know.
	Moved func(addr uint64, mapped bool)
}

type bar struct {
	BAR
	mapped bool
	at     uint64 // where, if mapped
}

const (
	barWide    = 0b100 // type: locate anywhere in 64 bits
	barMinSize = 16
)

// AddBAR gives the function base address register i.
func (f *Function) AddBAR(i int, b BAR) error {
	regs := 1
	if b.Wide {
		regs = 2
	}
	switch {
	case i < 0 || i+regs > len(f.bars):
		return fmt.Errorf("pci: %s: no base address register %d", f.id.Name, i)
	case b.Size < barMinSize || b.Size&(b.Size-1) != 0 || b.Size > 1<<31 && !b.Wide:
		return fmt.Errorf("pci: %s: base address register of %#x bytes", f.id.Name, b.Size)
	}
	for j := max(i-1, 0); j < i+regs; j++ {
		if o := f.bars[j]; o != nil && (j >= i || o.Wide) {
			return fmt.Errorf("pci: %s: base address register %d is taken", f.id.Name, j)
		}
	}
	f.bars[i] = &bar{BAR: b}
	// A guest finds the size by writing ones: the bits below it stay 0.
	at, bits := regBAR+4*i, ^(b.Size - 1)
	binary.LittleEndian.PutUint32(f.mask[at:], uint32(bits))
	if b.Wide {
		f.cfg[at] = barWide
		binary.LittleEndian.PutUint32(f.mask[at+4:], uint32(bits>>32))
	}
	return nil
}

// address is what register i says.
func (f *Function) address(i int) uint64 {
	at := regBAR + 4*i
	a := uint64(binary.LittleEndian.Uint32(f.cfg[at:]) &^ 0xf)
	if f.bars[i].Wide {
		a |= uint64(binary.LittleEndian.Uint32(f.cfg[at+4:])) << 32
	}
	return a
}

func (f *Function) setAddress(i int, addr uint64) {
	at := regBAR + 4*i
	low := binary.LittleEndian.Uint32(f.cfg[at:]) & 0xf
	binary.LittleEndian.PutUint32(f.cfg[at:], uint32(addr)|low)
	if f.bars[i].Wide {
		binary.LittleEndian.PutUint32(f.cfg[at+4:], uint32(addr>>32))
	}
}

// remap maps each BAR where its register says while memory space is enabled.
// An address outside the bus's windows, or where another BAR lies, is decoded
// by nobody. First everything leaves its old place: registers may swap.
func (f *Function) remap() {
	if f.host == nil {
		return
	}
	enabled := f.command()&commandMemory != 0
	var moved [len(f.bars)]bool
	for i, b := range f.bars {
		if b != nil && b.mapped && (!enabled || b.at != f.address(i)) {
			f.host.mmio.Unmap(b.at)
			b.mapped, moved[i] = false, true
		}
	}
	for i, b := range f.bars {
		if b == nil {
			continue
		}
		if enabled && !b.mapped && f.map1(i) {
			moved[i] = true
		}
		if moved[i] && b.Moved != nil {
			b.Moved(b.at, b.mapped)
		}
	}
}

func (f *Function) map1(i int) bool {
	b, addr := f.bars[i], f.address(i)
	if !f.host.decodes(addr, b.Size) {
		return false
	}
	name := fmt.Sprintf("%s BAR %d", f.id.Name, i)
	if f.host.mmio.Map(bus.Range{Base: addr, Size: b.Size, Name: name}, b.Device) != nil {
		return false
	}
	b.mapped, b.at = true, addr
	return true
}
