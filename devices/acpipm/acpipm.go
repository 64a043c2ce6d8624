// Package acpipm is the power management of a hardware-reduced ACPI machine:
// the sleep control and status registers (ACPI 6.5 §4.8.3.7), the reset
// register (§4.8.3.6), and the status register behind the generic event device
// (§5.6.9) with the events "power button" and "VM generation id changed".
package acpipm

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
)

// Port is where the registers stand, and Size the bytes that they take.
const (
	Port = 0x600
	Size = 8
)

// Offsets of the registers. The first three are a byte wide; EventStatus is
// 32 bits, and reading a byte of it clears that byte.
const (
	SleepControl = 0
	SleepStatus  = 1
	ResetControl = 2
	EventStatus  = 4
)

// Bits of the registers.
const (
	SleepEnable    = 1 << 5 // SLP_EN
	SleepTypeShift = 2      // SLP_TYP, three bits
	SleepTypeS5    = 5      // what the DSDT's _S5 object must say
	WakeStatus     = 1 << 7 // WAK_STS
	ResetValue     = 0x01   // what the FADT's RESET_VALUE must say

	EventPowerButton = 1 << 0
	EventGeneration  = 1 << 1
	eventsKnown      = EventPowerButton | EventGeneration
)

// Config is what the registers act on. The functions must not block.
type Config struct {
	PowerOff func()       // the guest entered S5
	Reset    func()       // the guest wrote to the reset register
	IRQ      func() error // pulses the generic event device's interrupt line
}

// Device is the register block. Its methods may be called from any goroutine.
type Device struct {
	cfg Config

	mu      sync.Mutex
	control uint8
	status  uint8
	events  uint32
}

// New returns the registers after a reset. Functions left out do nothing.
func New(cfg Config) *Device {
	if cfg.PowerOff == nil {
		cfg.PowerOff = func() {}
	}
	if cfg.Reset == nil {
		cfg.Reset = func() {}
	}
	if cfg.IRQ == nil {
		cfg.IRQ = func() error { return nil }
	}
	return &Device{cfg: cfg}
}

// PowerButton presses the power button: a guest that knows ACPI shuts down.
func (d *Device) PowerButton() error { return d.raise(EventPowerButton) }

// GenerationChanged tells the guest to look at its VM generation id again.
func (d *Device) GenerationChanged() error { return d.raise(EventGeneration) }

func (d *Device) raise(event uint32) error {
	d.mu.Lock()
	d.events |= event
	d.mu.Unlock()
	return d.cfg.IRQ()
}

// Read is a guest's read of len(p) bytes of registers from off on.
func (d *Device) Read(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range p {
		switch r := off + uint64(i); {
		case off >= Size || r >= Size:
			p[i] = 0xff
		case r >= EventStatus:
			p[i] = d.takeEvents(uint(r - EventStatus))
		case r == SleepControl:
			// SLP_EN reads as zero (table 4.16).
			p[i] = d.control &^ SleepEnable
		case r == SleepStatus:
			p[i] = d.status
		default:
			p[i] = 0
		}
	}
}

func (d *Device) takeEvents(i uint) uint8 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], d.events)
	d.events &^= 0xff << (8 * i)
	return b[i]
}

// Write is a guest's write to len(p) bytes of registers from off on.
func (d *Device) Write(off uint64, p []byte) {
	for i, v := range p {
		r := off + uint64(i)
		if off >= Size || r >= Size {
			return
		}
		d.write(r, v)
	}
}

func (d *Device) write(r uint64, v uint8) {
	switch r {
	case SleepControl:
		d.mu.Lock()
		d.control = v
		d.mu.Unlock()
		// The other sleeping states are not offered by the DSDT.
		if v&SleepEnable != 0 && v>>SleepTypeShift&7 == SleepTypeS5 {
			d.cfg.PowerOff()
		}
	case SleepStatus:
		d.mu.Lock()
		d.status &^= v & WakeStatus
		d.mu.Unlock()
	case ResetControl:
		if v == ResetValue {
			d.cfg.Reset()
		}
	}
}

type state struct {
	Version int    `json:"version"`
	Control uint8  `json:"control"`
	Status  uint8  `json:"status"`
	Events  uint32 `json:"events"`
}

const stateVersion = 1

// State returns the registers as JSON.
func (d *Device) State() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return json.Marshal(state{stateVersion, d.control, d.status, d.events})
}

// SetState takes what State returned. Events that wait are raised again.
func (d *Device) SetState(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("acpi: state: %w", err)
	}
	if s.Version != stateVersion || s.Events&^eventsKnown != 0 {
		return fmt.Errorf("acpi: state: version %d, events %#x: want version %d, events up to %#x", s.Version, s.Events, stateVersion, eventsKnown)
	}
	d.mu.Lock()
	d.control, d.status, d.events = s.Control, s.Status, s.Events
	d.mu.Unlock()
	if s.Events != 0 {
		return d.cfg.IRQ()
	}
	return nil
}
