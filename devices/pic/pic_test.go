package pic

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// wired is a pair initialised as PC firmware and Linux do: vectors 0x20 and
// 0x28, everything unmasked.
type wired struct {
	*Pair
	out bool
}

func newWired(t *testing.T) *wired {
	t.Helper()
	w := new(wired)
	w.Pair = New(func(active bool) { w.out = active })
	w.initialise(0, 0x20, 1)
	w.initialise(1, 0x28, 1)
	return w
}

func (w *wired) initialise(k int, base, icw4 byte) {
	w.outb(k, 0, 0x11)
	w.outb(k, 1, base)
	w.outb(k, 1, [2]byte{4, 2}[k])
	w.outb(k, 1, icw4)
	w.outb(k, 1, 0)
}

func (w *wired) ports(k int) Ports { return [3]Ports{w.Primary(), w.Secondary(), w.EdgeLevel()}[k] }

func (w *wired) outb(k int, off uint64, v byte) { w.ports(k).Write(off, []byte{v}) }

func (w *wired) inb(k int, off uint64) byte {
	var b [1]byte
	w.ports(k).Read(off, b[:])
	return b[0]
}

func (w *wired) pulse(line uint8) { w.SetLine(line, true); w.SetLine(line, false) }

func (w *wired) take(t *testing.T, want uint8) {
	t.Helper()
	if !w.out || !w.Pending() {
		t.Fatalf("no interrupt, want vector %#x", want)
	}
	if v := w.Acknowledge(); v != want {
		t.Fatalf("vector %#x, want %#x", v, want)
	}
}

func TestEdge(t *testing.T) {
	w := newWired(t)
	w.pulse(4)
	w.take(t, 0x24)
	if w.out {
		t.Error("still active while in service")
	}
	w.pulse(4)
	if w.out {
		t.Error("interrupts again before its end")
	}
	w.outb(0, 0, 0x20)
	w.take(t, 0x24)
}

func TestPriority(t *testing.T) {
	w := newWired(t)
	w.pulse(5)
	w.pulse(1)
	w.take(t, 0x21)
	if w.out {
		t.Error("a lower priority interrupts a higher one")
	}
	w.pulse(0)
	w.take(t, 0x20) // nested
	w.outb(0, 0, 0x20)
	w.outb(0, 0, 0x20)
	w.take(t, 0x25)
}

func TestSecondaryThroughCascade(t *testing.T) {
	w := newWired(t)
	w.pulse(12)
	w.take(t, 0x2c)
	w.outb(0, 0, 0x0b)
	w.outb(1, 0, 0x0b)
	if p, s := w.inb(0, 0), w.inb(1, 0); p != 1<<2 || s != 1<<4 {
		t.Errorf("in service %#x and %#x, want the cascade and input 4", p, s)
	}
	w.outb(1, 0, 0x20)
	w.outb(0, 0, 0x20)
	w.pulse(8)
	w.take(t, 0x28)
}

func TestMaskAndRequestRegister(t *testing.T) {
	w := newWired(t)
	w.outb(0, 1, 0xff)
	w.pulse(3)
	if w.out {
		t.Error("masked, but active")
	}
	if v := w.inb(0, 1); v != 0xff {
		t.Errorf("mask reads %#x", v)
	}
	w.outb(0, 0, 0x0a)
	if v := w.inb(0, 0); v != 1<<3 {
		t.Errorf("requests read %#x", v)
	}
	w.outb(0, 1, 0)
	w.take(t, 0x23)
}

func TestLevelStaysUntilTheDeviceLetsGo(t *testing.T) {
	w := newWired(t)
	w.outb(2, 0, 0xff) // inputs 0 to 2 stay edge-triggered
	if v := w.inb(2, 0); v != 0xf8 {
		t.Errorf("ELCR1 reads %#x, want 0xf8", v)
	}
	w.SetLine(5, true)
	w.take(t, 0x25)
	w.outb(0, 0, 0x20)
	w.take(t, 0x25)
	w.SetLine(5, false)
	w.outb(0, 0, 0x20)
	if w.out {
		t.Error("active though the line is not")
	}
}

