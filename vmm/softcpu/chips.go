package softcpu

import (
	"fmt"
	"math"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/softcpu/internal/chip"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// The interrupt controllers: what the guest reaches through memory, MSRs and
// lines.

const ioapicBase = 0xfec00000

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

func (h apicHost) Now() uint64       { return h.c.vm.ticks(h.c) }
func (h apicHost) TSCOffset() uint64 { return h.c.msr.tscOffset }

// Arm has the run loop look at the timer at time t.
func (h apicHost) Arm(t uint64) {
	c := h.c
	if c.vm.opts.Deterministic {
		c.due = t
		if t == 0 {
			c.due = math.MaxUint64
		}
		c.setUntil()
		return
	}
	if t == 0 {
		c.timer.Stop()
		return
	}
	wait := int64(t - c.vm.ticks(c))
	c.timer.Reset(time.Duration(max(wait, 0)))
}

// addChips gives a CPU its local APIC.
func (vm *VM) addChips(c *cpu) error {
	c.due = math.MaxUint64
	c.timer = time.AfterFunc(time.Hour, func() { c.signal(attnTimer) })
	c.timer.Stop()
	c.apic = chip.NewLAPIC(uint32(c.id), apicHost{c}, &vm.net)
	if c.id == 0 {
		vm.net.IO().Reset()
	}
	return nil
}

// ticks is the time since the machine was made, in nanoseconds: the host's, or
// what the instructions make of it.
func (vm *VM) ticks(c *cpu) uint64 {
	if vm.opts.Deterministic {
		if vm.turns.on {
			return vm.turns.base + (c.icount-c.turn.began)*ticksPerInstruction
		}
		return c.icount*ticksPerInstruction + c.skipped
	}
	return uint64(time.Since(vm.start)) + vm.startTicks
}

// ticksPerInstruction makes deterministic time pass about as fast as real time
// does.
const ticksPerInstruction = 8

// chipLoad reads from the pages of the APICs.
func (vm *VM) chipLoad(c *cpu, phys uint64, size uint8) (uint64, bool) {
	switch base := phys &^ pageMask; {
	case base == c.msr.apicBase&physMask&^pageMask && c.apicMode() == chip.ModeXAPIC:
		return uint64(c.apic.Read(phys&pageMask)) >> (8 * (phys & 3)) & (1<<(8*size) - 1), true
	case base == ioapicBase:
		return uint64(vm.net.IO().Read(phys & pageMask)), true
	}
	return 0, false
}

func (vm *VM) chipStore(c *cpu, phys uint64, size uint8, v uint64) bool {
	switch base := phys &^ pageMask; {
	case base == c.msr.apicBase&physMask&^pageMask && c.apicMode() == chip.ModeXAPIC:
		if size == 4 && phys&15 == 0 {
			c.apic.Write(phys&pageMask, uint32(v))
		}
		return true
	case base == ioapicBase:
		vm.net.IO().Write(&vm.net, phys&pageMask, uint32(v))
		return true
	}
	return false
}

func (c *cpu) apicMode() uint8 { return apicModeOf(c.msr.apicBase) }

func apicModeOf(base uint64) uint8 {
	switch base & (apicBaseEnable | apicBaseX2) {
	case apicBaseEnable:
		return chip.ModeXAPIC
	case apicBaseEnable | apicBaseX2:
		return chip.ModeX2APIC
	}
	return chip.ModeOff
}

// portLoad and portStore are for chips with I/O ports, of which there are none
// yet: the PIC and the PIT answer as the VMM's bus does.
func (vm *VM) portLoad(c *cpu, port uint16, size uint8) (uint64, bool)  { return 0, false }
func (vm *VM) portStore(c *cpu, port uint16, size uint8, v uint64) bool { return false }

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

// acknowledge takes the next interrupt of a CPU.
func (vm *VM) acknowledge(c *cpu) (uint8, bool) {
	c.irq.Store(false)
	v, ok, more := c.apic.Acknowledge()
	if more {
		c.irq.Store(true)
	}
	return v, ok
}

func (c *cpu) taskPriority() uint64     { return uint64(c.apic.TPR()) }
func (c *cpu) setTaskPriority(v uint64) { c.apic.SetTPR(uint8(v)) }

// Line returns a function that pulses an input of the I/O APIC. The legacy
// timer's interrupt, 0, is wired to input 2, as on every PC.
func (vm *VM) Line(gsi uint32) (func() error, error) {
	if gsi >= chip.Pins {
		return nil, fmt.Errorf("interrupt line %d: the I/O APIC has %d", gsi, chip.Pins)
	}
	pin := uint8(gsi)
	if pin == 0 {
		pin = 2
	}
	return func() error {
		vm.net.IO().SetLine(&vm.net, pin, true)
		vm.net.IO().SetLine(&vm.net, pin, false)
		return nil
	}, nil
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
func (m *MSI) Close() error { return m.Set(0, 0) }

// Doorbell says that there is none: the write reaches the device as an access.
func (vm *VM) Doorbell(bool, uint64, int, *uint64) (virtio.Doorbell, bool, error) {
	return nil, false, nil
}
