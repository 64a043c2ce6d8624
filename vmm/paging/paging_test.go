package paging

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

const ramSize = 1 << 20

func newMemory(t testing.TB) (*memory.Guest, []byte) {
	g, err := memory.New(ramSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g, g.Regions()[0].Bytes
}

func put64(b []byte, at, v uint64) { binary.LittleEndian.PutUint64(b[at:], v) }
func get64(b []byte, at uint64) uint64 {
	return binary.LittleEndian.Uint64(b[at:])
}

var long = CPU{CR0: x86.CR0PE | x86.CR0PG | x86.CR0WP, CR3: 0x1000, CR4: x86.CR4PAE, EFER: x86.EFERLMA | x86.EFERLME | x86.EFERNXE}

// tables maps, in 4-level paging, linear 0x4000 (4 KiB), 2 MiB (2 MiB page)
// and 1 GiB (1 GiB page), with the given bits in every entry.
func tables(ram []byte, bits uint64) {
	put64(ram, 0x1000, 0x2000|bits)
	put64(ram, 0x2000, 0x3000|bits)
	put64(ram, 0x2008, 1<<30|bits|bitLarge)
	put64(ram, 0x3000, 0x4000|bits)
	put64(ram, 0x3008, 0x40_0000|bits|bitLarge)
	put64(ram, 0x4020, 0x7000|bits)
}

func TestPageSizes(t *testing.T) {
	g, ram := newMemory(t)
	tables(ram, bitPresent|bitWrite|bitUser)
	for linear, want := range map[uint64]struct {
		gpa  memory.Addr
		size uint64
	}{
		0x4abc:        {0x7abc, 4 << 10},
		2<<20 | 0x345: {0x40_0345, 2 << 20},
		1<<30 + 12345: {1<<30 + 12345, 1 << 30},
	} {
		w := long.Walk(g, linear, Read)
		if w.Cause != Mapped || w.GPA != want.gpa || w.PageSize != want.size {
			t.Errorf("%#x: %+v", linear, w)
		}
		gpa, _, ok := long.Translate(g, linear, Read)
		if !ok || gpa != want.gpa {
			t.Errorf("%#x translates to %#x, %v", linear, gpa, ok)
		}
	}
}

func TestFiveLevels(t *testing.T) {
	g, ram := newMemory(t)
	tables(ram, bitPresent|bitWrite)
	put64(ram, 0x8000+8*3, 0x1000|bitPresent|bitWrite)
	c := long
	c.CR4 |= x86.CR4LA57
	c.CR3 = 0x8000
	if w := c.Walk(g, 3<<48|0x4001, Read); w.GPA != 0x7001 || w.Depth != 5 {
		t.Errorf("%+v", w)
	}
	if c.Canonical(1<<56) || !c.Canonical(1<<55) || !c.Canonical(uint64(0xff)<<56) {
		t.Error("57 bits are translated")
	}
}

func TestLegacyPages(t *testing.T) {
	g, ram := newMemory(t)
	put := func(at int, v uint32) { binary.LittleEndian.PutUint32(ram[at:], v) }
	put(0x1004, 0x2000|bitPresent|bitWrite|bitUser)
	put(0x2008, 0x5000|bitPresent|bitWrite|bitUser)
	put(0x1008, 0x80_0000|3<<13|bitPresent|bitLarge)
	c := CPU{CR0: x86.CR0PE | x86.CR0PG | x86.CR0WP, CR3: 0x1000, CR4: x86.CR4PSE, MaxPhys: 36}
	if gpa, _, ok := c.Translate(g, 4<<20|2<<12|7, Write); !ok || gpa != 0x5007 {
		t.Errorf("4 KiB: %#x, %v", gpa, ok)
	}
	if e := binary.LittleEndian.Uint32(ram[0x2008:]); e != 0x5067 {
		t.Errorf("its entry is %#x: accessed and dirty are missing", e)
	}
	if w := c.Walk(g, 8<<20|0x123, Read); w.GPA != 3<<32|0x80_0123 || w.PageSize != 4<<20 {
		t.Errorf("4 MiB with PSE-36: %+v", w)
	}
	put(0x1008, 0x80_0000|1<<21|bitPresent|bitLarge)
	if w := c.Walk(g, 8<<20, Read); w.Cause != Reserved || w.Code != x86.PFPresent|x86.PFRsvd {
		t.Errorf("bit 21: %+v", w)
	}
	c.CR4 = 0
	put(0x1008, 0x2000|bitPresent|bitLarge)
	if w := c.Walk(g, 8<<20|2<<12, Read); w.GPA != 0x5000 {
		t.Errorf("without PSE bit 7 means nothing: %+v", w)
	}
}

func TestPAE(t *testing.T) {
	g, ram := newMemory(t)
	put64(ram, 0x1028, 0x2000|bitPresent)             // PDPT at 0x1020, entry 1
	put64(ram, 0x2000, 0x3000|bitPresent|bitWrite)    // PD
	put64(ram, 0x3008, 0x6000|bitPresent|bitWrite)    // PT
	put64(ram, 0x2008, 0x60_0000|bitPresent|bitLarge) // 2 MiB
	c := CPU{CR0: x86.CR0PE | x86.CR0PG | x86.CR0WP, CR3: 0x1020, CR4: x86.CR4PAE}
	if gpa, _, ok := c.Translate(g, 1<<30|0x1010, Write); !ok || gpa != 0x6010 {
		t.Errorf("4 KiB: %#x, %v", gpa, ok)
	}
	if get64(ram, 0x1028) != 0x2001 || get64(ram, 0x3008) != 0x6063 {
		t.Errorf("entries %#x, %#x", get64(ram, 0x1028), get64(ram, 0x3008))
	}
	if w := c.Walk(g, 1<<30|2<<20|5, Read); w.GPA != 0x60_0005 || w.PageSize != 2<<20 {
		t.Errorf("2 MiB: %+v", w)
	}
	put64(ram, 0x1028, 0x2000|bitPresent|bitWrite)
	if w := c.Walk(g, 1<<30, Read); w.Cause != Reserved {
		t.Errorf("R/W of a PDPTE is reserved: %+v", w)
	}
}

func TestWithoutPaging(t *testing.T) {
	g, _ := newMemory(t)
	c := CPU{}
	if gpa, _, ok := c.Translate(g, 0x1_0000_1234, Write); !ok || gpa != 0x1234 {
		t.Errorf("%#x, %v", gpa, ok)
	}
}

// TestRights goes through SDM vol. 3, 4.6.1 and the error codes of 4.7.
func TestRights(t *testing.T) {
	const (
		p, w, u, i = x86.PFPresent, x86.PFWrite, x86.PFUser, x86.PFFetch
		all        = bitPresent | bitWrite | bitUser
	)
	smep, smap := uint64(x86.CR4SMEP), uint64(x86.CR4SMAP)
	for _, c := range []struct {
		name   string
		leaf   uint64
		cpl    uint8
		access Access
		change func(*CPU)
		cause  Cause
		code   uint32
	}{
		{"user reads", all, 3, Read, nil, Mapped, 0},
		{"user reads a kernel page", bitPresent | bitWrite, 3, Read, nil, NotUser, p | u},
		{"user writes a read-only page", bitPresent | bitUser, 3, Write, nil, NotWritable, p | w | u},
		{"user executes data", all | bitXD, 3, Fetch, nil, NotExecutable, p | u | i},
		{"user writes what is not there", 0, 3, Write, nil, NotPresent, w | u},
		{"kernel writes a read-only page", bitPresent, 0, Write, nil, NotWritable, p | w},
		{"kernel writes it without CR0.WP", bitPresent, 0, Write, func(c *CPU) { c.CR0 &^= x86.CR0WP }, Mapped, 0},
		{"kernel executes data", bitPresent | bitXD, 0, Fetch, nil, NotExecutable, p | i},
		{"kernel executes a user page", all, 0, Fetch, nil, Mapped, 0},
		{"with SMEP", all, 0, Fetch, func(c *CPU) { c.CR4 |= smep }, SMEP, p | i},
		{"with SMAP", all, 0, Read, func(c *CPU) { c.CR4 |= smap }, SMAP, p},
		{"with SMAP and AC", all, 0, Write, func(c *CPU) { c.CR4 |= smap; c.RFLAGS = x86.FlagAC }, Mapped, 0},
		{"implicitly, with SMAP and AC", all, 0, Implicit, func(c *CPU) { c.CR4 |= smap; c.RFLAGS = x86.FlagAC }, SMAP, p},
		{"implicitly from user mode", bitPresent, 3, Implicit, nil, Mapped, 0},
		{"XD without EFER.NXE", all | bitXD, 0, Read, func(c *CPU) { c.EFER &^= x86.EFERNXE }, Reserved, p | x86.PFRsvd},
		{"fetch without NXE and SMEP has no I", 0, 0, Fetch, func(c *CPU) { c.EFER &^= x86.EFERNXE }, NotPresent, 0},
		{"an address beyond MAXPHYADDR", all | 1<<45, 0, Read, func(c *CPU) { c.MaxPhys = 40 }, Reserved, p | x86.PFRsvd},
	} {
		g, ram := newMemory(t)
		tables(ram, all)
		put64(ram, 0x4020, 0x7000|c.leaf)
		cpu := long
		cpu.CPL = c.cpl
		if c.change != nil {
			c.change(&cpu)
		}
		if got := cpu.Walk(g, 0x4000, c.access); got.Cause != c.cause || got.Code != c.code {
			t.Errorf("%s: %v, code %#x; want %v, %#x", c.name, got.Cause, got.Code, c.cause, c.code)
		}
	}
}

// A right is what all levels together give.
func TestRightsOfUpperLevels(t *testing.T) {
	g, ram := newMemory(t)
	tables(ram, bitPresent|bitWrite|bitUser)
	put64(ram, 0x2000, 0x3000|bitPresent|bitUser|bitXD)
	w := long.Walk(g, 0x4000, Read)
	if w.Writable || w.Executable || !w.User {
		t.Errorf("%+v", w)
	}
}

func TestAccessedAndDirty(t *testing.T) {
	g, ram := newMemory(t)
	tables(ram, bitPresent|bitWrite)
	long.Walk(g, 0x4000, Write)
	if get64(ram, 0x4020) != 0x7003 {
		t.Error("Walk changed an entry")
	}
	if _, _, ok := long.Translate(g, 0x4000, Read); !ok {
		t.Fatal("not mapped")
	}
	if get64(ram, 0x1000) != 0x2023 || get64(ram, 0x3000) != 0x4023 || get64(ram, 0x4020) != 0x7023 {
		t.Errorf("after a read: %#x %#x %#x", get64(ram, 0x1000), get64(ram, 0x3000), get64(ram, 0x4020))
	}
	if _, _, ok := long.Translate(g, 0x4000, Write); !ok || get64(ram, 0x4020) != 0x7063 {
		t.Errorf("after a write: %#x", get64(ram, 0x4020))
	}
	if _, _, ok := long.Translate(g, 0x5000, Write); ok {
		t.Error("0x5000 is not mapped")
	}
}

func TestHostileTables(t *testing.T) {
	const all = bitPresent | bitWrite | bitUser
	for name, c := range map[string]struct {
		cr3, entry uint64
		cause      Cause
	}{
		"CR3 outside memory":           {ramSize, 0, Outside},
		"CR3 in the hole":              {0xfee00000, 0, Outside},
		"CR3 at the end of all":        {addrMask, 0, Outside},
		"a table outside memory":       {0x1000, 1<<40 | all, Outside},
		"a table that is itself":       {0x1000, 0x1000 | all, Mapped},
		"a large page in the PML4":     {0x1000, 0x2000 | all | bitLarge, Reserved},
		"nothing but ones":             {0x1000, ^uint64(0), Reserved},
		"a table in the VMM's devices": {0x1000, 0xd0000000 | all, Outside},
	} {
		g, ram := newMemory(t)
		put64(ram, 0x1000, c.entry)
		cpu := long
		cpu.CR3 = c.cr3
		if w := cpu.Walk(g, 0, Read); w.Cause != c.cause {
			t.Errorf("%s: %v", name, w.Cause)
		}
		if gpa, _, ok := cpu.Translate(g, 0, Write); ok && gpa != 0x1000 {
			t.Errorf("%s: %#x", name, gpa)
		}
	}
	g, _ := newMemory(t)
	if w := long.Walk(g, 1<<47, Read); w.Cause != NonCanonical || w.Depth != 0 {
		t.Errorf("%+v", w)
	}
}

func TestText(t *testing.T) {
	g, ram := newMemory(t)
	tables(ram, bitPresent|bitWrite)
	w := long.Walk(g, 0x4abc, Read)
	text := w.String()
	for _, part := range []string{"4-level paging", "PML4[0] at 0x1000 = 0x0000000000002003", "present writable → table 0x2000",
		"PT[4] at 0x4020", "→ page 0x7000", "→ 0x7abc in a 4 KiB page"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
	w = long.Walk(g, 0x9000, Read)
	if text := w.String(); !strings.Contains(text, "no page: not present") {
		t.Error(text)
	}
}

func TestTranslateDoesNotAllocate(t *testing.T) {
	g, ram := newMemory(t)
	tables(ram, bitPresent|bitWrite)
	if n := testing.AllocsPerRun(100, func() { long.Translate(g, 0x4000, Write) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzWalk walks random tables: whatever they say, there is an end, and what
// is mapped lies where the last entry says.
func FuzzWalk(f *testing.F) {
	f.Add([]byte{0x67, 0x20, 0, 0, 0, 0, 0, 0}, uint64(0x4000), uint64(0x1000), uint64(x86.CR4PAE), uint64(0xd00), uint8(0))
	f.Add([]byte{0xe7, 0x10, 0, 0, 0, 0, 0, 0x80}, ^uint64(0), uint64(0x1000), uint64(x86.CR4LA57|x86.CR4PAE), uint64(0xd00), uint8(7))
	f.Add([]byte{0x83, 0, 0xff, 0xff}, uint64(0xc0000000), uint64(0), uint64(x86.CR4PSE), uint64(0), uint8(1))
	g, ram := newMemory(f)
	f.Fuzz(func(t *testing.T, table []byte, linear, cr3, cr4, efer uint64, access uint8) {
		if len(table) == 0 {
			return
		}
		for i := 0x1000; i < 0x6000; i++ {
			ram[i] = table[i%len(table)]
		}
		c := CPU{CR0: x86.CR0PG | x86.CR0PE, CR3: cr3, CR4: cr4, EFER: efer, CPL: access >> 4 & 3, MaxPhys: access >> 2}
		w := c.Walk(g, linear, Access(access&7))
		if w.Depth > 5 || w.Cause == Mapped && w.PageSize == 0 {
			t.Fatalf("%+v", w)
		}
		_ = w.String()
		gpa, code, ok := c.Translate(g, linear, Access(access&7))
		if ok != (w.Cause == Mapped) && w.Cause == Mapped {
			t.Fatalf("%v %#x %#x; %+v", ok, gpa, code, w)
		}
	})
}
