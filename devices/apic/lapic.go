// Package apic is the interrupt controllers of a multiprocessor PC: a local
// APIC for each CPU and an I/O APIC, connected by a Net.
package apic

import (
	"math/bits"
	"sync"
)

// CPU is what a local APIC needs of its processor. The methods may be called
// from any goroutine, with the APIC locked: they must not call back.
type CPU interface {
	// Interrupt says that there may be an interrupt to acknowledge.
	Interrupt()
	NMI()
	Init()
	StartUp(vector uint8)
	// Now is the time in ticks of the timer's clock and, plus TSCOffset, of
	// the time-stamp counter.
	Now() uint64
	TSCOffset() uint64
	// Arm asks for a call of Tick at time t or soon after; 0 takes it back.
	Arm(t uint64)
}

// Registers of the local APIC by offset/16 (SDM vol. 3, table 11-1).
const (
	regID      = 0x02
	regVersion = 0x03
	regTPR     = 0x08
	regAPR     = 0x09
	regPPR     = 0x0a
	regEOI     = 0x0b
	regLDR     = 0x0d
	regDFR     = 0x0e
	regSVR     = 0x0f
	regISR     = 0x10
	regTMR     = 0x18
	regIRR     = 0x20
	regESR     = 0x28
	regICR     = 0x30
	regICR2    = 0x31
	regTimer   = 0x32
	regThermal = 0x33
	regPerf    = 0x34
	regLINT0   = 0x35
	regLINT1   = 0x36
	regError   = 0x37
	regInitial = 0x38
	regCurrent = 0x39
	regDivide  = 0x3e
	regSelfIPI = 0x3f // x2APIC only

	version   = 0x14 | 5<<16 // six LVT entries
	svrEnable = 1 << 8
	lvtMasked = 1 << 16

	timerPeriodic = 1
	timerDeadline = 2
)

// Delivery modes (SDM vol. 3, 11.5.1).
const (
	modeFixed  = 0
	modeLowest = 1
	modeNMI    = 4
	modeInit   = 5
	modeSIPI   = 6
	modeExtINT = 7
)

// Modes of the local APIC.
const (
	ModeOff = iota
	ModeXAPIC
	ModeX2APIC
)

// LAPIC is a local APIC (SDM vol. 3, chapter 11). Its methods may be called
// from any goroutine.
type LAPIC struct {
	cpu CPU
	net *Net
	id  uint32

	mu       sync.Mutex
	mode     uint8
	reg      [64]uint32
	deadline uint64 // of IA32_TSC_DEADLINE; 0: not armed
	begun    uint64 // when the count began
	icrHigh  uint32 // ICR's destination in x2APIC mode
}

// NewLAPIC makes the local APIC of a CPU and connects it.
func NewLAPIC(id uint32, cpu CPU, n *Net) *LAPIC {
	l := &LAPIC{cpu: cpu, net: n, id: id, mode: ModeXAPIC}
	l.reset()
	n.connect(l)
	return l
}

// Reset is what INIT does to the APIC: everything but its identity and mode.
func (l *LAPIC) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reset()
}

func (l *LAPIC) reset() {
	l.reg = [64]uint32{regVersion: version, regDFR: 0xffffffff, regSVR: 0xff}
	for r := regTimer; r <= regError; r++ {
		l.reg[r] = lvtMasked
	}
	if l.id == 0 {
		// What firmware leaves: the 8259s' interrupts reach the boot
		// processor (MultiProcessor Specification 1.4, 3.6.2.2). KVM does the
		// same at reset (KVM_X86_QUIRK_LINT0_REENABLED, api.rst 7.25).
		l.reg[regLINT0] = modeExtINT << 8
	}
	l.deadline = 0
	l.identify()
	l.cpu.Arm(0)
}

