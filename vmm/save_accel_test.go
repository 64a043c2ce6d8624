package vmm_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

// TestGuestGoesOnWithTheOtherAccelerator: a guest saved on one accelerator and
// restored on the other computes what it computes without, where the processors
// have the same features; where not, it is refused with the names of those that
// it may be using.
func TestGuestGoesOnWithTheOtherAccelerator(t *testing.T) {
	acceltest.Only(t, acceltest.KVM, "it goes from each accelerator to the other")
	for _, c := range [][2]string{{"soft", "kvm"}, {"kvm", "soft"}} {
		t.Run(c[0]+" to "+c[1], func(t *testing.T) {
			cfg := vmm.Config{Kernel: tinyKernel(t, computes(60_000)), Accel: c[0]}
			begun := time.Now()
			want := startNew(t, cfg).result(t)
			took := time.Since(begun)
			dir := filepath.Join(t.TempDir(), "s")
			var err error
			for part := time.Duration(3); part < 10_000; part *= 2 {
				r := startNew(t, cfg)
				time.Sleep(took / part)
				if _, err = r.Save(t.Context(), dir, vmm.SaveOptions{KeepPaused: true}); err == nil {
					r.stop()
					break
				}
				_ = r.result(t) // it was done before: sooner, then
			}
			if err != nil {
				t.Fatal(err)
			}
			s, err := snapshot.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			on := new(running)
			restore := func() (*vmm.Machine, error) {
				return vmm.Restore(vmm.Config{Accel: c[1], Console: vmm.Serial{Out: &on.out}, Devices: devices()}, s)
			}
			m, err := restore()
			var missing *vmm.FeatureError
			if errors.As(err, &missing) && len(missing.Missing) > 0 {
				t.Logf("refused: %v", err)
				// This guest uses none of them: as if it had been shown a
				// processor that both are.
				s.State.Seen = nil
				if s.State.CPUID, err = vmm.HostCPUID(vmm.Accelerator(c[1])); err != nil {
					t.Fatal(err)
				}
				m, err = restore()
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = m.Close() })
			if got := start(t, m, on).result(t); got != want {
				t.Errorf("goes on to %s, and without a stop to %s", got, want)
			}
		})
	}
}
