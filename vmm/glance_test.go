package vmm_test

import (
	"context"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

func TestGlance(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		m := spinning(t, vmm.Config{Accel: accel, CPUs: 2})
		look := func(want string) {
			t.Helper()
			// A busy host may take longer than a glance waits.
			for deadline := time.Now().Add(time.Minute); ; {
				seen, err := m.Glance(context.Background())
				if err != nil || len(seen) != 2 {
					t.Fatalf("%s: %+v, %v", want, seen, err)
				}
				if c := seen[0]; c.State == vmm.CPURuns && c.Mode == "64-bit mode" && c.RIP == 0x100078 && seen[1].State == vmm.CPUWaits {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("%s: %+v", want, seen)
				}
			}
		}
		look("a machine that runs")
		if m.Paused() {
			t.Error("a glance pauses the machine")
		}
		if err := m.Pause(context.Background()); err != nil {
			t.Fatal(err)
		}
		look("a paused machine")
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		look("a machine that was paused")
	})
}

// writer is a guest that stores to the page at 0x200000 for ever:
// mov [0x200000], rbx; jmp.
var writer = []byte{0x48, 0x89, 0x1c, 0x25, 0x00, 0x00, 0x20, 0x00, 0xeb, 0xf6}

func TestWatchMemory(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, writer), Accel: accel})
		done := make(chan error, 1)
		go func() { done <- m.Run(context.Background()) }()
		defer func() { m.Stop(nil); <-done }()
		w, err := m.WatchMemory(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		const stretch = 0x100000
		for seen := 0; seen < 2; { // the page is written again after each look
			regions, err := w.Look(context.Background(), int(m.Memory().Size()/stretch))
			if err != nil {
				t.Fatal(err)
			}
			r := regions[0]
			if r.Stretch != stretch {
				t.Fatalf("stretches of %#x bytes", r.Stretch)
			}
			if r.Stretches[2].Written == 1 && r.Stretches[2].Own >= 1 {
				seen++
			}
			if far := r.Stretches[5]; far.Pages != 256 || far.Own != 0 || far.Written != 0 {
				t.Fatalf("memory that nobody uses: %+v", far)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A look inside pauses a machine for a moment; others do not take that for a
// pause.
func TestAMomentIsNoPause(t *testing.T) {
	m := spinning(t, vmm.Config{Accel: acceltest.Of(t, acceltest.Soft)})
	err := m.Standing(context.Background(), func() error {
		if m.Paused() {
			t.Error("the machine is said to be paused")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := m.Standing(context.Background(), func() error { return nil }); err != nil || !m.Paused() {
		t.Errorf("after a look into a paused machine: paused %v, %v", m.Paused(), err)
	}
}
