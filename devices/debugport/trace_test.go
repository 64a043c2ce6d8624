package debugport

import "testing"

func TestRegisterDecodes(t *testing.T) {
	for value, want := range map[uint64]string{MarkUserSpace: "user space reached", MarkAgent: "agent ready",
		MarkReboot: "an orderly reboot follows", MarkPowerOff: "power off", 0x55: "the guest's own"} {
		if r, m := (Decoder{}).Access(0, 1, true, value); r != "mark" || m != want {
			t.Errorf("%d: %q %q", value, r, m)
		}
	}
	if r, _ := (Decoder{}).Access(0, 1, false, Presence); r != "presence" {
		t.Errorf("read: %q", r)
	}
}
