package vmm_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// The report of a fault has the last 20 exits before it, in the words of a
// trace, whether or not anybody traced.
func TestReportHasTheLastEvents(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		p := new(program)
		for i := range 30 {
			p.out(0x3f8, byte('A'+i))
		}
		p.code = append(p.code, 0x0f, 0x01, 0x1c, 0x25, 0, 0, 0, 0, 0x0f, 0x0b) // lidt [0]; ud2
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, p.code), Accel: accel})
		stop := wantCause(t, runFor(t, m, time.Minute), vmm.CauseTripleFault)
		_, events, ok := strings.Cut(stop.Detail, "last events:\n")
		lines := strings.Split(events, "\n")
		if !ok || len(lines) != 20 || !strings.Contains(lines[19], "IO out 0x3f8 ← '^' (COM1 THR)") || !strings.Contains(lines[0], "'K'") && accel == "soft" {
			t.Fatalf("%d events:\n%s", len(lines), stop.Detail)
		}
	})
}
