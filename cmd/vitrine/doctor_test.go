package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/doctor"
)

// The doctor's two ways to speak say the same, and what it advises is there
// where something is wrong.
func TestDoctor(t *testing.T) {
	status, text, stderr := command("doctor")
	if stderr != "" {
		t.Errorf("it said %q", stderr)
	}
	again, out, _ := command("doctor", "--json")
	var r doctor.Report
	dec := json.NewDecoder(strings.NewReader(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(r.Checks) == 0 {
		t.Fatal("nothing was looked at")
	}
	failed := false
	for _, c := range r.Checks {
		failed = failed || c.Status == doctor.Fail
		if c.Status != doctor.OK && c.Advice == "" {
			t.Errorf("%s: %s, and nothing to do about it", c.Name, c.Status)
		}
		if !strings.Contains(text, c.Name) {
			t.Errorf("%q is in the JSON alone:\n%s", c.Name, text)
		}
	}
	want := 0
	if failed || !r.CanRun {
		want = statusFailure
	}
	if status != want || again != want || failed == r.CanRun {
		t.Errorf("status %d and %d, want %d; a check failed: %v; a guest can run: %v", status, again, want, failed, r.CanRun)
	}
	if _, err := os.Stat("/dev/kvm"); err != nil && r.CanRun {
		t.Errorf("a guest can run without /dev/kvm: %v", err)
	}
	if r.CanRun && r.NanosecondsPerIteration <= 0 {
		t.Errorf("guest kernel code was not timed: %v", r.NanosecondsPerIteration)
	}
}
