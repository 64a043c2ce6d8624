// Package pvpanic is the device through which a guest kernel says that it has
// panicked, after QEMU's docs/specs/pvpanic.rst.
package pvpanic

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
)

// Port is where the device stands on a PC, and Size the number of registers.
const (
	Port = 0x505
	Size = 1
)

// Events, as bits.
const (
	Panicked    = 1 << 0 // the kernel panicked; the host decides what to do
	CrashLoaded = 1 << 1 // the kernel panicked and deals with it by itself (kdump)
	supported   = Panicked | CrashLoaded
)

// Device is the port. Its methods may be called from any goroutine.
type Device struct {
	event func(uint8)
	seen  atomic.Uint32
}

// New returns a device that calls event with the events that the guest
// reports, those alone that it knows. event must not block; nil: nobody
// listens.
func New(event func(uint8)) *Device { return &Device{event: event} }

// Seen is every event so far.
func (d *Device) Seen() uint8 { return uint8(d.seen.Load()) }

// Read fills p with the events that the device knows, and ones past the port.
func (d *Device) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = 0xff
		if off+uint64(i) == 0 {
			p[i] = supported
		}
	}
}

// Write reports events.
func (d *Device) Write(off uint64, p []byte) {
	if off != 0 || len(p) == 0 || p[0]&supported == 0 {
		return
	}
	e := p[0] & supported
	d.seen.Or(uint32(e))
	if d.event != nil {
		d.event(e)
	}
}

type state struct {
	Version int   `json:"version"`
	Seen    uint8 `json:"seen"`
}

const stateVersion = 1

// State returns the events seen as JSON.
func (d *Device) State() ([]byte, error) { return json.Marshal(state{stateVersion, d.Seen()}) }

// SetState takes what State returned. It reports no event.
func (d *Device) SetState(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("pvpanic: state: %w", err)
	}
	if s.Version != stateVersion || s.Seen&^supported != 0 {
		return fmt.Errorf("pvpanic: state: version %d, events %#x: want version %d, events up to %#x", s.Version, s.Seen, stateVersion, supported)
	}
	d.seen.Store(uint32(s.Seen))
	return nil
}
