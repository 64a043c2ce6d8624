// Package i8042 is the PC's keyboard controller with nothing plugged in: what
// operating systems probe for, and the pin through which they reset the
// machine. After "8042 Keyboard Controller" in the IBM PS/2 Hardware Interface
// Technical Reference (1990).
package i8042

import (
	"encoding/json"
	"fmt"
	"sync"
)

// Offsets of the two ports from 0x60. What lies between them belongs to other
// chips and reads as all ones here.
const (
	Data    = 0 // data
	Control = 4 // status on reading, command on writing
	Size    = 5
)

// Status register.
const (
	statusOutput  = 1 << 0 // the output buffer has a byte
	statusSystem  = 1 << 2 // the self-test has passed
	statusCommand = 1 << 3 // the last write was a command
	statusUnlock  = 1 << 4 // keyboard lock off
	statusTimeout = 1 << 6 // a device did not answer
)

// Commands.
const (
	cmdReadRAM      = 0x20 // …0x3f
	cmdWriteRAM     = 0x60 // …0x7f
	cmdDisableAux   = 0xa7
	cmdEnableAux    = 0xa8
	cmdTestAux      = 0xa9
	cmdSelfTest     = 0xaa
	cmdTestKeyboard = 0xab
	cmdDisable      = 0xad
	cmdEnable       = 0xae
	cmdReadInput    = 0xc0
	cmdReadOutput   = 0xd0
	cmdWriteOutput  = 0xd1
	cmdLoop         = 0xd2 // the parameter comes back as if from the keyboard
	cmdLoopAux      = 0xd3
	cmdWriteAux     = 0xd4
	cmdPulse        = 0xf0 // …0xff: pulses the output lines whose bit is 0
)

const (
	selfTestPassed = 0x55
	portMissing    = 0x01 // a port test's "clock line stuck low"
	resend         = 0xfe // a device's "send that again"
	outputReset    = 1 << 0
	outputA20      = 1 << 1

	// Command byte (RAM 0): interrupts off, ports disabled, scan codes
	// translated, self-test passed.
	commandByte = 0x74
	ctlDisable  = 1 << 4
	ctlAuxOff   = 1 << 5
	ctlSystem   = 1 << 2
)

// Controller is the chip. Its methods may be called from any goroutine.
type Controller struct {
	reset func()

	mu sync.Mutex
	state
}

type state struct {
	Version int       `json:"version"`
	RAM     [32]uint8 `json:"ram"`
	Output  uint8     `json:"output"` // the output buffer, while Status says that it is full
	Status  uint8     `json:"status"`
	Command uint8     `json:"command"` // the command that the next byte of data belongs to; 0: none
}

const stateVersion = 1

// New returns a controller that calls reset when the guest pulls the
// processor's reset line. reset must not block.
func New(reset func()) *Controller {
	c := &Controller{reset: reset, state: state{Version: stateVersion, Status: statusSystem | statusUnlock}}
	c.RAM[0] = commandByte
	return c
}

// Read is a guest's read of the len(p) ports from off on.
func (c *Controller) Read(off uint64, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range p {
		switch off + uint64(i) {
		case Data:
			p[i] = c.Output
			c.Status &^= statusOutput | statusTimeout
		case Control:
			p[i] = c.Status
		default:
			p[i] = 0xff
		}
	}
}

// Write is a guest's write to the len(p) ports from off on.
func (c *Controller) Write(off uint64, p []byte) {
	reset := false
	c.mu.Lock()
	for i, v := range p {
		switch off + uint64(i) {
		case Data:
			c.Status &^= statusCommand
			reset = c.data(v) || reset
		case Control:
			c.Status |= statusCommand
			reset = c.command(v) || reset
		}
	}
	c.mu.Unlock()
	if reset && c.reset != nil {
		c.reset()
	}
}

// command executes a command, or keeps it until its parameter comes. It says
// whether it pulls the reset line.
func (c *Controller) command(v uint8) (reset bool) {
	c.Command = 0
	switch {
	case v >= cmdPulse:
		return v&outputReset == 0
	case v&^0x1f == cmdReadRAM:
		c.answer(c.RAM[v&0x1f])
		return false
	case v&^0x1f == cmdWriteRAM:
		c.Command = v
		return false
	}
	switch v {
	case cmdSelfTest:
		c.Status |= statusSystem
		c.RAM[0] |= ctlSystem
		c.answer(selfTestPassed)
	case cmdTestKeyboard, cmdTestAux:
		c.answer(portMissing)
	case cmdDisable:
		c.RAM[0] |= ctlDisable
	case cmdEnable:
		c.RAM[0] &^= ctlDisable
	case cmdDisableAux:
		c.RAM[0] |= ctlAuxOff
	case cmdEnableAux:
		c.RAM[0] &^= ctlAuxOff
	case cmdReadInput:
		c.answer(0x80) // keyboard not locked
	case cmdReadOutput:
		c.answer(outputReset | outputA20)
	case cmdWriteOutput, cmdLoop, cmdLoopAux, cmdWriteAux:
		c.Command = v
	}
	return false
}

// data is a byte for the command before it, or for the keyboard. Nothing is
// plugged in: the controller says at once that nobody answered, so that no
// driver waits for it.
func (c *Controller) data(v uint8) (reset bool) {
	cmd := c.Command
	c.Command = 0
	switch {
	case cmd&^0x1f == cmdWriteRAM:
		c.RAM[cmd&0x1f] = v
	case cmd == cmdWriteOutput:
		return v&outputReset == 0
	case cmd == cmdLoop:
		c.answer(v)
	case cmd == cmdLoopAux:
		// Without the mark of the auxiliary port, which there is not:
		// Linux then asks no further (i8042_check_aux).
		c.answer(0xff)
	default:
		c.answer(resend)
		c.Status |= statusTimeout
	}
	return false
}

func (c *Controller) answer(v uint8) {
	c.Output = v
	c.Status |= statusOutput
}

// State returns the registers as JSON.
func (c *Controller) State() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return json.Marshal(c.state)
}

// SetState takes what State returned.
func (c *Controller) SetState(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("i8042: state: %w", err)
	}
	if s.Version != stateVersion {
		return fmt.Errorf("i8042: state: version %d: want %d", s.Version, stateVersion)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = s
	return nil
}
