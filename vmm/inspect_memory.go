package vmm

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/boot"
	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
)

// memoryRegion is a region in a view.
type memoryRegion struct {
	Base     uint64 `json:"base"`
	Size     uint64 `json:"size"`
	Kind     string `json:"kind"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	File     string `json:"file,omitempty"`
}

// regionKinds names the kinds of memory.
var regionKinds = [...]string{"RAM", "persistent memory", "virtio-pmem window"}

// inspectMemory is the memory map, or with an address the bytes there.
func inspectMemory(m *Machine, q *InspectQuery) (View, error) {
	if q.HasA {
		return m.dump(q)
	}
	var b strings.Builder
	var regions []memoryRegion
	b.WriteString("guest memory:\n")
	for _, r := range m.mem.Regions() {
		v := memoryRegion{uint64(r.Base), uint64(len(r.Bytes)), regionKinds[r.Kind], r.ReadOnly, r.File}
		regions = append(regions, v)
		fmt.Fprintf(&b, "  %#012x-%#012x %9s %s", v.Base, v.Base+v.Size-1, binarySize(v.Size), v.Kind)
		if v.ReadOnly {
			b.WriteString(", read-only")
		}
		if v.File != "" {
			fmt.Fprintf(&b, ", %s", v.File)
		}
		b.WriteString("\n")
	}
	e820, err := boot.MemoryMap(m.mem.Regions(), m.acpiConfig())
	if err != nil {
		return View{}, err
	}
	b.WriteString("E820 map that the guest was given:\n")
	for _, e := range e820 {
		fmt.Fprintf(&b, "  %#012x-%#012x %9s %s\n", e.Addr, e.Addr+e.Size-1, binarySize(e.Size), e.TypeName())
	}
	busText(&b, "devices in memory", m.mmio)
	busText(&b, "devices in ports", m.pio)
	return View{b.String(), map[string]any{"regions": regions, "e820": e820, "mmio": m.mmio.Ranges(), "ports": m.pio.Ranges()}}, nil
}

func busText(b *strings.Builder, title string, on *bus.Bus) {
	fmt.Fprintf(b, "%s:\n", title)
	for _, r := range on.Ranges() {
		fmt.Fprintf(b, "  %#012x-%#012x %s\n", r.Base, r.Base+r.Size-1, r.Name)
	}
}

func binarySize(n uint64) string {
	switch {
	case n >= 1<<30 && n%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", n>>30)
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// maxDump bounds the bytes of a view.
const maxDump = 1 << 20

// dump is the memory at a virtual address.
func (m *Machine) dump(q *InspectQuery) (View, error) {
	s, err := m.patient(q.CPU)
	if err != nil {
		return View{}, err
	}
	n := q.Length
	if n <= 0 {
		n = 256
	}
	pc := paging.Of(&s.Regs, &s.Sregs)
	p, err := m.virtual(&pc, q.Addr, min(n, maxDump))
	if err != nil {
		return View{}, err
	}
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(hex.Dump(p), "\n"), "\n") {
		if len(line) > 8 {
			line = line[8:]
		}
		fmt.Fprintf(&b, "%016x%s\n", q.Addr+uint64(16*i), line)
	}
	return View{b.String(), map[string]any{"addr": q.Addr, "bytes": p}}, nil
}

// virtual reads up to n bytes at a virtual address, as far as they are mapped.
func (m *Machine) virtual(pc *paging.CPU, addr uint64, n int) ([]byte, error) {
	var b []byte
	for len(b) < n {
		at := addr + uint64(len(b))
		w := pc.Walk(m.mem, at, paging.Read)
		if w.PageSize == 0 && pc.Mode() != paging.None {
			if len(b) > 0 {
				break
			}
			return nil, fmt.Errorf("nothing is mapped at %#x: %v", at, w.Cause)
		}
		room := memory.PageSize - at%memory.PageSize
		part, err := m.mem.Bytes(w.GPA, min(room, uint64(n-len(b))))
		if err != nil {
			if len(b) > 0 {
				break
			}
			return nil, fmt.Errorf("no memory at %#x (guest physical %#x): a device, or nothing", at, uint64(w.GPA))
		}
		b = append(b, part...)
	}
	return b, nil
}
