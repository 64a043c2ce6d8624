package softcpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/apic"
	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/pic"
	"github.com/vitrine-vmm/vitrine/devices/pit"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// The interrupt controllers and the timer: what the guest reaches through
// memory, MSRs and I/O ports without leaving Run, as KVM has them in the
// kernel.

const (
	ioapicBase  = 0xfec00000
	timerLine   = 0 // the 8254's interrupt
	timerPin    = 2 // where the I/O APIC has it, on every PC
	cascadeLine = 2
)

// addChips makes the chips that all CPUs share.
func (vm *VM) addChips() error {
	vm.pics = pic.New(vm.extINT)
	vm.pit = pit.New(pitClock{vm}, func() error { return vm.pulse(timerLine) })
	vm.pitTimer = time.AfterFunc(time.Hour, vm.pit.Tick)
	vm.pitTimer.Stop()
	vm.turns.init(vm.opts.Deterministic, vm.pit.Tick)
	vm.net.IO().Reset()
	vm.ports = bus.New()
	return errors.Join(
		vm.ports.Map(bus.Range{Base: 0x20, Size: 2, Name: "primary 8259"}, vm.pics.Primary()),
		vm.ports.Map(bus.Range{Base: 0xa0, Size: 2, Name: "secondary 8259"}, vm.pics.Secondary()),
		vm.ports.Map(bus.Range{Base: 0x4d0, Size: 2, Name: "edge/level registers"}, vm.pics.EdgeLevel()),
		vm.ports.Map(bus.Range{Base: 0x40, Size: 4, Name: "8254"}, vm.pit.Counters()),
		vm.ports.Map(bus.Range{Base: 0x61, Size: 1, Name: "8254 gate"}, vm.pit.ControlPort()),
	)
}

// extINT is the output of the 8259s, wired to the boot processor.
func (vm *VM) extINT(active bool) {
	if c := vm.boot.Load(); active && c != nil {
		apicHost{c}.Interrupt()
	}
}

// pitClock is the machine's time as the 8254 sees it.
type pitClock struct{ vm *VM }

func (p pitClock) Now() uint64 { return p.vm.now() }

func (p pitClock) Arm(t uint64) {
	if vm := p.vm; vm.turns.det {
		vm.turns.pitDue = due(t)
		vm.turns.rearmed()
	} else {
		vm.arm(vm.pitTimer, t)
	}
}

// due is a time of a chip's Arm as turns has it.
func due(t uint64) uint64 {
	if t == 0 {
		return never
	}
	return t
}

// rearmed has the holder of the turn look at a new time.
func (t *turns) rearmed() {
	if c := t.holder; c != nil {
		c.setUntil()
	}
}

// arm sets a timer of the host for time t of the machine.
func (vm *VM) arm(timer *time.Timer, t uint64) {
	if t == 0 {
		timer.Stop()
		return
	}
	timer.Reset(time.Duration(max(int64(t-vm.now()), 0)))
}

// now is the machine's time in nanoseconds: the host's since the machine was
// made, or what the instructions make of it.
func (vm *VM) now() uint64 {
	if vm.turns.det {
		return vm.turns.now()
	}
	return uint64(time.Since(vm.start)) + vm.startTicks
}

// apicHost is a CPU as its local APIC sees it.
type apicHost struct{ c *cpu }

func (h apicHost) Interrupt() {
	h.c.irq.Store(true)
	h.c.signal(attnIRQ)
}

func (h apicHost) NMI() { h.c.signal(attnNMI) }

func (h apicHost) Init() { h.c.signal(attnInit) }

func (h apicHost) StartUp(vector uint8) {
	h.c.sipi.Store(uint32(vector))
	h.c.signal(attnSIPI)
}

func (h apicHost) Now() uint64       { return h.c.vm.now() }
func (h apicHost) TSCOffset() uint64 { return h.c.msr.tscOffset }

