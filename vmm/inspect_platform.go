package vmm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

func inspectPCI(m *Machine, _ *InspectQuery) (View, error) {
	if m.platform.pci == nil {
		return View{}, errors.New("the machine has no PCI bus: its devices are behind virtio-mmio (--transport pci)")
	}
	var b strings.Builder
	list := m.platform.pci.Inspect()
	for _, f := range list {
		id := f.Identity
		fmt.Fprintf(&b, "00:%02x.0 %s [%04x:%04x] class %06x revision %d\n", f.Device, id.Name, id.Vendor, id.Device, id.Class, id.Revision)
		_, command := pci.Decode(nil, 4, true, uint64(f.Command))
		fmt.Fprintf(&b, "  command %#06x %s\n", f.Command, command)
		for _, bar := range f.BARs {
			state := "not decoded"
			if bar.Mapped {
				state = "mapped"
			}
			fmt.Fprintf(&b, "  BAR %d %#x, %s, %s\n", bar.Index, bar.Addr, binarySize(bar.Size), state)
		}
		for _, c := range pci.Entries(f.Config) {
			fmt.Fprintf(&b, "  %#04x %s\n", c.At, c.Name())
		}
	}
	return View{b.String(), list}, nil
}

// acpiTable is a table in a view.
type acpiTable struct {
	Signature string `json:"signature"`
	Addr      uint64 `json:"addr"`
	Length    uint32 `json:"length"`
	Revision  uint8  `json:"revision"`
	OEM       string `json:"oem"`
	Sound     bool   `json:"sound"` // its checksum is right
}

// maxTables bounds the tables of a view: they lie in guest memory.
const maxTables = 64

// inspectACPI follows the tables as the guest finds them (ACPI 6.5 §5.2).
func inspectACPI(m *Machine, _ *InspectQuery) (View, error) {
	rsdp, err := m.mem.Bytes(acpi.Base, 36)
	if err != nil || string(rsdp[:8]) != "RSD PTR " {
		return View{}, errors.New("the guest has no ACPI tables: the lean kernel takes none")
	}
	var b strings.Builder
	xsdt := littleEndian(rsdp[24:32])
	fmt.Fprintf(&b, "RSDP at %#x, revision %d\n", uint64(acpi.Base), rsdp[15])
	var tables []acpiTable
	add := func(at uint64) []byte {
		t, body, ok := m.acpiTable(at)
		if !ok {
			fmt.Fprintf(&b, "  %#x: no table there\n", at)
			return nil
		}
		sound := "checksum right"
		if !t.Sound {
			sound = "CHECKSUM WRONG"
		}
		tables = append(tables, t)
		fmt.Fprintf(&b, "  %s at %#x, %d bytes, revision %d, %s, %s\n", t.Signature, at, t.Length, t.Revision, t.OEM, sound)
		return body
	}
	body := add(xsdt)
	for i := 36; i+8 <= len(body) && len(tables) < maxTables; i += 8 {
		t := add(littleEndian(body[i : i+8]))
		if len(t) >= 148 && string(t[:4]) == "FACP" {
			add(littleEndian(t[140:148])) // X_DSDT
		}
	}
	return View{b.String(), tables}, nil
}

func (m *Machine) acpiTable(at uint64) (t acpiTable, body []byte, ok bool) {
	h, err := m.mem.Bytes(memory.Addr(at), 36)
	if err != nil {
		return t, nil, false
	}
	t = acpiTable{Signature: printable(h[:4]), Addr: at, Length: uint32(littleEndian(h[4:8])), Revision: h[8], OEM: strings.TrimSpace(printable(h[10:24]))}
	if body, err = m.mem.Bytes(memory.Addr(at), uint64(t.Length)); err != nil || t.Length < 36 || t.Length > 1<<20 {
		return t, nil, false
	}
	var sum uint8
	for _, c := range body {
		sum += c
	}
	t.Sound = sum == 0
	return t, body, true
}

func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, string(b))
}

func inspectCPUID(m *Machine, q *InspectQuery) (View, error) {
	var b strings.Builder
	list := cpuidFor(m.cpuid, q.CPU, m.cfg.CPUs)
	fmt.Fprintf(&b, "vcpu %d, as the VMM set it; some hosts add bits of their own\n", q.CPU)
	for _, e := range list {
		fmt.Fprintf(&b, "  %#010x.%d  eax %08x  ebx %08x  ecx %08x  edx %08x  %s\n", e.Function, e.Index, e.EAX, e.EBX, e.ECX, e.EDX, decode.LeafName(e.Function))
		if names := cpuidFeatures(&e); names != "" {
			fmt.Fprintf(&b, "    %s\n", names)
		}
	}
	return View{b.String(), list}, nil
}

// featureNames are the bits of the leaves that name features (SDM vol. 2,
// CPUID), in the order of the bits; "" has no name here.
var featureNames = map[uint32]map[byte]string{
	1: {'c': "sse3 pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cnxt-id sdbg fma cx16 xtpr pdcm - pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor",
		'd': "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 psn clfsh - ds acpi mmx fxsr sse sse2 ss htt tm - pbe"},
	7: {'b': "fsgsbase tsc-adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm - - mpx - avx512f avx512dq rdseed adx smap avx512ifma - clflushopt clwb - - - - sha avx512bw avx512vl"},
	0x80000001: {'d': "- - - - - - - - - - - syscall - - - - - - - - nx - - - - - pdpe1gb rdtscp - lm - -",
		'c': "lahf-lm - - - - lzcnt - - prefetchw - - - - - - - - - - - - - - - - - - - - - - -"},
}

func cpuidFeatures(e *x86.CPUIDEntry) string {
	var set []string
	if e.Index != 0 {
		return ""
	}
	for _, r := range []struct {
		name  byte
		value uint32
	}{{'d', e.EDX}, {'c', e.ECX}, {'b', e.EBX}} {
		for i, name := range strings.Fields(featureNames[e.Function][r.name]) {
			if r.value>>i&1 != 0 && name != "-" {
				set = append(set, name)
			}
		}
	}
	return strings.Join(set, " ")
}
