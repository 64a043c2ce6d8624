package boot

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// MapEntry is one range of the E820 map.
type MapEntry struct {
	Addr, Size uint64
	Type       uint32
}

// TypeName names the range's type (ACPI 6.4 table 15-374).
func (e MapEntry) TypeName() string {
	switch e.Type {
	case e820RAM:
		return "usable RAM"
	case e820Reserved:
		return "reserved"
	case e820PRAM:
		return "persistent memory (type 12)"
	}
	return fmt.Sprintf("type %d", e.Type)
}

// MemoryMap is the E820 map that a guest with these regions is given. tables
// is its ACPI configuration, or nil.
func MemoryMap(regions []memory.Region, tables *acpi.Config) ([]MapEntry, error) {
	m, err := e820Map(regions, tables)
	list := make([]MapEntry, len(m))
	for i, e := range m {
		list[i] = MapEntry{e.addr, e.size, e.kind}
	}
	return list, err
}
