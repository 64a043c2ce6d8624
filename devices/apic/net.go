package apic

import (
	"cmp"
	"slices"
	"sync"
)

// Net connects local APICs, the I/O APIC and message-signalled interrupts.
type Net struct {
	mu   sync.Mutex // guards cpus while they are connected
	cpus []*LAPIC   // by id, so that the order of connecting decides nothing
	io   IOAPIC
}

func (n *Net) connect(l *LAPIC) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cpus = append(n.cpus, l)
	slices.SortFunc(n.cpus, func(a, b *LAPIC) int { return cmp.Compare(a.id, b.id) })
}

// message is an interrupt on its way.
type message struct {
	dest      uint32
	x2        bool // dest is of 32 bits
	logical   bool
	mode      uint8
	vector    uint8
	level     bool
	shorthand uint8 // 0 none, 1 self, 2 all, 3 all but self
}

// ipi makes a message of a write to ICR (SDM vol. 3, 11.6.1).
func (l *LAPIC) ipi(v uint32) *message {
	if v>>15&1 != 0 && v>>14&1 == 0 && v>>8&7 == modeInit {
		return nil // INIT level de-assert: no such thing any more
	}
	m := &message{logical: v>>11&1 != 0, mode: uint8(v >> 8 & 7), vector: uint8(v), shorthand: uint8(v >> 18 & 3)}
	if l.mode == ModeX2APIC {
		m.dest, m.x2 = l.icrHigh, true
	} else {
		m.dest = l.reg[regICR2] >> 24
	}
	return m
}

// matches says whether the APIC is a destination.
func (l *LAPIC) matches(m *message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.dest == 0xff && !m.x2 || m.dest == 0xffffffff {
		return true
	}
	if !m.logical {
		return m.dest == l.id
	}
	if l.mode == ModeX2APIC {
		ldr := l.reg[regLDR]
		return m.dest>>16 == ldr>>16 && m.dest&ldr&0xffff != 0
	}
	ldr := l.reg[regLDR] >> 24
	if l.reg[regDFR]>>28 == 0 { // cluster model
		return m.dest>>4 == ldr>>4 && m.dest&ldr&15 != 0
	}
	return m.dest&ldr&0xff != 0
}

// send delivers a message; from is nil if it comes from outside the CPUs.
func (n *Net) send(m *message, from *LAPIC) {
	if m.shorthand == 1 {
		from.deliver(m.mode, m.vector, m.level)
		return
	}
	for _, l := range n.cpus {
		switch {
		case m.shorthand == 3 && l == from:
			continue
		case m.shorthand == 0 && !l.matches(m):
			continue
		}
		l.deliver(m.mode, m.vector, m.level)
		if m.mode == modeLowest && m.shorthand == 0 {
			return // any one of the destinations will do
		}
	}
}

// Message delivers a message-signalled interrupt (SDM vol. 3, 11.11).
func (n *Net) Message(addr uint64, data uint32) {
	if addr>>20 != 0xfee {
		return
	}
	n.send(&message{dest: uint32(addr >> 12 & 0xff), logical: addr&4 != 0,
		mode: uint8(data >> 8 & 7), vector: uint8(data), level: data>>15&1 != 0}, nil)
}

// ended tells the I/O APIC that a level-triggered interrupt was handled.
func (n *Net) ended(vector uint8) { n.io.ended(n, vector) }

// IO is the I/O APIC.
func (n *Net) IO() *IOAPIC { return &n.io }

// ReadMSR reads an x2APIC register; ok is false where #GP is due.
func (l *LAPIC) ReadMSR(index uint32) (v uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := int(index - 0x800)
	if l.mode != ModeX2APIC || r >= len(l.reg) || !readable(r) {
		return 0, false
	}
	v = uint64(l.read(r))
	if r == regICR {
		v |= uint64(l.icrHigh) << 32
	}
	return v, true
}

// readable are the registers that x2APIC mode has (SDM vol. 3, table 11-6).
func readable(r int) bool {
	switch {
	case r == regEOI, r == regDFR, r == regICR2, r == regSelfIPI, r == regAPR:
		return false
	case r >= regISR && r <= regESR, r >= regICR && r <= regCurrent:
		return true
	}
	return r == regID || r == regVersion || r == regTPR || r == regPPR || r == regLDR || r == regSVR || r == regDivide
}

// WriteMSR writes an x2APIC register.
func (l *LAPIC) WriteMSR(index uint32, v uint64) bool {
	r := int(index - 0x800)
	l.mu.Lock()
	x2 := l.mode == ModeX2APIC
	if x2 && r == regICR {
		l.icrHigh = uint32(v >> 32)
	}
	l.mu.Unlock()
	switch r {
	case regTPR, regEOI, regSVR, regESR, regTimer, regThermal, regPerf, regLINT0, regLINT1, regError, regInitial, regDivide:
		if v>>32 != 0 || (r == regEOI || r == regESR) && v != 0 {
			return false
		}
	case regICR:
	case regSelfIPI:
		if x2 {
			l.deliver(modeFixed, uint8(v), false)
		}
		return x2
	default:
		return false
	}
	if x2 {
		l.write(r, uint32(v))
	}
	return x2
}