// Arm has the run loop look at the timer at time t.
func (h apicHost) Arm(t uint64) {
	c := h.c
	if c.vm.turns.det {
		c.due = due(t)
		c.vm.turns.rearmed()
		return
	}
	c.vm.arm(c.timer, t)
}

// addAPIC gives a CPU its local APIC.
func (vm *VM) addAPIC(c *cpu) {
	c.due = never
	c.timer = time.AfterFunc(time.Hour, func() { c.signal(attnTimer) })
	c.timer.Stop()
	c.apic = apic.NewLAPIC(uint32(c.id), apicHost{c}, &vm.net)
	if c.id == 0 {
		vm.boot.Store(c)
	}
}

// chipLoad reads from the pages of the APICs.
func (vm *VM) chipLoad(c *cpu, phys uint64, size uint8) (uint64, bool) {
	switch base := phys &^ pageMask; {
	case base == c.msr.apicBase&physMask&^pageMask && c.apicMode() == apic.ModeXAPIC:
		return uint64(c.apic.Read(phys&pageMask)) >> (8 * (phys & 3)) & (1<<(8*size) - 1), true
	case base == ioapicBase:
		return uint64(vm.net.IO().Read(phys & pageMask)), true
	}
	return 0, false
}

func (vm *VM) chipStore(c *cpu, phys uint64, size uint8, v uint64) bool {
	switch base := phys &^ pageMask; {
	case base == c.msr.apicBase&physMask&^pageMask && c.apicMode() == apic.ModeXAPIC:
		if size == 4 && phys&15 == 0 {
			c.apic.Write(phys&pageMask, uint32(v))
		}
		return true
	case base == ioapicBase:
		vm.net.IO().Write(&vm.net, phys&pageMask, uint32(v))
		return true
	}
	return vm.ring(false, phys, size, v)
}

func (c *cpu) apicMode() uint8 { return apicModeOf(c.msr.apicBase) }

func apicModeOf(base uint64) uint8 {
	switch base & (apicBaseEnable | apicBaseX2) {
	case apicBaseEnable:
		return apic.ModeXAPIC
	case apicBaseEnable | apicBaseX2:
		return apic.ModeX2APIC
	}
	return apic.ModeOff
}

// portLoad reads from a port of the accelerator's own chips.
func (vm *VM) portLoad(port uint16, size uint8) (uint64, bool) {
	if port > 0x4d1 { // above them all
		return 0, false
	}
	d, off, _, ok := vm.ports.Lookup(uint64(port))
	if !ok {
		return 0, false
	}
	var b [8]byte
	d.Read(off, b[:size])
	return binary.LittleEndian.Uint64(b[:]), true
}

func (vm *VM) portStore(port uint16, size uint8, v uint64) bool {
	if port <= 0x4d1 {
		if d, off, _, ok := vm.ports.Lookup(uint64(port)); ok {
			var b [8]byte
			binary.LittleEndian.PutUint64(b[:], v)
			d.Write(off, b[:size])
			return true
		}
	}
	return vm.ring(true, uint64(port), size, v)
}

func (vm *VM) apicReadMSR(c *cpu, i uint32) (uint64, bool) {
	switch {
	case i == x86.MSRTSCDeadline:
		return c.apic.Deadline(), true
	case i >= msrX2APIC && i <= msrX2APICEnd:
		return c.apic.ReadMSR(i)
	}
	return 0, false
}

func (vm *VM) apicWriteMSR(c *cpu, i uint32, v uint64) bool {
	switch {
	case i == x86.MSRTSCDeadline:
		c.apic.SetDeadline(v)
		return true
	case i >= msrX2APIC && i <= msrX2APICEnd:
		return c.apic.WriteMSR(i, v)
	}
	return false
}

func (vm *VM) apicSetBase(c *cpu, v uint64) bool { return c.apic.SetMode(apicModeOf(v)) }

