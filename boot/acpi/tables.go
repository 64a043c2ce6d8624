package acpi

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Build returns the tables, the RSDP first, each with its place between Base
// and End, and with Config.Generation the 16 bytes of the generation
// identifier (Signature "").
func Build(c Config) ([]Table, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("ACPI tables: %w", err)
	}
	b := builder{next: Base + align(rsdpSize)}
	dsdt := b.add("DSDT", 2, dsdtBody(&c))
	listed := []memory.Addr{b.add("FACP", 6, fadtBody(&c, dsdt)), b.add("APIC", 5, madtBody(&c))}
	if c.PCI != nil {
		listed = append(listed, b.add("MCFG", 1, mcfgBody(c.PCI)))
	}
	var entries []byte
	for _, a := range listed {
		entries = binary.LittleEndian.AppendUint64(entries, uint64(a))
	}
	xsdt := b.add("XSDT", 1, entries)
	if b.next > End {
		return nil, fmt.Errorf("ACPI tables: they end at %#x, past %#x", b.next, End)
	}
	tables := append([]Table{{"RSDP", Base, rsdp(xsdt)}}, b.tables...)
	if c.Generation != nil {
		tables = append(tables, Table{"", GenerationID, c.Generation[:]})
	}
	return tables, nil
}

func (c *Config) check() error {
	if c.CPUs < 1 || c.CPUs > MaxCPUs {
		return fmt.Errorf("%d CPUs: want 1 to %d", c.CPUs, MaxCPUs)
	}
	if len(c.VirtioMMIO) > 0xfff {
		return fmt.Errorf("%d virtio-mmio devices: at most %d have names", len(c.VirtioMMIO), 0xfff)
	}
	for n, v := range c.VirtioMMIO {
		if v.Size == 0 || uint64(v.Addr) > math.MaxUint32-uint64(v.Size) {
			return fmt.Errorf("virtio-mmio device %d: %#x+%#x is not below 4 GiB", n, v.Addr, v.Size)
		}
	}
	if c.PCI == nil {
		return nil
	}
	return c.PCI.check()
}

func (p *PCI) check() error {
	if uint64(p.ECAM) > math.MaxUint32-uint64(p.ECAMSize()) || p.ECAM%(1<<20) != 0 {
		return fmt.Errorf("PCI configuration space at %#x is not below 4 GiB or not aligned", p.ECAM)
	}
	for _, w := range []struct {
		name  string
		r     Range
		limit uint64
	}{{"I/O window", p.IOWindow, math.MaxUint16}, {"window", p.Window, math.MaxUint32}, {"64-bit window", p.Window64, math.MaxUint64}} {
		if w.r.Size > 0 && (uint64(w.r.Base) > w.limit || w.r.Size-1 > w.limit-uint64(w.r.Base)) {
			return fmt.Errorf("PCI %s %#x+%#x ends past %#x", w.name, w.r.Base, w.r.Size, w.limit)
		}
	}
	if p.IOWindow.Size > math.MaxUint16 || p.Window.Size > math.MaxUint32 {
		return fmt.Errorf("PCI window of %#x bytes does not fit its descriptor", max(p.IOWindow.Size, p.Window.Size))
	}
	return nil
}

// builder gives tables their places.
type builder struct {
	next   memory.Addr
	tables []Table
}

// tableAlign is how tables are aligned: nobody asks for more.
const tableAlign = 16

func align(n memory.Addr) memory.Addr { return (n + tableAlign - 1) &^ (tableAlign - 1) }

const headerSize = 36

// add puts a header before body (ACPI 6.4 table 5-29) and returns the table's
// address.
//
//	 0  signature (4)       16  OEM table id (8)
//	 4  length (4)          24  OEM revision (4)
//	 8  revision (1)        28  creator id (4)
//	 9  checksum (1)        32  creator revision (4)
//	10  OEM id (6)
func (b *builder) add(signature string, revision uint8, body []byte) memory.Addr {
	t := make([]byte, headerSize, headerSize+len(body))
	copy(t, signature)
	binary.LittleEndian.PutUint32(t[4:], uint32(headerSize+len(body)))
	t[8] = revision
	copy(t[10:], "VITRIN")
	copy(t[16:], "VITRINE ")
	binary.LittleEndian.PutUint32(t[24:], 1)
	copy(t[28:], "VTRN")
	binary.LittleEndian.PutUint32(t[32:], 1)
	t = append(t, body...)
	t[9] = checksum(t)
	a := b.next
	b.tables = append(b.tables, Table{signature, a, t})
	b.next = align(a + memory.Addr(len(t)))
	return a
}

const rsdpSize = 36

// rsdp encodes the root pointer, revision 2 (§5.2.5.3).
//
//	 0  "RSD PTR "                  16  RSDT's address (4) = 0: none
//	 8  checksum of 20 bytes (1)    20  length (4) = 36
//	 9  OEM id (6)                  24  XSDT's address (8)
//	15  revision (1) = 2            32  checksum of 36 bytes (1), reserved (3)
func rsdp(xsdt memory.Addr) []byte {
	b := make([]byte, rsdpSize)
	copy(b, "RSD PTR ")
	copy(b[9:], "VITRIN")
	b[15] = 2
	binary.LittleEndian.PutUint32(b[20:], rsdpSize)
	binary.LittleEndian.PutUint64(b[24:], uint64(xsdt))
	b[8] = checksum(b[:20])
	b[32] = checksum(b)
	return b
}

// checksum is the byte that makes the sum of b zero.
func checksum(b []byte) (sum uint8) {
	for _, c := range b {
		sum -= c
	}
	return sum
}

// madtBody lists the interrupt controllers (§5.2.12). Lines need no overrides:
// line n of a PC is pin n here.
//
//	0  local APICs' address (4)
//	4  flags (4) = 0: no PIC to be switched off
//	8  local APIC (§5.2.12.2): 0, 8, _UID, APIC id, flags (4) = enabled
//	   I/O APIC (§5.2.12.3): 1, 12, id, 0, address (4), first GSI (4)
//	   local APIC NMI (§5.2.12.7): 4, 6, _UID = all, flags (2) = 0, LINT1
func madtBody(c *Config) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, LocalAPIC)
	b = le.AppendUint32(b, 0)
	for n := range c.CPUs {
		b = le.AppendUint32(append(b, 0, 8, uint8(n), uint8(n)), 1)
	}
	b = append(b, 1, 12, uint8(c.CPUs), 0)
	b = le.AppendUint32(le.AppendUint32(b, IOAPIC), 0)
	return append(b, 4, 6, 0xff, 0, 0, 1)
}

// mcfgBody tells where the configuration space is (PCI Firmware 3.2 table 4-2).
//
//	0  reserved (8)
//	8  base (8), segment (2), first bus (1), last bus (1), reserved (4)
func mcfgBody(p *PCI) []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 8), uint64(p.ECAM))
	return append(b, 0, 0, 0, p.LastBus, 0, 0, 0, 0)
}
