// Package rtc is the PC's clock and its battery-backed memory: Motorola's
// MC146818 with 128 bytes, the upper registers as PC firmware uses them. It
// raises no interrupts: alarm and periodic rate are kept, and nothing more.
package rtc

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// Offsets of the two ports from 0x70.
const (
	Index = 0 // which register; bit 7 would mask NMI
	Data  = 1
	Size  = 2
)

// Registers.
const (
	regSeconds = 0x00
	regMinutes = 0x02
	regHours   = 0x04
	regWeekday = 0x06
	regDay     = 0x07
	regMonth   = 0x08
	regYear    = 0x09
	regA       = 0x0a
	regB       = 0x0b
	regC       = 0x0c
	regD       = 0x0d
	// Century is what the FADT's CENTURY field must say.
	Century = 0x32

	regBaseLow    = 0x15 // KiB below 1 MiB, 16 bits
	regExtLow     = 0x17 // KiB from 1 MiB, 16 bits; again at 0x30
	regExtLow2    = 0x30
	regAbove16M   = 0x34 // 64 KiB units from 16 MiB to 4 GiB, 16 bits
	regAbove4G    = 0x5b // 64 KiB units from 4 GiB, 24 bits
	indexMask     = 0x7f
	registerCount = 128
)

const (
	aUpdating   = 1 << 7 // UIP
	aDefault    = 0x26   // 32.768 kHz, periodic rate 1024 Hz
	aKept       = 0x7f
	b24Hours    = 1 << 1
	bBinary     = 1 << 2
	bSet        = 1 << 7 // time stands still while it is set
	cUpdated    = 1 << 4 // UF
	dValid      = 1 << 7 // VRT: the battery is good
	hourPM      = 1 << 7
	updateDelay = 244 * time.Microsecond // UIP comes this much before an update ("Update Cycle")
)

// Device is the chip. Its methods may be called from any goroutine.
type Device struct {
	clock func() time.Time

	mu     sync.Mutex
	index  uint8
	ram    [registerCount]uint8
	offset time.Duration // the guest's time less the clock's
	lastC  int64         // the second in which register C was last read
}

// New returns the chip, its time that of clock (in UTC), its memory filled in
// for a machine with that many bytes of RAM below 4 GiB and from there on.
func New(clock func() time.Time, below4G, above4G uint64) *Device {
	d := &Device{clock: clock}
	d.ram[regA], d.ram[regB] = aDefault, b24Hours
	const kib, mib = 1 << 10, 1 << 20
	d.put(regBaseLow, 2, 640)
	d.put(regExtLow, 2, min(less(below4G, mib)/kib, 0xffff))
	d.put(regExtLow2, 2, min(less(below4G, mib)/kib, 0xffff))
	d.put(regAbove16M, 2, min(less(below4G, 16*mib)/(64*kib), 0xffff))
	d.put(regAbove4G, 3, min(above4G/(64*kib), 0xffffff))
	d.lastC = d.now().Unix()
	return d
}

func less(a, b uint64) uint64 { return max(a, b) - b }

func (d *Device) put(r, n int, v uint64) {
	for i := range n {
		d.ram[r+i] = uint8(v >> (8 * i))
	}
}

// Read is a guest's read of the len(p) ports from off on. The index port is
// for writing only.
func (d *Device) Read(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range p {
		p[i] = 0xff
		if off+uint64(i) == Data {
			p[i] = d.read(d.index)
		}
	}
}

// Write is a guest's write to the len(p) ports from off on.
func (d *Device) Write(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, v := range p {
		switch off + uint64(i) {
		case Index:
			d.index = v & indexMask
		case Data:
			d.write(d.index, v)
		}
	}
}

func (d *Device) read(r uint8) uint8 {
	switch r {
	case regA:
		v := d.ram[regA]
		if d.ram[regB]&bSet == 0 && time.Second-time.Duration(d.now().Nanosecond()) <= updateDelay {
			v |= aUpdating
		}
		return v
	case regC:
		now := d.now().Unix()
		v := uint8(0)
		if now != d.lastC {
			v = cUpdated
		}
		d.lastC = now
		return v
	case regD:
		return dValid
	}
	if isTime(r) && d.ram[regB]&bSet == 0 {
		d.latch()
	}
	return d.ram[r]
}

func (d *Device) write(r, v uint8) {
	switch {
	case r == regA:
		d.ram[regA] = v & aKept
	case r == regB:
		d.writeB(v)
	case r == regC || r == regD:
	case isTime(r):
		running := d.ram[regB]&bSet == 0
		if running {
			d.latch()
		}
		d.ram[r] = v
		if running {
			d.adjust()
		}
	default:
		d.ram[r] = v
	}
}

