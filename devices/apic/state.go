package apic

import (
	"encoding/binary"
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

const statePage = 1024 // bytes of registers, 16 for each

// State is the APIC's register page. Its mode is in IA32_APIC_BASE, the
// deadline of its timer in IA32_TSC_DEADLINE.
func (l *LAPIC) State() x86.LAPIC {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := make([]byte, statePage)
	for r := range l.reg {
		binary.LittleEndian.PutUint32(b[16*r:], l.read(r))
	}
	if l.mode == ModeX2APIC {
		binary.LittleEndian.PutUint32(b[16*regICR2:], l.icrHigh)
	}
	return x86.LAPIC{Regs: b}
}

// SetState takes a register page, with the mode set before. A timer that was
// counting goes on from its current count.
func (l *LAPIC) SetState(s x86.LAPIC) error {
	if len(s.Regs) != statePage {
		return fmt.Errorf("local APIC state: %d bytes, want %d", len(s.Regs), statePage)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.reg {
		l.reg[r] = binary.LittleEndian.Uint32(s.Regs[16*r:])
	}
	l.reg[regVersion] = version
	l.reg[regEOI], l.reg[regSelfIPI] = 0, 0
	l.reg[regDivide] &= 0xb
	l.icrHigh = l.reg[regICR2]
	logical := l.reg[regLDR]
	l.identify()
	if l.mode != ModeX2APIC {
		l.reg[regLDR] = logical & 0xff000000
	}
	// Vectors below 16 cannot be pending (SDM vol. 3, 11.8.4).
	l.reg[regIRR] &^= 0xffff
	l.reg[regISR] &^= 0xffff
	l.resume()
	l.cpu.Interrupt()
	return nil
}

// resume goes on counting from the current count.
func (l *LAPIC) resume() {
	initial, left := l.reg[regInitial], l.reg[regCurrent]
	l.begun = 0
	if l.timerMode() == timerDeadline || initial == 0 || left == 0 {
		l.arm()
		return
	}
	gone := uint64(initial-min(left, initial)) * l.divisor()
	now := l.cpu.Now()
	// A machine younger than the count: the count begins where it can.
	l.begun = max(now-min(gone, now), 1)
	l.cpu.Arm(l.begun + l.period())
}

// State is the I/O APIC's state.
func (c *IOAPIC) State() x86.IOAPIC {
	c.mu.Lock()
	defer c.mu.Unlock()
	return x86.IOAPIC{Select: uint32(c.sel), ID: uint32(c.id), Lines: c.lines, Redirection: c.pins}
}

// SetState takes a state.
func (c *IOAPIC) SetState(s x86.IOAPIC) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sel, c.id, c.lines = uint8(s.Select), uint8(s.ID&15), s.Lines&(1<<Pins-1)
	for i, e := range s.Redirection {
		c.pins[i] = e & (0xff<<56 | 0x1ffff)
	}
}
