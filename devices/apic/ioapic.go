package apic

import "sync"

// IOAPIC is an I/O APIC with 24 pins (Intel 82093AA data sheet; ICH9, 12.5).
type IOAPIC struct {
	mu    sync.Mutex
	sel   uint8
	id    uint8
	pins  [Pins]uint64 // redirection table
	lines uint32       // levels of the pins
}

// Pins is the number of interrupt inputs.
const Pins = 24

// Bits of a redirection entry.
const (
	rteMasked    = 1 << 16
	rteLevel     = 1 << 15
	rteRemoteIRR = 1 << 14
	rteLogical   = 1 << 11
)

const ioapicVersion = 0x20 | (Pins-1)<<16

// Reset masks every pin.
func (c *IOAPIC) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.pins {
		c.pins[i] = rteMasked
	}
	c.sel, c.lines = 0, 0
}

// Read reads from the I/O APIC's page: the index at 0, the data window at 16.
func (c *IOAPIC) Read(off uint64) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch off & 0xff {
	case 0:
		return uint32(c.sel)
	case 0x10:
		return c.read()
	}
	return 0
}

func (c *IOAPIC) read() uint32 {
	switch {
	case c.sel == 0 || c.sel == 2:
		return uint32(c.id) << 24
	case c.sel == 1:
		return ioapicVersion
	case c.sel >= 0x10 && c.sel < 0x10+2*Pins:
		return uint32(c.pins[(c.sel-0x10)/2] >> (32 * (c.sel & 1)))
	}
	return 0
}

// Write writes to the I/O APIC's page.
func (c *IOAPIC) Write(n *Net, off uint64, v uint32) {
	c.mu.Lock()
	var send *message
	switch off & 0xff {
	case 0:
		c.sel = uint8(v)
	case 0x10:
		send = c.write(v)
	case 0x40: // EOI register
		c.mu.Unlock()
		c.ended(n, uint8(v))
		return
	}
	c.mu.Unlock()
	if send != nil {
		n.send(send, nil)
	}
}

func (c *IOAPIC) write(v uint32) *message {
	switch {
	case c.sel == 0:
		c.id = uint8(v >> 24 & 15)
	case c.sel >= 0x10 && c.sel < 0x10+2*Pins:
		pin := (c.sel - 0x10) / 2
		e := &c.pins[pin]
		const readOnly = rteRemoteIRR | 1<<12
		if c.sel&1 != 0 {
			*e = *e&0xffffffff | uint64(v)<<32
			return nil
		}
		*e = *e&^0xffffffff | *e&readOnly | uint64(v)&^readOnly&0x1ffff
		if *e&rteLevel == 0 {
			*e &^= rteRemoteIRR
		}
		return c.evaluate(pin)
	}
	return nil
}

// evaluate makes the message of a level-triggered pin that is active and not
// in service.
func (c *IOAPIC) evaluate(pin uint8) *message {
	e := &c.pins[pin]
	if *e&(rteMasked|rteLevel|rteRemoteIRR) != rteLevel || c.lines>>pin&1 == 0 {
		return nil
	}
	*e |= rteRemoteIRR
	return entryMessage(*e)
}

func entryMessage(e uint64) *message {
	return &message{dest: uint32(e >> 56), logical: e&rteLogical != 0, mode: uint8(e >> 8 & 7),
		vector: uint8(e), level: e&rteLevel != 0}
}

// SetLine sets the level of a pin.
func (c *IOAPIC) SetLine(n *Net, pin uint8, active bool) {
	if pin >= Pins {
		return
	}
	c.mu.Lock()
	old := c.lines >> pin & 1
	var send *message
	if active {
		c.lines |= 1 << pin
		if e := c.pins[pin]; e&rteLevel == 0 && old == 0 && e&rteMasked == 0 {
			send = entryMessage(e)
		} else {
			send = c.evaluate(pin)
		}
	} else {
		c.lines &^= 1 << pin
	}
	c.mu.Unlock()
	if send != nil {
		n.send(send, nil)
	}
}

// ended is the EOI of a level-triggered vector: pins that are still active
// interrupt again.
func (c *IOAPIC) ended(n *Net, vector uint8) {
	var again []*message
	c.mu.Lock()
	for pin := range c.pins {
		e := &c.pins[pin]
		if *e&(rteLevel|rteRemoteIRR) != rteLevel|rteRemoteIRR || uint8(*e) != vector {
			continue
		}
		*e &^= rteRemoteIRR
		if m := c.evaluate(uint8(pin)); m != nil {
			again = append(again, m)
		}
	}
	c.mu.Unlock()
	for _, m := range again {
		n.send(m, nil)
	}
}
