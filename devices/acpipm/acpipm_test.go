package acpipm

import (
	"bytes"
	"errors"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

var _ bus.Device = (*Device)(nil)

type machine struct {
	*Device
	offs, resets, pulses int
}

func newMachine() *machine {
	m := new(machine)
	m.Device = New(Config{
		PowerOff: func() { m.offs++ },
		Reset:    func() { m.resets++ },
		IRQ:      func() error { m.pulses++; return nil },
	})
	return m
}

func TestOnlyS5TurnsOff(t *testing.T) {
	m := newMachine()
	for typ := range 8 {
		m.Write(SleepControl, []byte{uint8(typ << SleepTypeShift)})
		if typ != SleepTypeS5 {
			m.Write(SleepControl, []byte{uint8(typ<<SleepTypeShift) | SleepEnable})
		}
	}
	if m.offs != 0 {
		t.Fatal("turned off without S5")
	}
	m.Write(SleepControl, []byte{SleepTypeS5<<SleepTypeShift | SleepEnable})
	if m.offs != 1 || m.resets != 0 {
		t.Errorf("S5: %d power-offs, %d resets", m.offs, m.resets)
	}
	p := []byte{0}
	m.Read(SleepControl, p)
	if p[0] != SleepTypeS5<<SleepTypeShift {
		t.Errorf("sleep control reads %#x", p[0])
	}
}

func TestResetTakesItsValueAlone(t *testing.T) {
	m := newMachine()
	m.Write(ResetControl, []byte{0})
	m.Write(ResetControl, []byte{0xfe})
	if m.resets != 0 {
		t.Fatal("reset by a wrong value")
	}
	m.Write(ResetControl, []byte{ResetValue})
	if m.resets != 1 {
		t.Error("not reset")
	}
}

func TestEventsAreReadOnce(t *testing.T) {
	m := newMachine()
	if err := errors.Join(m.PowerButton(), m.GenerationChanged(), m.PowerButton()); err != nil {
		t.Fatal(err)
	}
	if m.pulses != 3 {
		t.Errorf("%d pulses, want 3", m.pulses)
	}
	for _, want := range [][]byte{{3, 0, 0, 0}, {0, 0, 0, 0}} {
		p := make([]byte, 4)
		m.Read(EventStatus, p)
		if !bytes.Equal(p, want) {
			t.Errorf("events %x, want %x", p, want)
		}
	}
}

func TestHostileAccesses(t *testing.T) {
	m := newMachine()
	for _, off := range []uint64{0, 3, 7, 8, 1 << 40, ^uint64(0)} {
		p := make([]byte, 8)
		m.Write(off, p)
		m.Read(off, p)
		for i, v := range p {
			if r := off + uint64(i); (off >= Size || r >= Size) != (v == 0xff) {
				t.Errorf("offset %#x reads %#x", r, v)
			}
		}
	}
	if m.offs+m.resets+m.pulses != 0 {
		t.Error("zeroes did something")
	}
}

func TestStateGoesRound(t *testing.T) {
	m, n := newMachine(), newMachine()
	if err := m.PowerButton(); err != nil {
		t.Fatal(err)
	}
	b, err := m.State()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.SetState(b); err != nil || n.pulses != 1 {
		t.Errorf("restored: %v, %d pulses", err, n.pulses)
	}
	p := []byte{0}
	n.Read(EventStatus, p)
	if p[0] != EventPowerButton {
		t.Errorf("events %#x", p[0])
	}
	for _, s := range []string{"", "{}", `{"version":1,"events":4}`} {
		if n.SetState([]byte(s)) == nil {
			t.Errorf("state %q was taken", s)
		}
	}
}

func TestLeftOutFunctionsDoNothing(t *testing.T) {
	d := New(Config{})
	d.Write(SleepControl, []byte{SleepTypeS5<<SleepTypeShift | SleepEnable, 0, ResetValue})
	if err := d.PowerButton(); err != nil {
		t.Error(err)
	}
}
