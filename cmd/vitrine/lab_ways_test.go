package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the page of lab 11 has a learner do: the exercise as it is given ends as
// a wreck, with a report and a core.
func TestLabLeavesAWreck(t *testing.T) {
	dir := t.TempDir()
	core, program := filepath.Join(dir, "wreck.core"), filepath.Join("..", "..", "docs", "labs", "11-wreck", "exercise.bin")
	status, _, errOut := labRun(t, "run", "--accel", anyAccel(t), "--on-crash", "core="+core, "11", program)
	if status != statusCrash || !strings.Contains(errOut, "no entry for vector 14") || !strings.Contains(errOut, "a core is in "+core) {
		t.Errorf("status %d: %s", status, errOut)
	}
	if b, err := os.ReadFile(core); err != nil || len(b) < 8<<20 || string(b[1:4]) != "ELF" {
		t.Errorf("a core of %d bytes, %v", len(b), err)
	}
	if status, _, errOut := labRun(t, "run", "--on-crash", "dance", "11"); status != statusUsage {
		t.Errorf("--on-crash dance: status %d: %s", status, errOut)
	}
}

func TestLabsThatRunManyMachines(t *testing.T) {
	for args, want := range map[string]string{
		"run --accel ANY 9":  "byte by virtio, all at once",
		"run --accel ANY 12": `clone C: "CV\n"`,
	} {
		if status, out, errOut := labRun(t, strings.Fields(strings.ReplaceAll(args, "ANY", anyAccel(t)))...); status != 0 || !strings.Contains(out, want) {
			t.Errorf("lab %s: status %d, want %q:\n%s%s", args, status, want, out, errOut)
		}
	}
}
