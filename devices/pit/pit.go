// Package pit is the 8254 timer of a PC with the register at port 0x61 that
// gates its third counter (Intel 8254 data sheet; ICH9 data sheet, 13.3 and
// 13.7.1).
package pit

import (
	"fmt"
	"math/bits"
	"sync"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Frequency is that of the counters, in Hz.
const Frequency = 1_193_182

const second = 1_000_000_000

// Clock is where the timer takes its time from. Its methods are called with
// the timer locked: they must not call back.
type Clock interface {
	// Now is the time in nanoseconds.
	Now() uint64
	// Arm asks for a call of Tick at time t or soon after; 0 takes it back.
	Arm(t uint64)
}

// PIT is the timer. Its methods may be called from any goroutine.
type PIT struct {
	mu      sync.Mutex
	clock   Clock
	irq     func() error
	ch      [3]x86.PITChannel
	speaker uint8
	due     uint64 // when counter 0 interrupts next; 0: not at all
	last    uint64 // when it did so last
}

// New makes a timer as after a reset: no counter runs. irq is pulsed when
// counter 0 has counted down; it must not call back.
func New(clock Clock, irq func() error) *PIT {
	p := &PIT{clock: clock, irq: irq}
	for i := range p.ch {
		p.ch[i] = fresh
	}
	p.ch[2].Gate = 0
	return p
}

// fresh is a counter that nobody has programmed; unprogrammed is KVM's mode for
// one.
var fresh = x86.PITChannel{RWMode: 3, ReadState: 3, WriteState: 3, Mode: 3, Gate: 1}

const unprogrammed = 0xff

// States of reading and writing a 16-bit count are its RW modes (1 low byte, 2
// high byte, 3 both) and highNext, for the second of both.
const (
	lowByte  = 1
	highByte = 2
	word     = 3
	highNext = 4
)

// ticks is a time in clocks of the counters; time is the reverse, rounded up.
func ticks(ns uint64) uint64 {
	hi, lo := bits.Mul64(ns, Frequency)
	if hi >= second {
		return 1<<64 - 1
	}
	q, _ := bits.Div64(hi, lo, second)
	return q
}

func time(ticks uint64) uint64 {
	hi, lo := bits.Mul64(ticks, second)
	lo, carry := bits.Add64(lo, Frequency-1, 0)
	if hi+carry >= Frequency {
		return 1<<64 - 1
	}
	q, _ := bits.Div64(hi+carry, lo, Frequency)
	return q
}

// freezes says whether a low gate stops a counter in the middle of its count.
func freezes(c *x86.PITChannel) bool { return c.Mode == 0 || c.Mode == 4 }

// gone is how many clocks a counter has counted since it was loaded. While a
// low gate holds it, LoadTime has the time counted, negated, less one.
func (p *PIT) gone(c *x86.PITChannel) uint64 {
	if c.LoadTime < 0 {
		return ticks(uint64(-(c.LoadTime + 1)))
	}
	now := p.clock.Now()
	return ticks(now - min(uint64(c.LoadTime), now))
}

// output is the level of a counter's OUT (8254 data sheet, "Mode
// Definitions"). Count is 0 while none has been loaded.
func (p *PIT) output(c *x86.PITChannel) bool {
	if c.Count == 0 {
		return c.Mode != 0
	}
	d, n := p.gone(c), uint64(c.Count)
	switch c.Mode {
	case 0, 1:
		return d >= n
	case 2:
		return d%n != n-1
	case 3:
		return d%n < (n+1)/2
	}
	return d != n
}

// counting is the value of the counting element.
func (p *PIT) counting(c *x86.PITChannel) uint16 {
	if c.Count == 0 {
		return 0
	}
	d, n := p.gone(c), uint64(c.Count)
	var v uint64
	switch c.Mode {
	case 2:
		v = n - d%n
	case 3:
		v = n - 2*d%n
	default:
		v = n - d
		if c.BCD != 0 {
			v = (n%10_000 + 10_000 - d%10_000) % 10_000
		}
	}
	if c.BCD != 0 {
		return toBCD(v)
	}
	return uint16(v)
}

func toBCD(v uint64) (b uint16) {
	for i := range 4 {
		b |= uint16(v%10) << (4 * i)
		v /= 10
	}
	return b
}

func fromBCD(b uint16) (v uint32) {
	for i := 3; i >= 0; i-- {
		v = 10*v + uint32(b>>(4*i)&15)
	}
	return v
}

// load starts a count.
func (p *PIT) load(k int, v uint16) {
	c := &p.ch[k]
	c.Count = uint32(v)
	switch {
	case c.BCD != 0:
		if c.Count = fromBCD(v); v == 0 {
			c.Count = 10_000
		}
	case v == 0:
		c.Count = 1 << 16
	}
	c.LoadTime = int64(p.clock.Now())
	if c.Gate == 0 && freezes(c) {
		c.LoadTime = -1
	}
	if k == 0 {
		p.arm()
	}
}

// minPeriod, in nanoseconds, is how often counter 0 interrupts at most: a guest
// that asks for more would keep the host busy with nothing else.
const minPeriod = 50_000

// arm computes when counter 0 interrupts next: at the end of its count, or of
// each count in the periodic modes.
func (p *PIT) arm() {
	c := &p.ch[0]
	p.due = 0
	if c.Count != 0 && c.LoadTime >= 0 {
		n, d := uint64(c.Count), p.gone(c)
		switch {
		case c.Mode == 2 || c.Mode == 3:
			p.due = max(uint64(c.LoadTime)+time((d/n+1)*n), p.last+minPeriod)
		case d < n:
			p.due = uint64(c.LoadTime) + time(n)
		}
	}
	p.clock.Arm(p.due)
}

// Tick interrupts if counter 0 is due. It may be called at any time. Ticks
// that were missed are one.
func (p *PIT) Tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due == 0 {
		return
	}
	now := p.clock.Now()
	if now < p.due {
		p.clock.Arm(p.due)
		return
	}
	p.last = now
	p.arm()
	_ = p.irq()
}

