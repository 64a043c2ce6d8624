package vmm_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// A kernel that reports its panic leaves a core, with all its memory.
func TestCoreOfAPanic(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		path := filepath.Join(t.TempDir(), "core")
		p := new(program).out(0x505, 1)
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, append(p.code, 0xeb, 0xfe)), Accel: accel, CPUs: 2, CoreFile: path})
		end := wantCause(t, runFor(t, m, time.Minute), vmm.CausePanic)
		if !strings.Contains(end.Detail, "a core is in "+path) {
			t.Errorf("%q", end.Detail)
		}
		if n := loadsOf(t, path); n < 16<<20 {
			t.Errorf("%d bytes of memory in the core", n)
		}
	})
}
