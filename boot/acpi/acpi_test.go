package acpi

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

func testConfigs() map[string]Config {
	id := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	var devices []VirtioMMIO
	for n := range 15 {
		devices = append(devices, VirtioMMIO{Addr: 0xd000_0000 + 0x1000*memory.Addr(n), Size: 0x1000, GSI: uint32(5 + n)})
	}
	return map[string]Config{
		"bare": {CPUs: 1},
		"mmio": {CPUs: 4, COM1: true, RTC: true, PVPanic: true, VirtioMMIO: devices},
		"pci": {CPUs: 2, COM1: true, COM2: true, RTC: true, I8042: true, PVPanic: true, Generation: &id,
			PCI: &PCI{ECAM: 0xe000_0000, Window: Range{0xc000_0000, 0x1000_0000}, ConfigIO: true}},
		"everything": {CPUs: MaxCPUs, COM1: true, COM2: true, RTC: true, I8042: true, PVPanic: true, Generation: &id,
			VirtioMMIO: devices, PCI: &PCI{ECAM: 0xe000_0000, LastBus: 255, Window: Range{0xc000_0000, 0x1000_0000},
				Window64: Range{0x40_0000_0000, 0x40_0000_0000}, IOWindow: Range{0x1000, 0xf000}, ConfigIO: true}},
	}
}

// find returns a table's bytes.
func find(t *testing.T, tables []Table, signature string) []byte {
	t.Helper()
	for _, table := range tables {
		if table.Signature == signature {
			return table.Data
		}
	}
	t.Fatalf("no table %q", signature)
	return nil
}

func sum(b []byte) (s uint8) {
	for _, c := range b {
		s += c
	}
	return s
}

// TestTablesAreFound follows the pointers as an operating system does.
func TestTablesAreFound(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range testConfigs() {
		t.Run(name, func(t *testing.T) {
			tables, err := Build(c)
			if err != nil {
				t.Fatal(err)
			}
			memoryAt := map[uint64][]byte{}
			var end memory.Addr
			for _, table := range tables {
				if table.Addr < max(end, Base) || table.Addr%16 != 0 {
					t.Errorf("%s at %#x overlaps or is not aligned", table.Signature, table.Addr)
				}
				end = table.Addr + memory.Addr(len(table.Data))
				memoryAt[uint64(table.Addr)] = table.Data
			}
			if end > 0x10_0000 {
				t.Errorf("tables end at %#x", end)
			}
			root := memoryAt[0xe0000]
			if string(root[:8]) != "RSD PTR " || sum(root[:20]) != 0 || sum(root) != 0 || root[15] != 2 || le.Uint32(root[20:]) != 36 {
				t.Errorf("root pointer % x", root)
			}
			xsdt := memoryAt[le.Uint64(root[24:])]
			if string(xsdt[:4]) != "XSDT" {
				t.Fatal("the root pointer points to no XSDT")
			}
			var got []string
			for e := xsdt[36:]; len(e) > 0; e = e[8:] {
				table := memoryAt[le.Uint64(e)]
				got = append(got, string(table[:4]))
				if string(table[:4]) == "FACP" {
					got = append(got, string(memoryAt[le.Uint64(table[140:])][:4]))
				}
			}
			want := "FACP DSDT APIC"
			if c.PCI != nil {
				want += " MCFG"
			}
			if strings.Join(got, " ") != want {
				t.Errorf("tables %q, want %q", got, want)
			}
			for _, table := range tables[1:] {
				if table.Signature != "" && (sum(table.Data) != 0 || le.Uint32(table.Data[4:]) != uint32(len(table.Data))) {
					t.Errorf("%s: checksum or length is wrong", table.Signature)
				}
			}
		})
	}
}

func TestFADT(t *testing.T) {
	le := binary.LittleEndian
	tables, err := Build(testConfigs()["pci"])
	if err != nil {
		t.Fatal(err)
	}
	b := find(t, tables, "FACP")
	if len(b) != 276 || b[8] != 6 {
		t.Errorf("%d bytes, revision %d", len(b), b[8])
	}
	flags := le.Uint32(b[112:])
	if flags>>20&1 != 1 || flags>>10&1 != 1 || flags>>4&1 != 1 {
		t.Errorf("flags %#x: want hardware-reduced, reset register, control-method power button", flags)
	}
	for off, port := range map[int]uint64{116: 0x602, 244: 0x600, 256: 0x601} {
		if !bytes.Equal(b[off:off+4], []byte{1, 8, 0, 1}) || le.Uint64(b[off+4:]) != port {
			t.Errorf("register at %d: % x", off, b[off:off+12])
		}
	}
	if b[128] != 1 || le.Uint16(b[109:]) != 0x17 {
		t.Errorf("reset value %#x, boot architecture %#x", b[128], le.Uint16(b[109:]))
	}
	if !bytes.Equal(b[46:108], make([]byte, 108-46)) || b[108] != 0x32 {
		t.Errorf("fixed hardware in a hardware-reduced FADT: % x", b[46:109])
	}
	tables, err = Build(Config{CPUs: 1})
	if err != nil {
		t.Fatal(err)
	}
	if arch := le.Uint16(find(t, tables, "FACP")[109:]); arch != 0x34 {
		t.Errorf("boot architecture %#x without any chip: want no RTC, no 8042, no VGA", arch)
	}
}

