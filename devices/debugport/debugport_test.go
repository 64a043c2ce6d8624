package debugport

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

var _ bus.Device = (*Device)(nil)

func TestMarks(t *testing.T) {
	var got []uint8
	d := New(func(m uint8) { got = append(got, m) })
	p := []byte{0, 0}
	d.Read(0, p)
	if p[0] != 'V' || p[1] != 0xff {
		t.Errorf("presence: %x", p)
	}
	d.Write(0, []byte{MarkUserSpace})
	d.Write(0, []byte{MarkAgent, 0x77, 0x77, 0x77})
	d.Write(1, []byte{0x55})
	d.Write(0, nil)
	if string(got) != "\x01\x02" || d.Last() != MarkAgent {
		t.Errorf("marks %x, last %#x", got, d.Last())
	}
}

func TestNobodyListens(t *testing.T) {
	d := New(nil)
	d.Write(0, []byte{9})
	b, err := d.State()
	if err != nil {
		t.Fatal(err)
	}
	e := New(func(uint8) { t.Error("a restored mark was reported") })
	if err := e.SetState(b); err != nil || e.Last() != 9 {
		t.Errorf("restored: %v, last %d", err, e.Last())
	}
	for _, s := range []string{"", "{}", `{"version":1,"last":256}`} {
		if e.SetState([]byte(s)) == nil {
			t.Errorf("state %q was taken", s)
		}
	}
}
