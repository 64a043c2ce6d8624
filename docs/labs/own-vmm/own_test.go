//go:build linux && amd64

package ownvmm

import (
	"flag"
	"testing"

	"github.com/vitrine-vmm/vitrine/docs/labs/own-vmm/steps"
)

var step = flag.Int("step", 0, "check the steps up to this one")

func TestMyVMM(t *testing.T) {
	if *step == 0 {
		t.Skip("the learner's exercise: go test ./docs/labs/own-vmm -step 1")
	}
	for i, s := range steps.All()[:min(*step, len(steps.All()))] {
		if err := steps.Check(i+1, new(VMM)); err != nil {
			t.Fatalf("step %d, %s, is not done: %v", i+1, s.Title, err)
		}
		t.Logf("step %d, %s: done", i+1, s.Title)
	}
}
