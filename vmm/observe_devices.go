package vmm

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// chipTypes are the types of the chips, by their names on the buses (see
// addPlatform).
var chipTypes = map[string]string{
	"COM1": "serial", "i8042": "i8042", "RTC": "rtc", "debug port": "debugport", "pvpanic": "pvpanic",
	"ACPI": "acpi", "PCI": "pci-ports", "PCI ECAM": "pci-ecam",
}

// tracedDevices lists what accesses can reach. Devices behind PCI BARs are
// listed whether they are mapped or not.
func (m *Machine) tracedDevices() []trace.Device {
	var list []trace.Device
	add := func(r bus.Range, port bool) {
		d := trace.Device{Name: r.Name, Type: chipTypes[r.Name], Port: port, Base: r.Base, Size: r.Size, Source: -1}
		if d.Type != "" {
			list = append(list, d)
		}
	}
	for _, r := range m.pio.Ranges() {
		add(r, true)
	}
	for _, r := range m.mmio.Ranges() {
		add(r, false)
	}
	for i, s := range m.virtio {
		spec := s.Device().Spec()
		d := trace.Device{Name: spec.Name, Type: "virtio-mmio", Base: s.base, Size: virtioMMIOSize,
			Virtio: uint32(spec.ID), Source: len(m.cpus) + i}
		if s.base == 0 {
			d.Type, d.Size = "virtio-pci", 0
		}
		list = append(list, d)
	}
	return list
}

// deviceIndex finds the devices by the names that the buses have for them.
func deviceIndex(list []trace.Device) map[string]uint32 {
	index := make(map[string]uint32)
	for i, d := range list {
		index[d.Name] = uint32(i)
		if d.Type == "virtio-pci" {
			index[fmt.Sprintf("%s BAR 0", d.Name)] = uint32(i)
		}
	}
	return index
}
