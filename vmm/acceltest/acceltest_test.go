package acceltest

import (
	"os"
	"slices"
	"testing"
	"time"
)

// run has f called in a test of its own with the switch at word, and says
// whether it was skipped.
func run(t *testing.T, word string, f func(t *testing.T)) (skipped bool) {
	t.Helper()
	t.Setenv(Env, word)
	t.Run("with "+word, func(t *testing.T) {
		defer func() { skipped = t.Skipped() }()
		f(t)
	})
	return skipped
}

func TestSwitch(t *testing.T) {
	_, err := os.Stat("/dev/kvm")
	kvm := err == nil
	for _, c := range []struct {
		word, of, only string // the accelerators of tests that are usually soft's, and that are only soft's
		each           []string
	}{
		{"", Soft, Soft, []string{Soft, KVM}},
		{Soft, Soft, Soft, []string{Soft}},
		{KVM, KVM, "", []string{KVM}},
	} {
		var of, only string
		var each []string
		run(t, c.word, func(t *testing.T) { of = Of(t, Soft) })
		if want := c.of; of != want && (kvm || want != KVM) {
			t.Errorf("%s=%s: a test of any accelerator got %q, want %q", Env, c.word, of, want)
		}
		if skipped := run(t, c.word, func(t *testing.T) { only = Only(t, Soft, "for a test") }); only != c.only || skipped != (c.only == "") {
			t.Errorf("%s=%s: a test of the software CPU got %q, skipped %v; want %q", Env, c.word, only, skipped, c.only)
		}
		run(t, c.word, func(t *testing.T) {
			Each(t, func(_ *testing.T, accel string) { each = append(each, accel) })
		})
		if want := slices.DeleteFunc(c.each, func(s string) bool { return s == KVM && !kvm }); !slices.Equal(each, want) {
			t.Errorf("%s=%s: a test of each got %q, want %q", Env, c.word, each, want)
		}
		for _, emulated := range []bool{false, true} {
			t.Setenv("VITRINE_SLOW", "")
			slow := run(t, c.word, func(t *testing.T) { Slow(t, func() bool { return emulated }, "for a test") })
			if slow != (emulated && c.word == KVM) {
				t.Errorf("%s=%s: emulated %v, a slow test was skipped: %v", Env, c.word, emulated, slow)
			}
		}
		if got := Limit(time.Second); (got > time.Second) != (c.word == KVM) {
			t.Errorf("%s=%s: a second became %v", Env, c.word, got)
		}
	}
}