// control is a write to the control register.
func (p *PIT) control(v uint8) {
	k := int(v >> 6)
	if k == 3 {
		p.readBack(v)
		return
	}
	c, rw := &p.ch[k], v>>4&3
	if rw == 0 {
		p.latchCount(c)
		return
	}
	c.RWMode, c.ReadState, c.WriteState = rw, rw, rw
	c.CountLatched, c.StatusLatched = 0, 0
	c.Mode, c.BCD = v>>1&7, v&1
	if c.Mode > 5 {
		c.Mode &= 3
	}
	c.Count = 0
	if k == 0 {
		p.arm()
	}
}

func (p *PIT) readBack(v uint8) {
	for k := range p.ch {
		c := &p.ch[k]
		if v>>(k+1)&1 == 0 {
			continue
		}
		if v&0x20 == 0 {
			p.latchCount(c)
		}
		if v&0x10 == 0 && c.StatusLatched == 0 {
			c.Status = c.RWMode<<4 | c.Mode<<1 | c.BCD
			if p.output(c) {
				c.Status |= 0x80
			}
			if c.Count == 0 {
				c.Status |= 0x40 // null count
			}
			c.StatusLatched = 1
		}
	}
}

func (p *PIT) latchCount(c *x86.PITChannel) {
	if c.CountLatched == 0 {
		c.LatchedCount, c.CountLatched = p.counting(c), c.RWMode
	}
}

func (p *PIT) write(k int, v uint8) {
	c := &p.ch[k]
	switch c.WriteState {
	case lowByte:
		p.load(k, uint16(v))
	case highByte:
		p.load(k, uint16(v)<<8)
	case word:
		c.WriteLatch, c.WriteState = v, highNext
	default:
		c.WriteState = word
		p.load(k, uint16(c.WriteLatch)|uint16(v)<<8)
	}
}