func TestMADT(t *testing.T) {
	tables, err := Build(Config{CPUs: 3})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := hex.DecodeString("0000e0fe00000000" + // local APICs
		"0008000001000000" + "0008010101000000" + "0008020201000000" + // CPUs
		"010c03000000c0fe00000000" + // I/O APIC, id 3
		"0406ff000001") // NMI to LINT1
	if b := find(t, tables, "APIC"); !bytes.Equal(b[36:], want) {
		t.Errorf("% x\nwant % x", b[36:], want)
	}
}

func TestMCFG(t *testing.T) {
	tables, err := Build(Config{CPUs: 1, PCI: &PCI{ECAM: 0xe000_0000, LastBus: 7}})
	if err != nil {
		t.Fatal(err)
	}
	want, _ := hex.DecodeString("0000000000000000" + "000000e000000000" + "0000" + "00" + "07" + "00000000")
	if b := find(t, tables, "MCFG"); !bytes.Equal(b[36:], want) {
		t.Errorf("% x", b[36:])
	}
}

// TestAML compares terms with what iasl makes of the same source.
func TestAML(t *testing.T) {
	for _, c := range []struct {
		source string
		got    []byte
		want   string
	}{
		{"Zero", integer(0), "00"},
		{"One", integer(1), "01"},
		{"0xff", integer(0xff), "0aff"},
		{"0x100", integer(0x100), "0b0001"},
		{"0x10000", integer(0x10000), "0c00000100"},
		{"0x100000000", integer(1 << 32), "0e0000000001000000"},
		{`"AB"`, text("AB"), "0d414200"},
		{`EISAID("PNP0A08")`, eisaID("PNP0A08"), "0c41d00a08"},
		{`EISAID("PNP0501")`, eisaID("PNP0501"), "0c41d00501"},
		{"Name (_UID, 2)", named("_UID", integer(2)), "085f5549440a02"},
		{"Device (D) {}", device("D"), "5b8205445f5f5f"},
		{"Package () {5, 0}", pack(integer(5), integer(0)), "1205020a0500"},
		{"Notify (PWRB, 0x80)", notify("PWRB", 0x80), "86505752420a80"},
		{"Method (_EVT, 1, Serialized) {}", method("_EVT", 1), "14065f45565409"},
		{"IO (Decode16, 0x3f8, 0x3f8, 1, 8)", ports(0x3f8, 8), "4701f803f8030108"},
		{"Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) {4}", interrupt(4), "890600030104000000"},
		{"Memory32Fixed (ReadWrite, 0xd0000000, 0x1000)", fixedMemory(0xd000_0000, 0x1000), "86090001000000d000100000"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: %s, want %s", c.source, got, c.want)
		}
	}
}

// TestPackageLength decodes every length that takes another number of bytes.
func TestPackageLength(t *testing.T) {
	for _, n := range []int{0, 1, 62, 63, 64, 4093, 4094, 4095, 1<<20 - 4, 1<<20 - 3, 1 << 20, 1<<28 - 5} {
		b := packageLength(n)
		got := int(b[0] & 0x3f)
		if follow := int(b[0] >> 6); follow != len(b)-1 {
			t.Errorf("%d: % x has %d bytes more, says %d", n, b, len(b)-1, follow)
		} else if follow > 0 {
			got &= 0xf
			for i, c := range b[1:] {
				got |= int(c) << (4 + 8*i)
			}
		}
		if got != n+len(b) {
			t.Errorf("%d: % x means %d", n, b, got)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"no CPUs":              {},
		"too many CPUs":        {CPUs: MaxCPUs + 1},
		"device above 4 GiB":   {CPUs: 1, VirtioMMIO: []VirtioMMIO{{Addr: math.MaxUint32, Size: 0x1000}}},
		"device of no size":    {CPUs: 1, VirtioMMIO: []VirtioMMIO{{Addr: 0x1000}}},
		"too many devices":     {CPUs: 1, VirtioMMIO: make([]VirtioMMIO, 0x1000)},
		"tables too long":      {CPUs: 1, VirtioMMIO: manyDevices(3000)},
		"ECAM above 4 GiB":     {CPUs: 1, PCI: &PCI{ECAM: math.MaxUint32 &^ (1<<20 - 1), LastBus: 1}},
		"ECAM not aligned":     {CPUs: 1, PCI: &PCI{ECAM: 0xe000_1000}},
		"window above 4 GiB":   {CPUs: 1, PCI: &PCI{Window: Range{0xf000_0000, 0x2000_0000}}},
		"window that wraps":    {CPUs: 1, PCI: &PCI{Window64: Range{1 << 63, 1<<63 + 1}}},
		"port window too high": {CPUs: 1, PCI: &PCI{IOWindow: Range{0x8000, 0x8001}}},
		"port window too long": {CPUs: 1, PCI: &PCI{IOWindow: Range{0, 0x10000}}},
	} {
		if _, err := Build(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func manyDevices(n int) []VirtioMMIO {
	d := make([]VirtioMMIO, n)
	for i := range d {
		d[i] = VirtioMMIO{Addr: memory.Addr(i) << 12, Size: 0x1000}
	}
	return d
}
