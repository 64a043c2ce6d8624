package rtc

import "testing"

func TestEveryRegisterDecodes(t *testing.T) {
	var d Decoder
	if r, m := d.Access(Data, 1, false, 0); r != "data" || m != "" {
		t.Errorf("before an index: %q %q", r, m)
	}
	for index := range uint64(256) {
		r, m := d.Access(Index, 1, true, index)
		if r != "index" || m == "" {
			t.Errorf("index %#x: %q %q", index, r, m)
		}
		if r, again := d.Access(Data, 1, false, 0); r != "data" || again != m {
			t.Errorf("data of %#x: %q %q, want %q", index, r, again, m)
		}
	}
	if _, m := d.Access(Index, 1, true, 0x80|regYear); m != "year" {
		t.Errorf("with NMI masked: %q", m)
	}
}
