package decode

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// pciPorts names accesses to CONFIG_ADDRESS and CONFIG_DATA.
type pciPorts struct{ meta *trace.Meta }

func (p pciPorts) Access(off uint64, _ uint8, write bool, v uint64) (register, meaning string) {
	port := off & 0xff
	if port < 4 {
		return "CONFIG_ADDRESS", function(p.meta, int(v>>11&0x1f)) + fmt.Sprintf(" register %#x", v&0xfc)
	}
	address := off >> 8
	name, meaning := config(p.meta, int(address>>11&0x1f), address&0xfc+port-4, write, v)
	return "CONFIG_DATA " + name, meaning
}

// pciECAM names accesses to configuration space in memory.
type pciECAM struct{ meta *trace.Meta }

func (p pciECAM) Access(off uint64, _ uint8, write bool, v uint64) (register, meaning string) {
	return config(p.meta, int(off>>15&0x1f), off&0xfff, write, v)
}

// function is what stands at a device number.
func function(meta *trace.Meta, device int) string {
	for _, f := range meta.Functions {
		if f.Device == device {
			return fmt.Sprintf("%02x.0 %s", device, f.Name)
		}
	}
	return fmt.Sprintf("%02x.0", device)
}

func config(meta *trace.Meta, device int, reg uint64, write bool, v uint64) (register, meaning string) {
	var list []pci.Entry
	for _, f := range meta.Functions {
		if f.Device == device {
			for _, c := range f.Capabilities {
				list = append(list, pci.Entry{At: c.At, ID: c.ID, Type: c.Type})
			}
		}
	}
	name, meaning := pci.Decode(list, reg, write, v)
	return function(meta, device) + " " + name, meaning
}