func TestSpurious(t *testing.T) {
	w := newWired(t)
	w.outb(2, 0, 1<<5)
	w.SetLine(5, true)
	w.SetLine(5, false)
	if v := w.Acknowledge(); v != 0x27 {
		t.Errorf("vector %#x for a request that went, want that of input 7", v)
	}
	if w.outb(0, 0, 0x0b); w.inb(0, 0) != 0 {
		t.Error("a spurious interrupt is in service")
	}
}

func TestSpecificEndAndRotation(t *testing.T) {
	w := newWired(t)
	w.pulse(3)
	w.take(t, 0x23)
	w.outb(0, 0, 0x63) // specific end of 3
	w.pulse(4)
	w.take(t, 0x24)
	w.outb(0, 0, 0xa0) // end and rotate: 4 is now the lowest
	w.pulse(4)
	w.pulse(5)
	w.take(t, 0x25)
	w.outb(0, 0, 0x20)
	w.take(t, 0x24)
	w.outb(0, 0, 0x20)
	w.outb(0, 0, 0xc7) // priorities as at first
	w.pulse(4)
	w.pulse(5)
	w.take(t, 0x24)
}

func TestAutoEOI(t *testing.T) {
	w := newWired(t)
	w.initialise(0, 0x20, 3)
	w.pulse(1)
	w.take(t, 0x21)
	w.pulse(6)
	w.take(t, 0x26)
}

func TestPoll(t *testing.T) {
	w := newWired(t)
	w.outb(0, 0, 0x0c)
	if v := w.inb(0, 0); v != 0 {
		t.Errorf("poll reads %#x with nothing there", v)
	}
	w.pulse(6)
	w.outb(0, 0, 0x0c)
	if v := w.inb(0, 0); v != 0x86 {
		t.Errorf("poll reads %#x, want 0x86", v)
	}
	if w.out {
		t.Error("active though polled")
	}
}

func TestSpecialMaskMode(t *testing.T) {
	w := newWired(t)
	w.pulse(2 + 1)
	w.take(t, 0x23)
	w.outb(0, 1, 1<<3)
	w.outb(0, 0, 0x68) // special mask mode: what is masked holds nobody back
	w.pulse(6)
	w.take(t, 0x26)
}

func TestStateGoesOn(t *testing.T) {
	w := newWired(t)
	w.pulse(10)
	w.pulse(1)
	w.take(t, 0x21)
	other := &wired{}
	other.Pair = New(func(active bool) { other.out = active })
	other.SetState(w.State())
	if other.State() != w.State() {
		t.Errorf("state %+v became %+v", w.State(), other.State())
	}
	other.outb(0, 0, 0x20)
	other.take(t, 0x2a)
}

func FuzzPorts(f *testing.F) {
	f.Add([]byte{0, 0x11, 1, 0x20, 1, 4, 1, 1, 6, 0x84, 7, 0x04})
	f.Add([]byte{2, 0x0c, 4, 0xff, 6, 0x8d})
	f.Fuzz(func(t *testing.T, program []byte) {
		w := new(wired)
		w.Pair = New(func(active bool) { w.out = active })
		for ; len(program) >= 2; program = program[2:] {
			op, v := program[0], program[1]
			switch op & 7 {
			case 6:
				w.SetLine(v&31, v&0x80 != 0)
			case 7:
				w.Acknowledge()
			default:
				w.outb(int(op>>1&3)%3, uint64(op&1), v)
				w.inb(int(v)%3, uint64(v>>7))
			}
			if w.out != w.Pending() {
				t.Fatal("the output and what was told of it differ")
			}
		}
		w.SetState([2]x86.PIC{w.State()[1], w.State()[0]})
	})
}
