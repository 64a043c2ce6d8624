package pit

import (
	"testing"
)

// bench is a timer with a clock that the test turns.
type bench struct {
	*PIT
	now, due uint64
	fired    int
}

func newBench() *bench {
	b := &bench{now: 1_000_000}
	b.PIT = New(b, func() error { b.fired++; return nil })
	return b
}

func (b *bench) Now() uint64  { return b.now }
func (b *bench) Arm(t uint64) { b.due = t }

// run lets time pass, with Tick when it was asked for.
func (b *bench) run(ns uint64) {
	end := b.now + ns
	for b.due != 0 && b.due <= end {
		b.now = max(b.now, b.due)
		b.due = 0
		b.Tick()
	}
	b.now = end
}

func (b *bench) outb(port uint64, v byte) {
	if port == 0x61 {
		b.ControlPort().Write(0, []byte{v})
		return
	}
	b.Counters().Write(port-0x40, []byte{v})
}

func (b *bench) inb(port uint64) byte {
	var p [1]byte
	if port == 0x61 {
		b.ControlPort().Read(0, p[:])
	} else {
		b.Counters().Read(port-0x40, p[:])
	}
	return p[0]
}

// program sets a counter's mode and count, low byte then high byte.
func (b *bench) program(channel, mode byte, count uint16) {
	b.outb(0x43, channel<<6|0x30|mode<<1)
	b.outb(0x40+uint64(channel), byte(count))
	b.outb(0x40+uint64(channel), byte(count>>8))
}

func (b *bench) latched(channel byte) uint16 {
	b.outb(0x43, channel<<6)
	lo := b.inb(0x40 + uint64(channel))
	return uint16(lo) | uint16(b.inb(0x40+uint64(channel)))<<8
}

// The time of n clocks, rounded up.
func clocks(n uint64) uint64 { return time(n) }

func TestPeriodicInterrupts(t *testing.T) {
	for _, mode := range []byte{2, 3} {
		b := newBench()
		b.program(0, mode, 11932) // 100 Hz
		b.run(second)
		if b.fired != 99 && b.fired != 100 {
			t.Errorf("mode %d: %d interrupts in a second, want 100", mode, b.fired)
		}
	}
}

func TestMissedTicksAreOne(t *testing.T) {
	b := newBench()
	b.program(0, 2, 11932)
	b.now += second
	b.Tick()
	if b.fired != 1 {
		t.Errorf("%d interrupts after a second without a look, want 1", b.fired)
	}
	if b.due <= b.now || b.due > b.now+clocks(11932) {
		t.Errorf("next at %d, now is %d", b.due, b.now)
	}
}

func TestShortPeriodsDoNotStorm(t *testing.T) {
	b := newBench()
	b.program(0, 2, 2)
	b.run(second / 100)
	if most := second / 100 / minPeriod; b.fired > most {
		t.Errorf("%d interrupts in 10 ms, want at most %d", b.fired, most)
	}
}

func TestOneShotInterruptsOnce(t *testing.T) {
	b := newBench()
	b.program(0, 0, 1000)
	b.run(clocks(999))
	if b.fired != 0 {
		t.Fatal("too early")
	}
	b.run(clocks(2))
	b.run(second)
	if b.fired != 1 {
		t.Errorf("%d interrupts, want 1", b.fired)
	}
}

func TestControlWordStopsTheCount(t *testing.T) {
	b := newBench()
	b.program(0, 2, 1000)
	b.outb(0x43, 0x30)
	b.run(second)
	if b.fired != 0 {
		t.Errorf("%d interrupts without a count", b.fired)
	}
}

// TestCalibration is what Linux does to measure the TSC (arch/x86/kernel/tsc.c,
// pit_calibrate_tsc): counter 2 in mode 0, its output in port 0x61.
func TestCalibration(t *testing.T) {
	b := newBench()
	b.outb(0x61, b.inb(0x61)&^2|1)
	b.program(2, 0, 11932)
	begin := b.now
	for b.inb(0x61)&port61Output == 0 {
		b.now += 1000
	}
	if d := b.now - begin; d < 9_990_000 || d > 10_010_000 {
		t.Errorf("the output rose after %d ns, want 10 ms", d)
	}
}

// TestQuickCalibration is quick_pit_calibrate: the high byte counts down once
// in 256 clocks.
func TestQuickCalibration(t *testing.T) {
	b := newBench()
	b.outb(0x61, b.inb(0x61)&^2|1)
	b.program(2, 0, 0xffff)
	b.inb(0x42)
	last := b.inb(0x42)
	for range 20 {
		b.now += clocks(256)
		b.inb(0x42)
		msb := b.inb(0x42)
		if msb != last-1 {
			t.Fatalf("high byte %#x after %#x", msb, last)
		}
		last = msb
	}
}

