package boot

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

func sum(b []byte) (s uint8) {
	for _, c := range b {
		s += c
	}
	return s
}

// TestMPTable decodes the table as the specification says, for every number of
// CPUs.
func TestMPTable(t *testing.T) {
	sizes := map[byte]int{mpProcessor: 20, mpBus: 8, mpIOAPIC: 8, mpInterrupt: 8, mpLocal: 8}
	for cpus := 1; cpus <= MaxCPUs; cpus++ {
		b, err := mpTable(ebdaAddr, cpus, []uint32{9, 20})
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > int(videoAddr-ebdaAddr) {
			t.Fatalf("%d CPUs: %d bytes do not fit in the EBDA", cpus, len(b))
		}
		if string(b[:4]) != "_MP_" || sum(b[:16]) != 0 || b[8] != 1 || b[9] != 4 || u32(b, 4) != uint64(ebdaAddr)+16 {
			t.Fatalf("floating pointer % x", b[:16])
		}
		table := b[16:]
		if string(table[:4]) != "PCMP" || u16(table, 4) != uint64(len(table)) || sum(table) != 0 || u32(table, 36) != 0xfee00000 {
			t.Fatalf("header % x", table[:44])
		}
		var ids []byte
		var ioapic byte
		pins := map[byte][]byte{}
		entries := 0
		for e := table[44:]; len(e) > 0; entries++ {
			n, ok := sizes[e[0]]
			if !ok || n > len(e) {
				t.Fatalf("entry % x", e)
			}
			switch e[0] {
			case mpProcessor:
				if (e[3] == 3) != (len(ids) == 0) || e[3]&1 == 0 {
					t.Errorf("flags of CPU %d: %#x", e[1], e[3])
				}
				ids = append(ids, e[1])
			case mpIOAPIC:
				ioapic = e[1]
			case mpInterrupt:
				if e[6] != ioapic || e[5] != e[7] {
					t.Errorf("interrupt % x", e[:8])
				}
				pins[e[7]] = e[2:4]
			}
			e = e[n:]
		}
		if uint64(entries) != u16(table, 34) {
			t.Errorf("%d entries, the header says %d", entries, u16(table, 34))
		}
		for i, id := range ids {
			if int(id) != i {
				t.Errorf("APIC ids % x", ids)
			}
		}
		if len(ids) != cpus || slices.Contains(ids, ioapic) || len(pins) != 23 {
			t.Errorf("%d CPUs: ids % x, I/O APIC %d, %d pins", cpus, ids, ioapic, len(pins))
		}
		for pin, flags := range pins {
			want := byte(mpEdge)
			if pin == 9 || pin == 20 {
				want = mpLevel
			}
			if flags[0] != want || flags[1] != 0 {
				t.Errorf("pin %d has flags % x", pin, flags)
			}
		}
	}
	for _, cpus := range []int{-1, 0, MaxCPUs + 1} {
		if _, err := mpTable(ebdaAddr, cpus, nil); err == nil {
			t.Errorf("a table of %d CPUs", cpus)
		}
	}
}

// TestE820Properties makes random sets of regions: the map is sorted and
// disjoint, RAM in it is RAM, and what is reserved is not.
func TestE820Properties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var regions []memory.Region
		next := memory.Addr(0)
		for range 1 + r.IntN(6) {
			size := memory.PageSize * (1 + r.IntN(600))
			regions = append(regions, memory.Region{Base: next, Bytes: make([]byte, size), Kind: memory.Kind(r.IntN(3))})
			next += memory.Addr(size + memory.PageSize*r.IntN(3)*r.IntN(1000))
		}
		m, err := e820Map(regions, nil)
		if err != nil {
			t.Fatal(err)
		}
		var end uint64
		for _, e := range m {
			if e.addr < end || e.size == 0 {
				t.Fatalf("%+v is empty or not above %#x", e, end)
			}
			end = e.addr + e.size
			kind := memory.RAM
			if e.kind == e820PRAM {
				kind = memory.PRAM
			}
			inside := slices.ContainsFunc(regions, func(r memory.Region) bool {
				return r.Kind == kind && e.addr >= uint64(r.Base) && end <= uint64(r.End())
			})
			if !inside {
				t.Fatalf("%+v is in no region of its kind", e)
			}
			if e.kind == e820RAM && e.addr < uint64(highMemory) && end > uint64(ebdaAddr) {
				t.Fatalf("%+v has the EBDA or the BIOS area in it", e)
			}
		}
	}
}

