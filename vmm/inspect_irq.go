package vmm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// irqView is the machine's interrupt controllers.
type irqView struct {
	Chips  x86.Chips   `json:"chips"`
	LAPICs []x86.LAPIC `json:"lapics"`
}

// Chips is the state of the interrupt controllers and the timer.
func (m *Machine) Chips() (x86.Chips, error) {
	vm, ok := m.vm.(interface{ Chips() (x86.Chips, error) })
	if !ok {
		return x86.Chips{}, errors.New("this accelerator does not show its interrupt controllers")
	}
	return vm.Chips()
}

// inspectIRQ shows how interrupts are routed: I/O APIC, 8259s, local APICs.
func inspectIRQ(m *Machine, _ *InspectQuery) (View, error) {
	var v irqView
	var err error
	if v.Chips, err = m.Chips(); err != nil {
		return View{}, err
	}
	var b strings.Builder
	m.ioapicText(&b, &v.Chips.IOAPIC)
	for i, name := range []string{"primary", "secondary"} {
		p := &v.Chips.PICs[i]
		fmt.Fprintf(&b, "8259 %s: vectors from %#x, requested %08b, in service %08b, masked %08b\n", name, p.IRQBase, p.IRR, p.ISR, p.IMR)
	}
	for id := range m.cpus {
		err := m.OnCPU(id, func(c VCPU) error {
			k, ok := c.(interface{ LAPIC() (x86.LAPIC, error) })
			if !ok {
				return nil
			}
			l, err := k.LAPIC()
			if err == nil {
				v.LAPICs = append(v.LAPICs, l)
				lapicText(&b, id, l.Regs)
			}
			return err
		})
		if err != nil {
			return View{}, err
		}
	}
	return View{b.String(), v}, nil
}

// ioapicText is the redirection table (82093AA, 3.2.4).
func (m *Machine) ioapicText(b *strings.Builder, c *x86.IOAPIC) {
	users := map[uint32]string{0: "PIT", gsiCOM1: "COM1", gsiSCI: "ACPI"}
	for _, s := range m.virtio {
		if s.base != 0 {
			users[s.gsi] = s.Device().Spec().Name
		}
	}
	fmt.Fprintf(b, "I/O APIC %d:\n", c.ID>>24&15)
	for pin, e := range c.Redirection {
		const masked = 1 << 16
		if e&masked != 0 && users[uint32(pin)] == "" {
			continue
		}
		mode := [...]string{"fixed", "lowest priority", "SMI", "?", "NMI", "INIT", "?", "ExtINT"}[e>>8&7]
		fmt.Fprintf(b, "  pin %2d %-10s vector %#04x %s to %s %#x, %s, active %s", pin, users[uint32(pin)], e&0xff, mode,
			[...]string{"APIC", "logical"}[e>>11&1], e>>56, [...]string{"edge", "level"}[e>>15&1], [...]string{"high", "low"}[e>>13&1])
		if e&masked != 0 {
			b.WriteString(", masked")
		}
		if e>>14&1 != 0 {
			b.WriteString(", waits for EOI")
		}
		b.WriteString("\n")
	}
}

// lapicText is a local APIC's registers (SDM vol. 3, table 11-1).
func lapicText(b *strings.Builder, id int, regs []byte) {
	reg := func(off int) uint32 {
		if off+4 > len(regs) {
			return 0
		}
		return binary.LittleEndian.Uint32(regs[off:])
	}
	vectors := func(off int) string {
		var set []string
		for i := range 256 {
			if reg(off+i/32*16)>>(i%32)&1 != 0 {
				set = append(set, fmt.Sprintf("%#x", i))
			}
		}
		if len(set) == 0 {
			return "none"
		}
		return strings.Join(set, " ")
	}
	state := "off"
	if reg(0xf0)&0x100 != 0 {
		state = "on"
	}
	fmt.Fprintf(b, "local APIC of vcpu %d: %s, spurious vector %#x, priority %#x\n", id, state, reg(0xf0)&0xff, reg(0x80))
	fmt.Fprintf(b, "  requested: %s; in service: %s\n", vectors(0x200), vectors(0x100))
	timer := reg(0x320)
	fmt.Fprintf(b, "  timer: vector %#x, %s", timer&0xff, [...]string{"one-shot", "periodic", "TSC deadline", "?"}[timer>>17&3])
	if timer&(1<<16) != 0 {
		b.WriteString(", masked")
	}
	fmt.Fprintf(b, ", initial count %d, now %d\n", reg(0x380), reg(0x390))
}