func (p *PIT) read(k int) uint8 {
	c := &p.ch[k]
	if c.StatusLatched != 0 {
		c.StatusLatched = 0
		return c.Status
	}
	switch c.CountLatched {
	case lowByte:
		c.CountLatched = 0
		return uint8(c.LatchedCount)
	case highByte, highNext:
		c.CountLatched = 0
		return uint8(c.LatchedCount >> 8)
	case word:
		c.CountLatched = highNext
		return uint8(c.LatchedCount)
	}
	v := p.counting(c)
	switch c.ReadState {
	case lowByte:
		return uint8(v)
	case highByte:
		return uint8(v >> 8)
	case word:
		c.ReadState = highNext
		return uint8(v)
	}
	c.ReadState = word
	return uint8(v >> 8)
}

// setGate sets the gate of counter 2.
func (p *PIT) setGate(high bool) {
	c := &p.ch[2]
	was := c.Gate != 0
	if high == was {
		return
	}
	now := int64(p.clock.Now())
	switch {
	case freezes(c) && high:
		c.LoadTime = now - min(-(c.LoadTime+1), now)
	case freezes(c):
		c.LoadTime = -(now - min(c.LoadTime, now)) - 1
	case high: // the rising edge begins the count anew
		c.LoadTime = now
	}
	c.Gate = 0
	if high {
		c.Gate = 1
	}
}

// Bits of port 0x61 (ICH9 data sheet, 13.7.1).
const (
	port61Gate    = 1 << 0
	port61Speaker = 1 << 1
	port61Refresh = 1 << 4 // toggles with every refresh of memory
	port61Output  = 1 << 5
)

const refreshPeriod = 15_085 // ns

func (p *PIT) readControlPort() (v uint8) {
	c := &p.ch[2]
	v = c.Gate | p.speaker
	if p.output(c) {
		v |= port61Output
	}
	if p.clock.Now()/refreshPeriod&1 != 0 {
		v |= port61Refresh
	}
	return v
}

// Ports is a register block of the timer as a device on a bus.
type Ports struct {
	pit     *PIT
	control bool
}

// Counters is the timer's ports, 0x40 to 0x43 in a PC.
func (p *PIT) Counters() Ports { return Ports{p, false} }

// ControlPort is port 0x61 of a PC.
func (p *PIT) ControlPort() Ports { return Ports{p, true} }

// Read implements bus.Device.
func (q Ports) Read(off uint64, b []byte) {
	q.pit.mu.Lock()
	defer q.pit.mu.Unlock()
	for i := range b {
		switch at := (off + uint64(i)) & 3; {
		case q.control && i == 0:
			b[i] = q.pit.readControlPort()
		case q.control || at == 3:
			b[i] = 0xff
		default:
			b[i] = q.pit.read(int(at))
		}
	}
}

// Write implements bus.Device.
func (q Ports) Write(off uint64, b []byte) {
	q.pit.mu.Lock()
	defer q.pit.mu.Unlock()
	for i, v := range b {
		switch at := (off + uint64(i)) & 3; {
		case q.control && i == 0:
			q.pit.speaker = v & port61Speaker
			q.pit.setGate(v&port61Gate != 0)
		case q.control:
		case at == 3:
			q.pit.control(v)
		default:
			q.pit.write(int(at), v)
		}
	}
}

// State is the state of the timer.
func (p *PIT) State() x86.PIT {
	p.mu.Lock()
	defer p.mu.Unlock()
	return x86.PIT{Channels: p.ch, Speaker: p.speaker}
}

// SetState takes a state, if it is one that a timer can have.
func (p *PIT) SetState(s x86.PIT) error {
	for k, c := range s.Channels {
		if c.Mode == unprogrammed && c.Gate <= 1 {
			s.Channels[k] = fresh
			s.Channels[k].Gate = c.Gate
			continue
		}
		if c.Count > 1<<16 || c.Mode > 5 || c.RWMode > word || c.RWMode == 0 || c.BCD > 1 || c.Gate > 1 ||
			c.ReadState > highNext || c.WriteState > highNext || c.CountLatched > highNext {
			return fmt.Errorf("timer state: counter %d cannot be so: %+v", k, c)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ch, p.speaker = s.Channels, s.Speaker&port61Speaker
	p.arm()
	return nil
}
