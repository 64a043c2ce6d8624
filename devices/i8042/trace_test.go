package i8042

import "testing"

func TestEveryRegisterDecodes(t *testing.T) {
	for _, c := range []struct {
		off               uint64
		write             bool
		value             uint64
		register, meaning string
	}{
		{Control, true, 0xfe, "command", "pulse the reset line"}, {Control, true, 0x60, "command", "write RAM 0"},
		{Control, true, 0xaa, "command", "self-test"}, {Control, false, 0x15, "status", "output full, self-test passed, unlocked"},
		{Data, true, 0xff, "data", "to the keyboard"}, {Data, false, 0x55, "data", ""}, {2, false, 0xff, "", ""},
	} {
		var d Decoder
		if r, m := d.Access(c.off, 1, c.write, c.value); r != c.register || m != c.meaning {
			t.Errorf("%d %#x: %q %q, want %q %q", c.off, c.value, r, m, c.register, c.meaning)
		}
	}
	var d Decoder
	d.Access(Control, 1, true, 0x60)
	if _, m := d.Access(Data, 1, true, 0x47); m != "for: write RAM 0" {
		t.Errorf("a parameter: %q", m)
	}
}
