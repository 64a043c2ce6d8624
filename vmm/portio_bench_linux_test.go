package vmm_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// BenchmarkExitRoundTrip is an exit by port I/O through the run loop and a
// device and back into the guest, beside the same in a C program that does
// nothing but KVM_RUN. They take turns, so that what else the host does disturbs
// both.
func BenchmarkExitRoundTrip(b *testing.B) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		b.Skip(err)
	}
	bare := filepath.Join(b.TempDir(), "portio")
	if out, err := exec.Command("gcc", "-O2", "-o", bare, "testdata/portio/portio.c").CombinedOutput(); err != nil {
		b.Skipf("nothing to compare with: gcc: %v\n%s", err, out)
	}
	const exits = 10_000
	code := []byte{0xb9, 0, 0, 0, 0, 0xba, 0x05, 0x06, 0, 0, // mov ecx, n; mov edx, 0x605
		0xee, 0xff, 0xc9, 0x75, 0xfb} // out dx, al; dec ecx; jnz back
	binary.LittleEndian.PutUint32(code[1:], exits)
	kernel := tinyKernel(b, append(code, powerOff...))
	var ours, theirs []float64
	for range max(b.N, 5) {
		m := newMachine(b, vmm.Config{Kernel: kernel, Accel: "kvm"})
		if err := runFor(b, m, time.Minute); err != nil {
			b.Fatal(err)
		}
		began, _ := m.Timings().At(vmm.PhaseFirstRun)
		ended, _ := m.Timings().At(vmm.PhaseExit)
		ours = append(ours, float64(ended.Sub(began).Nanoseconds())/exits)

		out, err := exec.Command(bare, fmt.Sprint(exits)).Output()
		if err != nil {
			b.Fatal(err)
		}
		var ns float64
		if _, err := fmt.Sscan(string(out), &ns); err != nil {
			b.Fatal(err)
		}
		theirs = append(theirs, ns)
	}
	b.ReportMetric(middle(ours), "ns/exit")
	b.ReportMetric(middle(theirs), "bare-ns/exit")
	b.ReportMetric(middle(ours)/middle(theirs), "of-bare")
}

func middle(xs []float64) float64 { return slices.Sorted(slices.Values(xs))[len(xs)/2] }
