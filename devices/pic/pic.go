// Package pic is the pair of 8259A interrupt controllers of a PC: the
// secondary's output is the primary's input 2, and each has a register for
// edge or level triggering (Intel 8259A data sheet; ICH9 data sheet, 5.8 and
// 13.4).
package pic

import (
	"math/bits"
	"sync"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Lines is the number of interrupt inputs of the pair. Input 2 is taken.
const Lines = 16

const (
	cascade  = 2 // the primary's input for the secondary
	spurious = 7 // what an acknowledge gives when the request has gone
)

// Pair is both controllers. Its methods may be called from any goroutine.
type Pair struct {
	mu   sync.Mutex
	chip [2]x86.PIC
	intr func(active bool)
	out  bool
}

// New makes a pair as after a reset. intr is the output to the CPUs: it is
// called when the level changes, and must not call back.
func New(intr func(active bool)) *Pair {
	p := &Pair{intr: intr}
	p.chip[0].ELCRMask, p.chip[1].ELCRMask = 0xf8, 0xde
	return p
}

// SetLine sets the level of an input.
func (p *Pair) SetLine(line uint8, active bool) {
	if line >= Lines || line == cascade {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	setLine(&p.chip[line>>3], line&7, active)
	p.update()
}

func setLine(c *x86.PIC, n uint8, active bool) {
	bit := uint8(1) << n
	switch {
	case !active:
		c.LastIRR &^= bit
		if c.ELCR&bit != 0 {
			c.IRR &^= bit
		}
	case c.LastIRR&bit == 0 || c.ELCR&bit != 0:
		c.LastIRR |= bit
		c.IRR |= bit
	}
}

// first is the position, from the input with the highest priority, of the
// first one in mask; 8 if there is none.
func first(c *x86.PIC, mask uint8) uint8 {
	return uint8(bits.TrailingZeros8(bits.RotateLeft8(mask, -int(c.PriorityAdd&7))))
}

func (p *Pair) input(c *x86.PIC, position uint8) uint8 { return (position + c.PriorityAdd) & 7 }

// pending is the input to be served now; ok is false if there is none.
func (p *Pair) pending(k int) (n uint8, ok bool) {
	c := &p.chip[k]
	at := first(c, c.IRR&^c.IMR)
	if at == 8 {
		return 0, false
	}
	serving := c.ISR
	if c.SpecialMask != 0 {
		serving &^= c.IMR
	}
	if c.SpecialFullyNest != 0 && k == 0 {
		serving &^= 1 << cascade
	}
	return p.input(c, at), at < first(c, serving)
}

// update carries the secondary's request to the primary and the primary's out.
func (p *Pair) update() {
	if _, ok := p.pending(1); ok {
		setLine(&p.chip[0], cascade, true)
		setLine(&p.chip[0], cascade, false)
	}
	_, out := p.pending(0)
	if out != p.out {
		p.out = out
		p.intr(out)
	}
}

// Pending says whether the output is active.
func (p *Pair) Pending() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out
}

// Acknowledge is the CPU's INTA cycle: it returns the vector of the interrupt
// to be served, that of input 7 if the request has gone meanwhile.
func (p *Pair) Acknowledge() uint8 {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.update()
	n := p.acknowledge(0)
	if n != cascade {
		return p.chip[0].IRQBase + n
	}
	return p.chip[1].IRQBase + p.acknowledge(1)
}

func (p *Pair) acknowledge(k int) uint8 {
	c := &p.chip[k]
	n, ok := p.pending(k)
	if !ok {
		return spurious
	}
	switch {
	case c.AutoEOI == 0:
		c.ISR |= 1 << n
	case c.RotateOnAutoEOI != 0:
		c.PriorityAdd = (n + 1) & 7
	}
	if c.ELCR>>n&1 == 0 {
		c.IRR &^= 1 << n
	}
	return n
}

// command is a write to the even port: ICW1, OCW2 or OCW3 by bits 4 and 3.
func (p *Pair) command(c *x86.PIC, v uint8) {
	switch {
	case v&0x10 != 0:
		*c = x86.PIC{IRR: c.IRR & c.ELCR, LastIRR: c.LastIRR & c.ELCR, IRQBase: c.IRQBase,
			ELCR: c.ELCR, ELCRMask: c.ELCRMask, InitState: 1, Init4: v & 1}
	case v&8 != 0:
		if v&4 != 0 {
			c.Poll = 1
		}
		if v&2 != 0 {
			c.ReadISR = v & 1
		}
		if v&0x40 != 0 {
			c.SpecialMask = v >> 5 & 1
		}
	default:
		p.endOfInterrupt(c, v)
	}
}

// OCW2's commands: bits 7-5 (8259A data sheet, "Operation Command Words").
const (
	rotateInAutoEOIClear = 0
	nonspecificEOI       = 1
	specificEOI          = 3
	rotateInAutoEOISet   = 4
	rotateOnNonspecific  = 5
	setPriority          = 6
	rotateOnSpecific     = 7
)

func (p *Pair) endOfInterrupt(c *x86.PIC, v uint8) {
	n := v & 7
	switch v >> 5 {
	case rotateInAutoEOIClear:
		c.RotateOnAutoEOI = 0
	case rotateInAutoEOISet:
		c.RotateOnAutoEOI = 1
	case nonspecificEOI, rotateOnNonspecific:
		at := first(c, c.ISR)
		if at == 8 {
			return
		}
		n = p.input(c, at)
		c.ISR &^= 1 << n
		if v>>5 == rotateOnNonspecific {
			c.PriorityAdd = (n + 1) & 7
		}
	case specificEOI:
		c.ISR &^= 1 << n
	case setPriority:
		c.PriorityAdd = (n + 1) & 7
	case rotateOnSpecific:
		c.ISR &^= 1 << n
		c.PriorityAdd = (n + 1) & 7
	}
}

// data is a write to the odd port: the mask, or what an initialisation expects
// next.
func data(c *x86.PIC, v uint8) {
	switch c.InitState {
	case 1:
		c.IRQBase = v & 0xf8
		c.InitState = 2
	case 2: // ICW3: the cascade is wired
		c.InitState = 0
		if c.Init4 != 0 {
			c.InitState = 3
		}
	case 3:
		c.SpecialFullyNest, c.AutoEOI = v>>4&1, v>>1&1
		c.InitState = 0
	default:
		c.IMR = v
	}
}

func (p *Pair) write(k int, off uint64, v uint8) {
	if off&1 == 0 {
		p.command(&p.chip[k], v)
	} else {
		data(&p.chip[k], v)
	}
	p.update()
}

func (p *Pair) read(k int, off uint64) uint8 {
	c := &p.chip[k]
	switch {
	case c.Poll != 0:
		c.Poll = 0
		n, ok := p.pending(k)
		if !ok {
			return 0
		}
		p.acknowledge(k)
		p.update()
		return 0x80 | n
	case off&1 != 0:
		return c.IMR
	case c.ReadISR != 0:
		return c.ISR
	}
	return c.IRR
}

// Ports is a register block of the pair as a device on a bus.
type Ports struct {
	pair  *Pair
	which int // 0 primary, 1 secondary, 2 edge/level registers
}

// Primary is the primary's ports, 0x20 and 0x21 in a PC.
func (p *Pair) Primary() Ports { return Ports{p, 0} }

// Secondary is the secondary's ports, 0xa0 and 0xa1 in a PC.
func (p *Pair) Secondary() Ports { return Ports{p, 1} }

// EdgeLevel is the registers ELCR1 and ELCR2, 0x4d0 and 0x4d1 in a PC.
func (p *Pair) EdgeLevel() Ports { return Ports{p, 2} }

// Read implements bus.Device.
func (q Ports) Read(off uint64, b []byte) {
	q.pair.mu.Lock()
	defer q.pair.mu.Unlock()
	for i := range b {
		if at := off + uint64(i); q.which < 2 {
			b[i] = q.pair.read(q.which, at)
		} else {
			b[i] = q.pair.chip[at&1].ELCR
		}
	}
}

// Write implements bus.Device.
func (q Ports) Write(off uint64, b []byte) {
	q.pair.mu.Lock()
	defer q.pair.mu.Unlock()
	for i, v := range b {
		if at := off + uint64(i); q.which < 2 {
			q.pair.write(q.which, at, v)
		} else {
			c := &q.pair.chip[at&1]
			c.ELCR = v & c.ELCRMask
		}
	}
}

// State is the state of primary and secondary.
func (p *Pair) State() [2]x86.PIC {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.chip
}

// SetState takes a state. Bits that do not exist are dropped.
func (p *Pair) SetState(s [2]x86.PIC) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range s {
		mask := p.chip[k].ELCRMask
		p.chip[k] = s[k]
		c := &p.chip[k]
		c.ELCRMask = mask
		c.ELCR &= mask
		c.PriorityAdd &= 7
		c.InitState &= 3
		c.IRQBase &= 0xf8
	}
	p.update()
}