// identify sets the registers that say who the APIC is.
func (l *LAPIC) identify() {
	if l.mode == ModeX2APIC {
		l.reg[regID] = l.id
		l.reg[regLDR] = l.id>>4<<16 | 1<<(l.id&15)
		return
	}
	l.reg[regID] = l.id << 24
}

// SetMode switches between off, xAPIC and x2APIC. It returns false for a
// change that is not allowed (SDM vol. 3, 11.12.5).
func (l *LAPIC) SetMode(m uint8) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mode == m {
		return true
	}
	if l.mode == ModeX2APIC && m == ModeXAPIC || l.mode == ModeOff && m == ModeX2APIC {
		return false
	}
	l.mode = m
	if m == ModeOff {
		l.reset()
	}
	l.identify()
	l.cpu.Interrupt() // without an APIC, the 8259s have the CPU to themselves
	return true
}

// RestoreMode sets the mode of a state that is being restored, from whatever
// mode it is in.
func (l *LAPIC) RestoreMode(m uint8) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mode != m {
		l.mode = m
		l.identify()
	}
}

// highest is the highest bit set in the 256-bit register at r, or -1.
func (l *LAPIC) highest(r int) int {
	for i := 7; i >= 0; i-- {
		if w := l.reg[r+i]; w != 0 {
			return 32*i + bits.Len32(w) - 1
		}
	}
	return -1
}

func (l *LAPIC) set(r int, v uint8)   { l.reg[r+int(v>>5)] |= 1 << (v & 31) }
func (l *LAPIC) clear(r int, v uint8) { l.reg[r+int(v>>5)] &^= 1 << (v & 31) }
func (l *LAPIC) has(r int, v uint8) bool {
	return l.reg[r+int(v>>5)]>>(v&31)&1 != 0
}

// ppr is the processor-priority register (SDM vol. 3, 11.8.3.1).
func (l *LAPIC) ppr() uint32 {
	tpr := l.reg[regTPR] & 0xff
	isr := uint32(max(l.highest(regISR), 0))
	if tpr>>4 >= isr>>4 {
		return tpr
	}
	return isr & 0xf0
}

// pending is the vector that can be delivered now, or -1.
func (l *LAPIC) pending() int {
	v := l.highest(regIRR)
	if v < 0 || uint32(v)>>4 <= l.ppr()>>4 {
		return -1
	}
	return v
}

// Pending says whether there is an interrupt to acknowledge.
func (l *LAPIC) Pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending() >= 0
}

// Acknowledge takes the interrupt with the highest priority for delivery. more
// says that another one could be delivered at once.
func (l *LAPIC) Acknowledge() (vector uint8, ok, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.pending()
	if v < 0 {
		return 0, false, false
	}
	l.clear(regIRR, uint8(v))
	l.set(regISR, uint8(v))
	return uint8(v), true, l.pending() >= 0
}

// TakesExtINT says whether the 8259s' interrupts reach the CPU: through LINT0,
// or directly while the APIC is off.
func (l *LAPIC) TakesExtINT() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.reg[regLINT0]
	return l.mode == ModeOff || v&lvtMasked == 0 && v>>8&7 == modeExtINT
}

// deliver accepts an interrupt message. It is called without the lock.
func (l *LAPIC) deliver(mode, vector uint8, level bool) {
	switch mode {
	case modeNMI:
		l.cpu.NMI()
	case modeInit:
		l.cpu.Init()
	case modeSIPI:
		l.cpu.StartUp(vector)
	case modeFixed, modeLowest:
		l.mu.Lock()
		l.accept(vector, level)
		l.mu.Unlock()
	}
}

// accept puts a vector into IRR.
func (l *LAPIC) accept(vector uint8, level bool) {
	if vector < 16 {
		l.reg[regESR] |= 1 << 6
		return
	}
	if l.mode == ModeOff || l.reg[regSVR]&svrEnable == 0 {
		return
	}
	l.set(regIRR, vector)
	if level {
		l.set(regTMR, vector)
	} else {
		l.clear(regTMR, vector)
	}
	if l.pending() >= 0 {
		l.cpu.Interrupt()
	}
}

