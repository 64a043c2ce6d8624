//go:build linux && amd64

package softcpu

import (
	"slices"
	"strings"
	"testing"
)

// tableNames are the instructions of the decoding tables that a case can test.
func tableNames() map[string]bool {
	names := map[string]bool{}
	var add func(op *opcode)
	add = func(op *opcode) {
		if op.group != nil {
			for i := range op.group {
				add(&op.group[i])
			}
			return
		}
		ends := op.attr&aEnd != 0 && !strings.HasPrefix(op.name, "j") && !strings.HasPrefix(op.name, "loop")
		if op.fn != nil && !skipped[op.name] && op.attr&aPriv == 0 && !ends {
			names[op.name] = true
		}
	}
	for i := range 256 {
		add(&oneByte[i])
		add(&map0F[0][i])
		for p := range 4 {
			add(&mapSSE[p][i])
			add(&map38[p][i])
			add(&map3A[p][i])
		}
	}
	for _, op := range []*opcode{&tzcnt, &lzcnt, &popcnt, &bsf, &bsr, &movsxd} {
		add(op)
	}
	return names
}

// untested are named in the tables, but not in 64-bit mode, where cases run.
var untested = []string{"arpl", "bound"}

// TestSampleCoversTheTables: the sample of TestDifferential has each
// instruction of the decoding tables at least once. It prints how often.
func TestSampleCoversTheTables(t *testing.T) {
	g := newDiffGen(1)
	count := map[string]int{}
	for done := 0; done < diffSample; done += diffCases {
		g.batch(done/diffCases%2 == 1, diffCases, count)
	}
	covered := map[string]bool{}
	for name := range count {
		first, _, _ := strings.Cut(name, "+")
		base, _, _ := strings.Cut(first, " ")
		covered[first], covered[base] = true, true
		if _, jump, ok := strings.Cut(name, "+"); ok {
			covered[jump] = true
		}
	}
	var missing []string
	names := tableNames()
	for name := range names {
		if !covered[name] && !slices.Contains(untested, name) {
			missing = append(missing, name)
		}
	}
	slices.Sort(missing)
	if len(missing) > 0 {
		t.Errorf("no case for %d of %d instructions: %s", len(missing), len(names), strings.Join(missing, " "))
	}
	t.Logf("%d instructions: %s", len(names), coverage(count))
}
