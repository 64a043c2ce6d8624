// Package debugport is the port through which the default guest says how far
// it has got. It is described in docs/debug-port.md.
package debugport

import (
	"encoding/json"
	"fmt"
	"sync/atomic"
)

// Port is where the device stands, and Size the number of its registers.
const (
	Port = 0x510
	Size = 1
)

// Presence is what a read of the port gives.
const Presence = 'V'

// Marks that the default guest writes. Others are the user's own.
const (
	MarkUserSpace = 0x01 // the first program of user space runs
	MarkAgent     = 0x02 // the agent listens
	MarkReboot    = 0x10 // an orderly reboot follows
	MarkPowerOff  = 0x11 // end the run now, as a power-off
)

// Device is the port. Its methods may be called from any goroutine.
type Device struct {
	mark func(uint8)
	last atomic.Uint32
}

// New returns a port that calls mark with every byte written. mark must not
// block; nil: nobody listens.
func New(mark func(uint8)) *Device { return &Device{mark: mark} }

// Last is the last mark, 0 before the first.
func (d *Device) Last() uint8 { return uint8(d.last.Load()) }

// Read fills p with Presence, and with ones past the port.
func (d *Device) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = 0xff
		if off+uint64(i) == 0 {
			p[i] = Presence
		}
	}
}

// Write is a mark.
func (d *Device) Write(off uint64, p []byte) {
	if off != 0 || len(p) == 0 {
		return
	}
	d.last.Store(uint32(p[0]))
	if d.mark != nil {
		d.mark(p[0])
	}
}

type state struct {
	Version int   `json:"version"`
	Last    uint8 `json:"last"`
}

const stateVersion = 1

// State returns the last mark as JSON: how far the guest of a snapshot is.
func (d *Device) State() ([]byte, error) { return json.Marshal(state{stateVersion, d.Last()}) }

// SetState takes what State returned. It calls no mark.
func (d *Device) SetState(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("debug port: state: %w", err)
	}
	if s.Version != stateVersion {
		return fmt.Errorf("debug port: state: version %d: want %d", s.Version, stateVersion)
	}
	d.last.Store(uint32(s.Last))
	return nil
}