func TestE820OfMachine(t *testing.T) {
	g := guest(t, 4<<30)
	if err := g.AddAnonymous(0x2_0000_0000, 1<<20, memory.PRAM); err != nil {
		t.Fatal(err)
	}
	if err := g.AddAnonymous(0x3_0000_0000, 1<<20, memory.PMEM); err != nil {
		t.Fatal(err)
	}
	m, err := e820Map(g.Regions(), &acpi.Config{PCI: &acpi.PCI{ECAM: 0xe000_0000}})
	want := []e820Entry{
		{0, 0x9fc00, 1}, {0x9fc00, 0x400, 2}, {0xe0000, 0x20000, 2},
		{0x100000, 0xbff00000, 1}, {0xe0000000, 0x100000, 2}, {1 << 32, 1 << 30, 1}, {0x2_0000_0000, 1 << 20, 12},
	}
	if err != nil || !slices.Equal(m, want) {
		t.Errorf("%+v, %v\nwant %+v", m, err, want)
	}
	many := memory.NewEmpty()
	for i := range memory.Addr(129) {
		if err := many.AddRegion(memory.Region{Base: 1<<32 + i<<20, Bytes: make([]byte, memory.PageSize)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e820Map(many.Regions(), nil); err == nil {
		t.Error("more ranges than boot_params has room for, and no error")
	}
}

// TestBootParams decodes boot_params and hvm_start_info of the same guest.
func TestBootParams(t *testing.T) {
	initrd := bytes.Repeat([]byte("initrd"), 5000)
	img := Image{Kernel: file(t, "vmlinux", buildELF(tinyKernel())), Initrd: file(t, "initrd", initrd),
		CommandLine: "a b", CPUs: 2, ACPI: &acpi.Config{CPUs: 2}}
	g := guest(t, 64<<20)
	e, err := Load(g, img)
	if err != nil {
		t.Fatal(err)
	}
	b := at(t, g, e.Regs.RSI, paramsSize)
	if u16(b, hdrBootFlag) != 0xaa55 || string(b[hdrMagic:hdrMagic+4]) != "HdrS" || b[0x1ef] != 0 || b[hdrTypeOfLoader] != 0xff {
		t.Errorf("setup header % x", b[setupHeader:setupHeaderEnd])
	}
	ramdisk, n := u32(b, hdrRamdiskImage), u32(b, hdrRamdiskSize)
	if !bytes.Equal(at(t, g, ramdisk, n), initrd) || ramdisk%4096 != 0 || ramdisk < 63<<20 {
		t.Errorf("initrd: %d bytes at %#x", n, ramdisk)
	}
	if u64(b, paramsRSDP) != 0xe0000 || string(at(t, g, 0xe0000, 8)) != "RSD PTR " {
		t.Error("no ACPI root pointer")
	}
	if string(at(t, g, uint64(ebdaAddr), 4)) != "_MP_" || u16(at(t, g, 0x40e, 2), 0)<<4 != uint64(ebdaAddr) || u16(at(t, g, 0x413, 2), 0) != 639 {
		t.Error("no MP table, or nothing tells where it is")
	}
	if b[paramsE820Entries] != 4 || u64(b, paramsE820Table+3*20) != 1<<20 || u32(b, paramsE820Table+3*20+16) != 1 {
		t.Errorf("E820 map of %d entries", b[paramsE820Entries])
	}

	img.Protocol = ProtocolPVH
	g = guest(t, 64<<20)
	if e, err = Load(g, img); err != nil {
		t.Fatal(err)
	}
	s := at(t, g, e.Regs.RBX, pvhInfoSize)
	if u32(s, 0) != 0x336ec578 || u32(s, 4) != 1 || u32(s, 12) != 1 || u64(s, 32) != 0xe0000 || u32(s, 48) != 4 {
		t.Errorf("hvm_start_info % x", s)
	}
	module := at(t, g, u64(s, 16), pvhModuleSize)
	if !bytes.Equal(at(t, g, u64(module, 0), u64(module, 8)), initrd) {
		t.Error("the initrd is not the module")
	}
	if string(at(t, g, u64(s, 24), 4)) != "a b\x00" {
		t.Error("no command line")
	}
	last := at(t, g, u64(s, 40)+3*pvhMemmapSize, pvhMemmapSize)
	if u64(last, 0) != 1<<20 || u64(last, 8) != 63<<20 || u32(last, 16) != 1 {
		t.Errorf("memory map's last entry % x", last)
	}
}

// TestInitrdAddr: whatever the segments, the place is page-aligned, within the
// limits, touches none, and nothing higher would do.
func TestInitrdAddr(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		limit := uint64(r.IntN(64 << 20))
		size := uint64(1 + r.IntN(8<<20))
		var segments []segment
		for range r.IntN(5) {
			segments = append(segments, segment{addr: uint64(highMemory) + uint64(r.IntN(64<<20)), memSize: uint64(1 + r.IntN(8<<20))})
		}
		fits := func(addr uint64) bool {
			return addr >= uint64(highMemory) && addr+size <= limit && !slices.ContainsFunc(segments, func(s segment) bool {
				return s.addr < addr+size && addr < s.end()
			})
		}
		addr, ok := initrdAddr(size, limit, segments)
		if ok && (!fits(addr) || addr%memory.PageSize != 0) {
			t.Fatalf("%d bytes at %#x, limit %#x, segments %+v", size, addr, limit, segments)
		}
		for a := limit &^ (memory.PageSize - 1); a > addr && a >= uint64(highMemory); a -= memory.PageSize {
			if fits(a) {
				t.Fatalf("%d bytes at %#x (%v), but %#x is free", size, addr, ok, a)
			}
		}
	}
}

func TestTooLittleMemory(t *testing.T) {
	kernel := buildELF(tinyKernel())
	big := tinyKernel()
	big.segments[1].memSize = 100 << 20
	for _, c := range []struct {
		name   string
		kernel []byte
		memory uint64
		initrd int
		err    string
	}{
		{"kernel", buildELF(big), 64 << 20, 0, "too little memory: it takes the addresses 0x1000000-0x7600000, the guest has 64 MiB: give it at least 118 MiB"},
		{"kernel and initrd", buildELF(big), 64 << 20, 3 << 20, "and the initrd 3 MiB, the guest has 64 MiB: give it at least 121 MiB"},
		{"initrd", kernel, 20 << 20, 40 << 20, "and the initrd 40 MiB, the guest has 20 MiB: give it at least 59 MiB"},
		{"hardly any", kernel, 512 << 10, 0, "no RAM from 0 to"},
	} {
		img := Image{Kernel: file(t, "vmlinux", c.kernel)}
		if c.initrd > 0 {
			img.Initrd = file(t, "initrd", make([]byte, c.initrd))
		}
		if _, err := Load(guest(t, c.memory), img); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", c.name, err, c.err)
		}
	}
}

func TestEnoughMemoryIsEnough(t *testing.T) {
	img := Image{Kernel: file(t, "vmlinux", buildELF(tinyKernel())), Initrd: file(t, "initrd", make([]byte, 40<<20))}
	if _, err := Load(guest(t, 59<<20), img); err != nil {
		t.Errorf("with as much memory as the error asks for: %v", err)
	}
}

func TestTablesRefused(t *testing.T) {
	kernel := buildELF(tinyKernel())
	for _, img := range []Image{{CPUs: 33}, {CPUs: -1}, {ACPI: &acpi.Config{}}} {
		img.Kernel = file(t, "vmlinux", kernel)
		if _, err := Load(guest(t, 64<<20), img); err == nil {
			t.Errorf("%d CPUs, ACPI %+v: no error", img.CPUs, img.ACPI)
		}
	}
}