// acknowledge takes the next interrupt of a CPU: the 8259s' first, as their
// vector takes no part in the local APIC's priorities.
func (vm *VM) acknowledge(c *cpu) (uint8, bool) {
	c.irq.Store(false)
	if vm.pics.Pending() && vm.boot.Load() == c && c.apic.TakesExtINT() {
		v := vm.pics.Acknowledge()
		if vm.pics.Pending() || c.apic.Pending() {
			c.irq.Store(true)
		}
		return v, true
	}
	v, ok, more := c.apic.Acknowledge()
	if more {
		c.irq.Store(true)
	}
	return v, ok
}

func (c *cpu) taskPriority() uint64     { return uint64(c.apic.TPR()) }
func (c *cpu) setTaskPriority(v uint64) { c.apic.SetTPR(uint8(v)) }

// Line returns a function that pulses an interrupt line: an input of the I/O
// APIC and, below 16, of the 8259s.
func (vm *VM) Line(gsi uint32) (func() error, error) {
	if gsi >= apic.Pins {
		return nil, fmt.Errorf("interrupt line %d: the I/O APIC has %d", gsi, apic.Pins)
	}
	return func() error { return vm.pulse(uint8(gsi)) }, nil
}

// pulse is an edge. Pulses of one line must not overlap: the second would have
// no edge.
func (vm *VM) pulse(gsi uint8) error {
	vm.lines.Lock()
	defer vm.lines.Unlock()
	for _, active := range []bool{true, false} {
		if gsi < pic.Lines && gsi != cascadeLine {
			vm.pics.SetLine(gsi, active)
		}
		pin := gsi
		if gsi == timerLine {
			pin = timerPin
		}
		vm.net.IO().SetLine(&vm.net, pin, active)
	}
	return nil
}

// MSI is a message-signalled interrupt.
type MSI struct {
	vm   *VM
	addr uint64
	data uint32
	set  bool
}

// NewMSI returns a message-signalled interrupt that fires nothing until it is
// set.
func (vm *VM) NewMSI() (*MSI, error) { return &MSI{vm: vm}, nil }

// Set changes the message.
func (m *MSI) Set(addr uint64, data uint32) error {
	m.vm.mu.Lock()
	defer m.vm.mu.Unlock()
	m.addr, m.data, m.set = addr, data, true
	return nil
}

// Fire delivers the message once.
func (m *MSI) Fire() error {
	m.vm.mu.Lock()
	addr, data, set := m.addr, m.data, m.set
	m.vm.mu.Unlock()
	if set {
		m.vm.net.Message(addr, data)
	}
	return nil
}

// Close ends the interrupt.
func (m *MSI) Close() error {
	m.vm.mu.Lock()
	defer m.vm.mu.Unlock()
	m.set = false
	return nil
}

// LAPIC is the state of the CPU's local APIC.
func (v *VCPU) LAPIC() (x86.LAPIC, error) { return v.c.apic.State(), nil }

// SetLAPIC sets the state of the CPU's local APIC. IA32_APIC_BASE comes before
// it, IA32_TSC_DEADLINE after it.
func (v *VCPU) SetLAPIC(s *x86.LAPIC) error { return v.c.apic.SetState(*s) }

// Chips is the state of what all CPUs share. No CPU may be running.
func (vm *VM) Chips() (x86.Chips, error) {
	return x86.Chips{PICs: vm.pics.State(), IOAPIC: vm.net.IO().State(), PIT: vm.pit.State()}, nil
}

// SetChips sets the state of what all CPUs share. The clock comes before it.
func (vm *VM) SetChips(s *x86.Chips) error {
	vm.net.IO().SetState(s.IOAPIC)
	vm.pics.SetState(s.PICs)
	return vm.pit.SetState(s.PIT)
}

// Clock is the machine's time in nanoseconds. No CPU may be running.
func (vm *VM) Clock() (uint64, error) { return vm.now(), nil }

// SetClock sets the machine's time, for a restore, before anything counts on
// it.
func (vm *VM) SetClock(ns uint64) error {
	if vm.turns.det {
		vm.turns.base += ns - vm.turns.now()
		return nil
	}
	vm.startTicks = ns - uint64(time.Since(vm.start))
	return nil
}
