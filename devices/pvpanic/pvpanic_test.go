package pvpanic

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

var _ bus.Device = (*Device)(nil)

func TestEvents(t *testing.T) {
	var got []uint8
	d := New(func(e uint8) { got = append(got, e) })
	p := []byte{0, 0}
	d.Read(0, p)
	if p[0] != 3 || p[1] != 0xff {
		t.Errorf("events supported: %x", p)
	}
	d.Write(0, []byte{0xfc}) // nothing that it knows
	d.Write(0, nil)
	d.Write(1, []byte{Panicked})
	d.Write(0, []byte{0xf0 | CrashLoaded})
	d.Write(0, []byte{Panicked, 0, 0, 0})
	if string(got) != "\x02\x01" || d.Seen() != supported {
		t.Errorf("events %x, seen %#x", got, d.Seen())
	}
}

func TestStateGoesRound(t *testing.T) {
	d := New(nil)
	d.Write(0, []byte{Panicked})
	b, err := d.State()
	if err != nil {
		t.Fatal(err)
	}
	e := New(func(uint8) { t.Error("a restored event was reported") })
	if err := e.SetState(b); err != nil || e.Seen() != Panicked {
		t.Errorf("restored: %v, seen %d", err, e.Seen())
	}
	for _, s := range []string{"", "{}", `{"version":1,"seen":4}`} {
		if e.SetState([]byte(s)) == nil {
			t.Errorf("state %q was taken", s)
		}
	}
}
