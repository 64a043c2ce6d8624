package vmm_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// dirties is a guest that fills 16 MiB from 2 MiB on and then spins.
var dirties = []byte{
	0xbf, 0, 0, 0x20, 0, // mov edi, 0x200000
	0xb9, 0, 0, 0x40, 0, // mov ecx, 0x400000
	0xb8, 1, 1, 1, 1, // mov eax, 0x01010101
	0xf3, 0xab, // rep stosd
	0xff, 0x04, 0x25, 0, 0, 0x10, 0, // inc dword [0x100000]
	0xeb, 0xf7, // jmp back
}

func dirtyGuest(b testing.TB) *running {
	r := startNew(b, vmm.Config{Kernel: tinyKernel(b, dirties), Accel: acceltest.Of(b, acceltest.Soft), Memory: 256 << 20})
	for begun, _ := r.Memory().LoadUint32(0x100000); ; time.Sleep(time.Millisecond) {
		if v, _ := r.Memory().LoadUint32(0x100000); v != begun {
			return r
		}
	}
}

// BenchmarkSave is a whole snapshot of a guest of 256 MiB that has written
// 16; ms-paused is how long it stood.
func BenchmarkSave(b *testing.B) {
	r := dirtyGuest(b)
	defer r.stop()
	dir := filepath.Join(b.TempDir(), "s")
	var paused time.Duration
	for b.Loop() {
		paused += save(b, r.Machine, dir, vmm.SaveOptions{Volatile: true}).Paused
	}
	b.ReportMetric(float64(paused.Microseconds())/1000/float64(b.N), "ms-paused")
}

// BenchmarkRestore is from opening a snapshot of that guest to the moment in
// which its CPU runs.
func BenchmarkRestore(b *testing.B) {
	r := dirtyGuest(b)
	dir := filepath.Join(b.TempDir(), "s")
	save(b, r.Machine, dir, vmm.SaveOptions{})
	r.stop()
	for b.Loop() {
		r := startSaved(b, dir)
		for {
			if _, runs := r.Timings().At(vmm.PhaseFirstRun); runs {
				break
			}
			time.Sleep(10 * time.Microsecond)
		}
		r.stop()
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
