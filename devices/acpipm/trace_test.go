package acpipm

import "testing"

func TestEveryRegisterDecodes(t *testing.T) {
	for _, c := range []struct {
		off               uint64
		write             bool
		value             uint64
		register, meaning string
	}{
		{SleepControl, true, SleepEnable | SleepTypeS5<<SleepTypeShift, "sleep control", "enter S5"},
		{SleepStatus, false, WakeStatus, "sleep status", "WAK_STS"}, {ResetControl, true, ResetValue, "reset", "reset the machine"},
		{EventStatus, false, 3, "event status", "power button, VM generation id changed"}, {EventStatus + 1, false, 0, "event status", "none"}, {3, false, 0, "", ""},
	} {
		if r, m := (Decoder{}).Access(c.off, 1, c.write, c.value); r != c.register || m != c.meaning {
			t.Errorf("%d %#x: %q %q, want %q %q", c.off, c.value, r, m, c.register, c.meaning)
		}
	}
}
