package vmm_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// accelerators are those that a test of the machine runs with. A test that
// cannot run with KVM says so.
func accelerators(t *testing.T, f func(t *testing.T, accel string)) {
	t.Helper()
	acceltest.Each(t, f)
}

func newMachine(t testing.TB, cfg vmm.Config) *vmm.Machine {
	t.Helper()
	if cfg.Memory == 0 {
		cfg.Memory = 16 << 20
	}
	m, err := vmm.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func runFor(t testing.TB, m *vmm.Machine, limit time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return m.Run(ctx)
}

func wantCause(t *testing.T, err error, cause vmm.Cause) *vmm.StopError {
	t.Helper()
	var stop *vmm.StopError
	if !errors.As(err, &stop) || stop.Cause != cause {
		t.Fatalf("ended with %v; want %v", err, cause)
	}
	return stop
}

func TestGuestTurnsItselfOff(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, powerOff), Accel: accel})
		if err := runFor(t, m, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, ok := m.Timings().At(vmm.PhaseFirstRun); !ok {
			t.Error("no time of the first KVM_RUN")
		}
	})
}

func TestGuestSpeaksOnTheSerialPort(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		var out bytes.Buffer
		code := []byte{0xba, 0xf8, 0x03, 0, 0} // mov edx, 0x3f8
		for _, c := range []byte("hello") {
			code = append(code, 0xb0, c, 0xee) // mov al, c; out dx, al
		}
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, append(code, powerOff...)), Accel: accel,
			Console: vmm.Serial{Out: &out}})
		if err := runFor(t, m, time.Minute); err != nil || out.String() != "hello" {
			t.Fatalf("%q, %v", out.String(), err)
		}
	})
}

// rep outsb hands over several bytes in one exit: the data advance, the port
// does not.
func TestGuestStringOutput(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		var out bytes.Buffer
		code := []byte{
			0x48, 0x8d, 0x35, 0, 0, 0, 0, // lea rsi, [rip+text]
			0xb9, 5, 0, 0, 0, // mov ecx, 5
			0xba, 0xf8, 0x03, 0, 0, // mov edx, 0x3f8
			0xfc, 0xf3, 0x6e, // cld; rep outsb
		}
		code = append(code, powerOff...)
		binary.LittleEndian.PutUint32(code[3:], uint32(len(code)-7))
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, append(code, "abcde"...)), Accel: accel,
			Console: vmm.Serial{Out: &out}})
		if err := runFor(t, m, time.Minute); err != nil || out.String() != "abcde" {
			t.Fatalf("%q, %v", out.String(), err)
		}
	})
}

func TestGuestResetsByTheKeyboardController(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		code := []byte{0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe} // mov al, 0xfe; out 0x64, al; jmp $
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, code), Accel: accel})
		wantCause(t, runFor(t, m, time.Minute), vmm.CauseReboot)
	})
}

// TestGuestResetsByTheResetVector: what a BIOS would begin with resets the machine. Its code
// means the same in 64-bit mode.
func TestGuestResetsByTheResetVector(t *testing.T) {
	code := []byte{
		0xb8, 0xf0, 0xff, 0x0f, 0x00, // mov eax, 0xffff0
		0xff, 0xe0, // jmp rax
	}
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, code), Accel: accel})
		wantCause(t, runFor(t, m, time.Minute), vmm.CauseReboot)
	})
}

func TestGuestTripleFault(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, []byte{
			0x0f, 0x01, 0x1c, 0x25, 0, 0, 0, 0, // lidt [0]: limit and base are what lies there
			0x0f, 0x0b, // ud2
		}), Accel: accel})
		stop := wantCause(t, runFor(t, m, time.Minute), vmm.CauseTripleFault)
		if stop.RIP == 0 || stop.Detail == "" {
			t.Fatalf("not explained: %+v", stop)
		}
	})
}

func TestGuestReportsAPanic(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		code := []byte{0xba, 0x05, 0x05, 0, 0, 0xb0, 0x01, 0xee, 0xeb, 0xfe} // pvpanic
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, code), Accel: accel})
		wantCause(t, runFor(t, m, time.Minute), vmm.CausePanic)
	})
}

func TestGuestThatSpinsIsStopped(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, []byte{0xeb, 0xfe}), Accel: accel})
		wantCause(t, runFor(t, m, 50*time.Millisecond), vmm.CauseStopped)
	})
}

