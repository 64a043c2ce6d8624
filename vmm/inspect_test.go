package vmm_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/rng"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// spinning starts a guest that does nothing for ever.
func spinning(t *testing.T, cfg vmm.Config) *vmm.Machine {
	t.Helper()
	cfg.Kernel = tinyKernel(t, []byte{0xeb, 0xfe}) // jmp $
	m := newMachine(t, cfg)
	done := make(chan error, 1)
	go func() { done <- m.Run(context.Background()) }()
	t.Cleanup(func() { m.Stop(nil); <-done })
	for _, up := m.Timings().At(vmm.PhaseFirstRun); !up; _, up = m.Timings().At(vmm.PhaseFirstRun) {
		time.Sleep(time.Millisecond)
	}
	return m
}

func TestInspect(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		m := spinning(t, vmm.Config{Accel: accel, CPUs: 2, ACPI: true, Transport: vmm.TransportPCI, Devices: []virtio.Device{rng.New("rng", nil)}})
		for what, want := range map[string][]string{
			"cpu":       {"64-bit mode, CPL 0", "rip", "cr3", "jmp"},
			"memory":    {"guest memory:", "RAM", "usable RAM", "COM1", "PCI ECAM"},
			"pagetable": {"PML4[0]", "present", "→ 0x100078"},
			"queues":    {"rng: virtio entropy behind pci", "not set up"},
			"pci":       {"host bridge", "rng [1af4:1044]", "BAR 0", "virtio common capability", "MSI-X capability"},
			"acpi":      {"RSDP at 0xe0000", "FACP", "DSDT", "checksum right"},
			"irq":       {"I/O APIC", "8259 primary", "local APIC of vcpu 1"},
			"cpuid":     {"vendor", "fpu"},
			"disasm":    {"→ 0x100078: eb fe", "jmp"},
		} {
			v, err := m.Inspect(context.Background(), what, vmm.InspectQuery{Addr: 0x100078, HasA: what == "pagetable" || what == "disasm"})
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			for _, w := range want {
				if !strings.Contains(v.Text, w) {
					t.Errorf("%s: no %q in\n%s", what, w, v.Text)
				}
			}
			if _, err := json.Marshal(v); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if v, err := m.Inspect(context.Background(), "memory", vmm.InspectQuery{Addr: 0x100078, HasA: true, Length: 2}); err != nil || !strings.Contains(v.Text, "eb fe") {
			t.Errorf("memory: %q, %v", v.Text, err)
		}
		if m.Paused() {
			t.Error("paused still")
		}
	})
}

func TestInspectRefuses(t *testing.T) {
	m := spinning(t, vmm.Config{Accel: acceltest.Of(t, acceltest.Soft)})
	for what, q := range map[string]vmm.InspectQuery{
		"nonsense": {}, "cpu": {CPU: 1}, "pagetable": {}, "queues": {Name: "absent"}, "pci": {}, "acpi": {},
		"memory": {Addr: 0xffff_8000_0000_0000, HasA: true},
	} {
		if _, err := m.Inspect(context.Background(), what, q); err == nil || err.Error() == "" {
			t.Errorf("%s %+v: no error", what, q)
		}
	}
	m.Stop(nil)
	if _, err := m.Inspect(context.Background(), "cpu", vmm.InspectQuery{}); err == nil {
		t.Error("a machine that has stopped was inspected")
	}
}

// A look that comes before Run waits for the CPUs and does not keep Run from
// making them.
func TestInspectBeforeTheStart(t *testing.T) {
	m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, []byte{0xeb, 0xfe}), Accel: acceltest.Of(t, acceltest.Soft)})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if _, err := m.Inspect(short, "cpu", vmm.InspectQuery{}); err == nil {
		t.Fatal("looked at a CPU that does not exist")
	}
	looked := make(chan error, 1)
	go func() {
		_, err := m.Inspect(ctx, "cpu", vmm.InspectQuery{})
		looked <- err
	}()
	time.Sleep(5 * time.Millisecond) // it waits by now
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	if err := <-looked; err != nil {
		t.Fatal(err)
	}
	m.Stop(nil)
	wantCause(t, <-ended, vmm.CauseStopped)
}