// writeB: setting SET freezes the time, clearing it starts the time from what
// stands in the registers, in the format that was in force while it was set.
func (d *Device) writeB(v uint8) {
	was := d.ram[regB]
	if v&^was&bSet != 0 {
		d.latch()
	}
	d.ram[regB] = v
	if was&^v&bSet != 0 {
		d.adjust()
	}
}

func isTime(r uint8) bool {
	switch r {
	case regSeconds, regMinutes, regHours, regWeekday, regDay, regMonth, regYear, Century:
		return true
	}
	return false
}

func (d *Device) now() time.Time { return d.clock().UTC().Add(d.offset) }

// latch puts the time into its registers.
func (d *Device) latch() {
	t := d.now()
	d.ram[regSeconds] = d.encode(t.Second())
	d.ram[regMinutes] = d.encode(t.Minute())
	d.ram[regHours] = d.encodeHour(t.Hour())
	d.ram[regWeekday] = d.encode(int(t.Weekday()) + 1)
	d.ram[regDay] = d.encode(t.Day())
	d.ram[regMonth] = d.encode(int(t.Month()))
	d.ram[regYear] = d.encode(t.Year() % 100)
	d.ram[Century] = d.encode(t.Year() / 100 % 100)
}

// adjust makes the time that stands in the registers the guest's. One that is
// none (a driver between two of its writes) changes nothing.
func (d *Device) adjust() {
	century, ok1 := d.decode(Century, 0, 99)
	year, ok2 := d.decode(regYear, 0, 99)
	month, ok3 := d.decode(regMonth, 1, 12)
	day, ok4 := d.decode(regDay, 1, 31)
	minute, ok5 := d.decode(regMinutes, 0, 59)
	second, ok6 := d.decode(regSeconds, 0, 59)
	hour, ok7 := d.decodeHour()
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7) {
		return
	}
	t := time.Date(century*100+year, time.Month(month), day, hour, minute, second, 0, time.UTC)
	// Whole seconds, so that the fraction goes on where it is. A Duration
	// holds 292 years either way and stops there.
	d.offset = t.Sub(d.clock().UTC().Truncate(time.Second))
}

func (d *Device) encode(v int) uint8 {
	if d.ram[regB]&bBinary != 0 {
		return uint8(v)
	}
	return uint8(v/10<<4 | v%10)
}

// encodeHour: in 12-hour format midnight is 12 AM and noon 12 PM.
func (d *Device) encodeHour(h int) uint8 {
	if d.ram[regB]&b24Hours != 0 {
		return d.encode(h)
	}
	v := d.encode((h+11)%12 + 1)
	if h >= 12 {
		v |= hourPM
	}
	return v
}

func (d *Device) decode(r int, lo, hi int) (v int, ok bool) {
	return d.decodeValue(d.ram[r], lo, hi)
}

func (d *Device) decodeValue(b uint8, lo, hi int) (v int, ok bool) {
	v = int(b)
	if d.ram[regB]&bBinary == 0 {
		if b>>4 > 9 || b&15 > 9 {
			return 0, false
		}
		v = int(b>>4)*10 + int(b&15)
	}
	return v, v >= lo && v <= hi
}

func (d *Device) decodeHour() (h int, ok bool) {
	b := d.ram[regHours]
	if d.ram[regB]&b24Hours != 0 {
		return d.decodeValue(b, 0, 23)
	}
	h, ok = d.decodeValue(b&^hourPM, 1, 12)
	h %= 12
	if b&hourPM != 0 {
		h += 12
	}
	return h, ok
}

type state struct {
	Version int           `json:"version"`
	Index   uint8         `json:"index"`
	RAM     []byte        `json:"ram"`
	Offset  time.Duration `json:"offset_ns"`
	LastC   int64         `json:"last_c"`
}

const stateVersion = 1

// State returns the registers and how far the guest's time is from the clock,
// as JSON.
func (d *Device) State() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return json.Marshal(state{stateVersion, d.index, d.ram[:], d.offset, d.lastC})
}

// SetState takes what State returned. The time goes on with the clock: it is
// not the time of the snapshot.
func (d *Device) SetState(b []byte) error {
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("rtc: state: %w", err)
	}
	if s.Version != stateVersion || len(s.RAM) != registerCount || s.Index > indexMask {
		return fmt.Errorf("rtc: state: version %d, %d bytes, index %d: want version %d, %d bytes, index up to %d",
			s.Version, len(s.RAM), s.Index, stateVersion, registerCount, indexMask)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index, d.offset, d.lastC = s.Index, s.Offset, s.LastC
	copy(d.ram[:], s.RAM)
	return nil
}
