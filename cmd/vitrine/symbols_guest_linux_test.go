package main

import (
	"strings"
	"testing"
)

// TestGuestFunctionsOfARunningMachine: addresses may be functions' names where
// the kernel is the embedded one.
func TestGuestFunctionsOfARunningMachine(t *testing.T) {
	newGuestShell(t)
	for _, c := range [][]string{{"symbols", "m"}, {"inspect", "m", "disasm", "start_kernel"}, {"inspect", "m", "pagetable", "start_kernel"}} {
		if status, o, e := vitrine(nil, c...); status != 0 || len(strings.Split(o, "\n")) < 4 {
			t.Errorf("%v: %d %q %q", c, status, o, e)
		}
	}
	if status, _, e := vitrine(nil, "inspect", "m", "disasm", "no_such_function"); status == 0 || !strings.Contains(e, "no_such_function") {
		t.Errorf("a name that is none: %d %q", status, e)
	}
}
