package pvpanic

import "testing"

func TestRegisterDecodes(t *testing.T) {
	for value, want := range map[uint64]string{Panicked: "the kernel panicked", CrashLoaded: "the kernel panicked and writes a dump itself", 0: ""} {
		if r, m := (Decoder{}).Access(0, 1, true, value); r != "events" || m != want {
			t.Errorf("%d: %q %q", value, r, m)
		}
	}
	if r, m := (Decoder{}).Access(0, 1, false, supported); r != "events" || m == "" {
		t.Errorf("read: %q %q", r, m)
	}
}