func TestGateHoldsACount(t *testing.T) {
	b := newBench()
	b.outb(0x61, 1)
	b.program(2, 0, 1000)
	b.now += clocks(400)
	b.outb(0x61, 0)
	held := b.latched(2)
	b.now += second
	if v := b.latched(2); v != held {
		t.Errorf("counted from %d to %d without a gate", held, v)
	}
	b.outb(0x61, 1)
	b.now += clocks(100)
	if v := b.latched(2); v > held-99 || v < held-101 {
		t.Errorf("count %d, 100 clocks after %d", v, held)
	}
}

func TestGateRestartsSquareWave(t *testing.T) {
	b := newBench()
	b.outb(0x61, 1)
	b.program(2, 3, 1000)
	b.now += clocks(600)
	if b.inb(0x61)&port61Output != 0 {
		t.Error("high in the second half")
	}
	b.outb(0x61, 0)
	b.outb(0x61, 1)
	if b.inb(0x61)&port61Output == 0 {
		t.Error("low at the beginning")
	}
}

func TestCounting(t *testing.T) {
	for _, c := range []struct {
		mode byte
		gone uint64
		want uint16
	}{{0, 10, 990}, {2, 10, 990}, {2, 1010, 990}, {3, 10, 980}, {3, 510, 980}, {4, 1010, 0xfff6}} {
		b := newBench()
		b.program(1, c.mode, 1000)
		b.now += clocks(c.gone)
		if v := b.latched(1); v != c.want {
			t.Errorf("mode %d after %d clocks: %d, want %d", c.mode, c.gone, v, c.want)
		}
	}
}

func TestBCD(t *testing.T) {
	b := newBench()
	b.outb(0x43, 1<<6|0x30|2<<1|1)
	b.outb(0x41, 0x00)
	b.outb(0x41, 0x10) // 1000
	b.now += clocks(1)
	if v := b.latched(1); v != 0x0999 {
		t.Errorf("count %#x, want 0x0999", v)
	}
}

func TestLatchHolds(t *testing.T) {
	b := newBench()
	b.program(1, 2, 1000)
	b.now += clocks(5)
	b.outb(0x43, 1<<6)
	b.now += clocks(100)
	b.outb(0x43, 1<<6) // a second latch before the read is ignored
	if v := uint16(b.inb(0x41)) | uint16(b.inb(0x41))<<8; v != 995 {
		t.Errorf("latched %d, want 995", v)
	}
}

func TestReadBackStatus(t *testing.T) {
	b := newBench()
	b.outb(0x43, 1<<6|0x30|3<<1)
	b.outb(0x43, 0xe0|1<<2)
	if v := b.inb(0x41); v != 0x80|0x40|0x30|3<<1 {
		t.Errorf("status %#x before a count, want output high, null count", v)
	}
	b.program(1, 3, 1000)
	b.outb(0x43, 0xc0|1<<2) // count and status
	if v := b.inb(0x41); v&0x40 != 0 {
		t.Errorf("status %#x after a count", v)
	}
	if v := uint16(b.inb(0x41)) | uint16(b.inb(0x41))<<8; v != 1000 {
		t.Errorf("count %d behind the status", v)
	}
}

func TestStateGoesOn(t *testing.T) {
	b := newBench()
	b.program(0, 2, 11932)
	b.run(second / 2)
	other := newBench()
	other.now = b.now
	if err := other.SetState(b.State()); err != nil {
		t.Fatal(err)
	}
	if other.due != b.due {
		t.Errorf("due at %d, want %d", other.due, b.due)
	}
	s := b.State()
	s.Channels[1].Mode = 9
	if err := other.SetState(s); err == nil {
		t.Error("took a mode that there is not")
	}
}

func FuzzPorts(f *testing.F) {
	f.Add([]byte{3, 0x34, 0, 2, 0, 0, 4, 1})
	f.Add([]byte{3, 0xb1, 2, 0x99, 2, 0x99, 5, 0, 3, 0xe8})
	f.Fuzz(func(t *testing.T, program []byte) {
		b := newBench()
		for ; len(program) >= 2; program = program[2:] {
			op, v := program[0]&7, program[1]
			switch op {
			case 4:
				b.now += uint64(v) << (v & 31)
				b.Tick()
			case 5:
				b.outb(0x61, v)
				b.inb(0x61)
			case 6:
				b.inb(0x40 + uint64(v&3))
			default:
				b.outb(0x40+uint64(op&3), v)
			}
		}
		if err := newBench().SetState(b.State()); err != nil {
			t.Fatal(err)
		}
	})
}