// eoi ends the interrupt in service; it returns the vector if the I/O APIC has
// to know, or -1.
func (l *LAPIC) eoi() int {
	v := l.highest(regISR)
	if v < 0 {
		return -1
	}
	l.clear(regISR, uint8(v))
	if l.pending() >= 0 {
		l.cpu.Interrupt()
	}
	if l.has(regTMR, uint8(v)) {
		return v
	}
	return -1
}

// TPR and SetTPR are CR8: the task priority's class.
func (l *LAPIC) TPR() uint8 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint8(l.reg[regTPR] >> 4 & 15)
}

// SetTPR sets the task priority's class.
func (l *LAPIC) SetTPR(class uint8) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reg[regTPR] = uint32(class) << 4
	if l.pending() >= 0 {
		l.cpu.Interrupt()
	}
}

// Read reads the register at offset off of the APIC's page.
func (l *LAPIC) Read(off uint64) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.read(int(off >> 4 & 0xff))
}

func (l *LAPIC) read(r int) uint32 {
	switch {
	case r >= len(l.reg):
		return 0
	case r == regPPR:
		return l.ppr()
	case r == regCurrent:
		return l.current()
	}
	return l.reg[r]
}

// Write writes the register at offset off of the APIC's page.
func (l *LAPIC) Write(off uint64, v uint32) {
	r := int(off >> 4 & 0xff)
	if r >= len(l.reg) || r == regSelfIPI {
		return
	}
	if r == regICR2 {
		v &= 0xff000000
	}
	l.write(r, v)
}

// write acts on a register; what leaves the APIC does so without the lock.
func (l *LAPIC) write(r int, v uint32) {
	l.mu.Lock()
	end := -1
	var send *message
	switch r {
	case regTPR:
		l.reg[r] = v & 0xff
		if l.pending() >= 0 {
			l.cpu.Interrupt()
		}
	case regEOI:
		end = l.eoi()
	case regLDR:
		l.reg[r] = v & 0xff000000
	case regDFR:
		l.reg[r] = v | 0x0fffffff
	case regSVR:
		l.setSVR(v)
	case regESR:
		l.reg[r] = 0
	case regICR:
		l.reg[r] = v &^ (1 << 12)
		send = l.ipi(v)
	case regICR2:
		l.reg[r] = v
	case regTimer, regThermal, regPerf, regLINT0, regLINT1, regError:
		l.setLVT(r, v)
	case regInitial:
		l.reg[r] = v
		l.start()
	case regDivide:
		l.reg[r] = v & 0xb
		l.start()
	}
	l.mu.Unlock()
	if end >= 0 {
		l.net.ended(uint8(end))
	}
	if send != nil {
		l.net.send(send, l)
	}
}

func (l *LAPIC) setSVR(v uint32) {
	l.reg[regSVR] = v & 0x1ff
	if v&svrEnable == 0 {
		for r := regTimer; r <= regError; r++ {
			l.reg[r] |= lvtMasked
		}
	}
}

func (l *LAPIC) setLVT(r int, v uint32) {
	mask := uint32(0x107ff)
	switch r {
	case regTimer:
		mask = 0x600ff | lvtMasked
	case regLINT0, regLINT1:
		mask = 0x1a7ff
	case regError:
		mask = 0x100ff
	}
	if l.reg[regSVR]&svrEnable == 0 {
		v |= lvtMasked
	}
	old := l.reg[r]
	l.reg[r] = v & mask
	if r == regLINT0 {
		l.cpu.Interrupt() // the 8259s may have had something all the time
	}
	if r == regTimer && (old^v)>>17&3 != 0 { // another mode: the timer stops
		l.reg[regInitial], l.deadline = 0, 0
		l.cpu.Arm(0)
	}
}