// A guest that counts in memory stands still while it is paused, and goes on.
func TestGuestPausesAndResumes(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		const at = 0x10_4000
		m := newMachine(t, vmm.Config{Accel: accel, Kernel: tinyKernel(t, []byte{
			0xff, 0x04, 0x25, 0x00, 0x40, 0x10, 0x00, // inc dword [0x104000]
			0xeb, 0xf7, // jmp back
		})})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		count := func() uint32 {
			v, err := m.Memory().LoadUint32(at)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		moves := func(from uint32) {
			for count() == from {
				if ctx.Err() != nil {
					t.Fatal("the guest does not run")
				}
				time.Sleep(time.Millisecond)
			}
		}
		moves(0)
		for range 3 {
			if err := m.Pause(ctx); err != nil {
				t.Fatal(err)
			}
			if err := m.Pause(ctx); err == nil {
				t.Fatal("paused twice")
			}
			before := count()
			var rip uint64
			if err := m.OnCPU(0, func(c vmm.VCPU) error {
				r, err := c.Regs()
				rip = r.RIP
				return err
			}); err != nil || rip < 1<<20 {
				t.Fatalf("rip %#x, %v", rip, err)
			}
			if after := count(); after != before {
				t.Fatalf("moved from %d to %d while paused", before, after)
			}
			if err := m.Resume(); err != nil {
				t.Fatal(err)
			}
			moves(before)
		}
		cancel()
		wantCause(t, <-ended, vmm.CauseStopped)
		if err := m.Pause(context.Background()); err == nil {
			t.Fatal("paused a machine that has stopped")
		}
	})
}

func TestGuestIsObserved(t *testing.T) {
	accelerators(t, func(t *testing.T, accel string) {
		code := append([]byte{0xba, 0xf8, 0x03, 0, 0, 0xb0, 'H', 0xee}, powerOff...)
		m := newMachine(t, vmm.Config{Kernel: tinyKernel(t, code), Accel: accel})
		session := m.Observe(64)
		defer m.Unobserve()
		if err := runFor(t, m, time.Minute); err != nil {
			t.Fatal(err)
		}
		events := session.NewMerger().Drain(nil, 100)
		if len(events) != 2 {
			t.Fatalf("%d events, want 2: %+v", len(events), events)
		}
		e := events[0]
		if e.Kind != trace.KindIO || e.Addr != 0x3f8 || !e.Write || e.Value != 'H' || e.Size != 1 || e.RIP < 1<<20 {
			t.Errorf("first event %+v", e)
		}
	})
}

func TestConfigMistakes(t *testing.T) {
	kernel := tinyKernel(t, powerOff)
	for name, cfg := range map[string]vmm.Config{
		"no kernel":         {},
		"missing kernel":    {Kernel: "/nonexistent"},
		"not a kernel":      {Kernel: "machine_test.go"},
		"too many CPUs":     {Kernel: kernel, CPUs: 33},
		"memory not paged":  {Kernel: kernel, Memory: 16<<20 + 1},
		"too little memory": {Kernel: kernel, Memory: 4096},
		"unknown accel":     {Kernel: kernel, Accel: "tcg"},
		"unknown transport": {Kernel: kernel, Transport: "isa"},
		"missing initrd":    {Kernel: kernel, Initrd: "/nonexistent"},
	} {
		if cfg.Accel == "" {
			cfg.Accel = acceltest.Of(t, acceltest.Soft)
		}
		if m, err := vmm.New(cfg); err == nil {
			m.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// BenchmarkPortIO is an exit by port I/O through the run loop and a device,
// and back into the guest.
func BenchmarkPortIO(b *testing.B) {
	for _, accel := range []string{"kvm", "soft"} {
		b.Run(accel, func(b *testing.B) {
			if _, err := os.Stat("/dev/kvm"); accel == "kvm" && err != nil {
				b.Skip(err)
			}
			code := []byte{0xb9, 0, 0, 0, 0, 0xba, 0x05, 0x06, 0, 0, // mov ecx, n; mov edx, 0x605
				0xee, 0xff, 0xc9, 0x75, 0xfb} // out dx, al; dec ecx; jnz back
			binary.LittleEndian.PutUint32(code[1:], uint32(b.N))
			m := newMachine(b, vmm.Config{Kernel: tinyKernel(b, append(code, powerOff...)), Accel: accel})
			b.ReportAllocs()
			b.ResetTimer()
			if err := runFor(b, m, 10*time.Minute); err != nil {
				b.Fatal(err)
			}
		})
	}
}
