// Package acceltest is the switch by which one run of the tests boots all its
// guests with one accelerator:
//
//	VITRINE_TEST_ACCEL=kvm go test -parallel 1 ./vmm ./cmd/vitrine
//
// Without it each test takes what is usual for it, which for most is the
// software CPU: it is everywhere, and faster where KVM emulates guest kernels.
package acceltest

import (
	"os"
	"testing"
	"time"
)

// Env is the switch: the name of an accelerator, or empty.
const Env = "VITRINE_TEST_ACCEL"

// The accelerators, by the names that --accel has for them.
const (
	KVM  = "kvm"
	Soft = "soft"
)

// chosen is what the switch says. A word that is no accelerator fails the test:
// it would otherwise run with what the user did not mean.
func chosen(t testing.TB) string {
	t.Helper()
	word := os.Getenv(Env)
	if word != "" && word != KVM && word != Soft {
		t.Fatalf("%s is %q: want %s, %s or nothing", Env, word, KVM, Soft)
	}
	return word
}

// Need skips the test where the host has no such accelerator.
func Need(t testing.TB, accel string) {
	t.Helper()
	if accel != KVM {
		return
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skipf("no guest under KVM: %v", err)
	}
}

// Of is the accelerator for a test's guests, where any will do: the usual one,
// or the switch's.
func Of(t testing.TB, usual string) string {
	t.Helper()
	if word := chosen(t); word != "" {
		usual = word
	}
	Need(t, usual)
	return usual
}

// Only is the accelerator for the guests of a test that is about that one. why
// says what of it. With the switch at the other the test is skipped, in words
// that .ci/test knows.
func Only(t testing.TB, accel, why string) string {
	t.Helper()
	if word := chosen(t); word != "" && word != accel {
		t.Skipf("only with %s: %s", accel, why)
	}
	Need(t, accel)
	return accel
}

// Each runs a test with each accelerator, or with the switch's.
func Each(t *testing.T, f func(t *testing.T, accel string)) {
	t.Helper()
	word := chosen(t)
	for _, accel := range []string{Soft, KVM} {
		if word != "" && word != accel {
			continue
		}
		t.Run(accel, func(t *testing.T) {
			Need(t, accel)
			f(t, accel)
		})
	}
}

// Slow skips a test whose guests, with the switch at KVM, take hours where KVM
// emulates guest kernels, which emulated tells, unless VITRINE_SLOW is set. why
// says what is too much for them.
func Slow(t testing.TB, emulated func() bool, why string) {
	t.Helper()
	if chosen(t) == KVM && os.Getenv("VITRINE_SLOW") == "" && emulated() {
		t.Skipf("only with %s: %s, where KVM emulates guest kernels: set VITRINE_SLOW=1", Soft, why)
	}
}

// slower is how much more time a guest gets with the switch at KVM. Where KVM
// emulates guest kernels a boot takes 60 times that of the software CPU; the
// limits that tests have are many times what they need.
const slower = 20

// Limit is how long a test waits for what takes at most d with the software
// CPU.
func Limit(d time.Duration) time.Duration {
	if os.Getenv(Env) == KVM {
		return slower * d
	}
	return d
}
