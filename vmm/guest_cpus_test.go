package vmm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// severalCPUs is what takes hours of guests whose kernel KVM emulates.
const severalCPUs = "several CPUs wait for one another"

func TestGuestCPUs(t *testing.T) {
	acceltest.Slow(t, vmm.KernelsEmulated, severalCPUs)
	for name, cfg := range map[string]vmm.Config{
		"MP table":   {CPUs: 4},
		"ACPI":       {CPUs: 4, ACPI: true},
		"three":      {CPUs: 3},
		"thirty-two": {CPUs: 32, Memory: 256 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := bootGuest(t, cfg)
			checkCPUs(t, g, cfg.CPUs)
		})
	}
}

// checkCPUs: all CPUs are online, do the work that is pinned on them, and are
// cores of one socket with one thread each.
func checkCPUs(t *testing.T, g *guest, n int) {
	t.Helper()
	if got, want := g.must("cat", "/sys/devices/system/cpu/online"), fmt.Sprintf("0-%d\n", n-1); got != want {
		t.Fatalf("CPUs online: %q, want %q", got, want)
	}
	args := []string{g.probe(), "pin"}
	for cpu := range n {
		args = append(args, fmt.Sprint(cpu))
	}
	at := 0
	for line := range strings.Lines(g.must(args...)) {
		var on int
		if _, err := fmt.Sscanf(line, "cpu %d ", &on); err != nil || on != at {
			t.Errorf("pinned to CPU %d: %q", at, line)
		}
		at++
	}
	if at != n {
		t.Errorf("work was done on %d CPUs of %d", at, n)
	}
	var cores []string
	for cpu := range n {
		dir := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/", cpu)
		words := strings.Fields(g.must("cat", dir+"physical_package_id", dir+"core_id", dir+"thread_siblings_list"))
		if len(words) != 3 || words[0] != "0" || words[2] != fmt.Sprint(cpu) || slices.Contains(cores, words[1]) {
			t.Errorf("CPU %d: socket, core, threads: %q", cpu, words)
		}
		cores = append(cores, words[1])
	}
}

// Every CPU works at the same time as the others.
func TestGuestCPUsTogether(t *testing.T) {
	acceltest.Slow(t, vmm.KernelsEmulated, severalCPUs)
	t.Parallel()
	g := bootGuest(t, vmm.Config{CPUs: 4})
	probe := g.probe()
	var waits []func() string
	for cpu := range 4 {
		waits = append(waits, g.background(probe, "pin", fmt.Sprint(cpu), fmt.Sprint((cpu+1)%4), fmt.Sprint(cpu)))
	}
	for cpu, wait := range waits {
		if out := wait(); strings.Count(out, fmt.Sprintf("cpu %d sum", cpu)) != 2 || strings.Count(out, "\n") != 3 {
			t.Errorf("pinned to CPU %d, the next and back: %q", cpu, out)
		}
	}
}
