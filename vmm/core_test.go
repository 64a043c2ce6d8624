package vmm_test

import (
	"context"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

func loadsOf(t *testing.T, path string) (size uint64) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Paddr == 0 && p.Vaddr != 0 {
			size += p.Filesz
		}
	}
	return size
}

// TestTripleFaultIsExplained: the report says why, and a core is written.
func TestTripleFaultIsExplained(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		path := filepath.Join(t.TempDir(), "core")
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, []byte{0x0f, 0x0b}), Accel: accel, CoreFile: path}) // ud2
		end := wantCause(t, runFor(t, m, time.Minute), vmm.CauseTripleFault)
		for _, want := range []string{"UD2", "no entry for vector 6", "64-bit mode", "0f 0b", "a core is in " + path} {
			if !strings.Contains(end.Detail, want) {
				t.Errorf("no %q in the report:\n%s", want, end.Detail)
			}
		}
		if n := loadsOf(t, path); n < 16<<20 {
			t.Errorf("%d bytes of memory in the core", n)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
	})
}

func TestCoreOfAPausedMachine(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, []byte{0xeb, 0xfe}), Accel: accel, CPUs: 2}) // jmp $
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		if err := m.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "core")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := m.WriteCore(f); err != nil {
			t.Fatal(err)
		}
		if n := loadsOf(t, path); n < 16<<20 {
			t.Errorf("%d bytes of memory in the core", n)
		}
	})
}

// TestInstructionThatNobodyCompletes ends the run with its bytes, where the
// host's emulator lacks it; elsewhere the guest goes on to its end.
func TestInstructionThatNobodyCompletes(t *testing.T) {
	code := append([]byte{0xc5, 0xf8, 0x58, 0xc1}, powerOff...) // vaddps xmm0, xmm0, xmm1
	accel := acceltest.Only(t, acceltest.KVM, "it is about what the host's emulator lacks")
	m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, code), Accel: accel})
	err := runFor(t, m, time.Minute)
	if err == nil {
		t.Log("the host executes it")
		return
	}
	end := wantCause(t, err, vmm.CauseFault)
	for _, want := range []string{"c5 f8 58 c1", "VEX-coded", "64-bit mode at CPL 0"} {
		if !strings.Contains(end.Detail, want) {
			t.Errorf("no %q in:\n%s", want, end.Detail)
		}
	}
}
