//go:build linux && amd64

package kvm

import (
	"errors"
	"io"
	"io/fs"
	"runtime"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// openKVM opens /dev/kvm, or skips where there is none.
func openKVM(t testing.TB) *System {
	t.Helper()
	s, err := Open()
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("SKIP-NO-KVM: /dev/kvm is missing; tests of the machine need it")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// realMode starts code at 0x1000 in real mode on a VM of its own. The test's
// goroutine becomes the vCPU's.
func realMode(t testing.TB, code []byte) (*VM, *VCPU, *memory.Guest) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	sys := openKVM(t)
	vm, err := sys.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vm.Close() })
	mem, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := mem.WriteAt(code, 0x1000); err != nil {
		t.Fatal(err)
	}
	if err := vm.MapMemory(mem); err != nil {
		t.Fatal(err)
	}
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		t.Fatal(err)
	}
	c, err := vm.CreateVCPU(0, cpuid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	s, err := c.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.CS.Base, s.CS.Selector = 0, 0
	if err := c.SetSregs(&s); err != nil {
		t.Fatal(err)
	}
	if err := c.SetRegs(&x86.Regs{RIP: 0x1000, RSP: 0x8000, RFLAGS: x86.Flag1}); err != nil {
		t.Fatal(err)
	}
	return vm, c, mem
}

// next runs until an exit that is not a signal.
func next(t testing.TB, c *VCPU) x86.Exit {
	t.Helper()
	for {
		x, err := c.Run()
		if err != nil {
			t.Fatal(err)
		}
		if x.Reason != x86.ExitInterrupted {
			return x
		}
	}
}

func TestRunPortIO(t *testing.T) {
	_, c, _ := realMode(t, []byte{
		0xb0, 0x41, // mov al, 'A'
		0xe6, 0x80, // out 0x80, al
		0xe5, 0x84, // in ax, 0x84
		0xef, // out dx, ax (dx = 0)
	})

	out := next(t, c)
	if out.Reason != x86.ExitIO || !out.Write || out.Port != 0x80 || out.Size != 1 || out.Count != 1 || out.Data[0] != 'A' {
		t.Fatalf("out: %+v", out)
	}
	in := next(t, c)
	if in.Write || in.Port != 0x84 || in.Size != 2 {
		t.Fatalf("in: %+v", in)
	}
	in.Data[0], in.Data[1] = 0x34, 0x12
	echo := next(t, c)
	if echo.Port != 0 || echo.Data[0] != 0x34 || echo.Data[1] != 0x12 {
		t.Fatalf("the guest read %x", echo.Data)
	}
}

func TestRunMMIO(t *testing.T) {
	_, c, _ := realMode(t, []byte{
		0xb8, 0x00, 0xff, // mov ax, 0xff00
		0x8e, 0xd8, // mov ds, ax
		0xa0, 0xff, 0xff, // mov al, [0xffff]: 0x10efff, past the 1 MiB of RAM
		0xa2, 0xfe, 0xff, // mov [0xfffe], al
	})

	load := next(t, c)
	if load.Reason != x86.ExitMMIO || load.Write || load.Addr != 0x10efff || load.Size != 1 {
		t.Fatalf("load: %+v", load)
	}
	load.Data[0] = 0x5a
	store := next(t, c)
	if !store.Write || store.Addr != 0x10effe || store.Data[0] != 0x5a {
		t.Fatalf("store: %+v", store)
	}
}

func TestRegistersThroughSharedPageAndIoctlAgree(t *testing.T) {
	_, c, _ := realMode(t, []byte{0xe6, 0x80, 0xe6, 0x80, 0xe6, 0x80, 0xe6, 0x80})
	next(t, c)
	plain, err := c.Regs()
	if err != nil {
		t.Fatal(err)
	}

	c.syncCredit = 2
	next(t, c)
	if !c.synced {
		t.Fatal("registers are not in the shared page")
	}
	synced, _ := c.Regs()
	if want := plain.RIP + 2; synced.RIP != want {
		t.Fatalf("RIP %#x in the shared page, want %#x", synced.RIP, want)
	}
	synced.RAX = 0x77
	if err := c.SetRegs(&synced); err != nil {
		t.Fatal(err)
	}
	if x := next(t, c); x.Data[0] != 0x77 {
		t.Fatalf("AL %#x after a change in the shared page, want 0x77", x.Data[0])
	}
	next(t, c)
	if c.synced {
		t.Fatal("the shared page is still in use after its credit ran out")
	}
}

func TestKickEndsARunThatNeverExits(t *testing.T) {
	_, c, _ := realMode(t, []byte{0xeb, 0xfe}) // jmp $
	go func() {
		time.Sleep(20 * time.Millisecond)
		if err := c.Kick(); err != nil {
			t.Error(err)
		}
	}()

	for {
		x, err := c.Run()
		if err != nil {
			t.Fatal(err)
		}
		if x.Reason != x86.ExitInterrupted {
			t.Fatalf("exit %v", x.Reason)
		}
		if !c.moved.Load() && c.run.immediateExit == 0 {
			return
		}
	}
}

func TestKickBeforeRunIsNotLost(t *testing.T) {
	_, c, _ := realMode(t, []byte{0xeb, 0xfe})
	if err := c.Kick(); err != nil {
		t.Fatal(err)
	}
	if x, err := c.Run(); err != nil || x.Reason != x86.ExitInterrupted {
		t.Fatalf("exit %v, error %v", x.Reason, err)
	}
}

func TestMSIRoutesKeepTheLines(t *testing.T) {
	vm, _, _ := realMode(t, []byte{0xf4})
	m, err := vm.NewMSI()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Set(0xfee00000, 0x4041); err != nil {
		t.Fatal(err)
	}
	if err := m.Fire(); err != nil {
		t.Fatal(err)
	}
	irq, err := vm.Line(4)
	if err != nil {
		t.Fatal(err)
	}
	if err := irq(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestDoorbellRingsWithoutExit(t *testing.T) {
	vm, c, _ := realMode(t, []byte{0xb0, 0x03, 0xe6, 0x90, 0xb0, 0x04, 0xe6, 0x90, 0xe6, 0x91})
	match := uint64(3)
	bell, ok, err := vm.Doorbell(true, 0x90, 1, &match)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}

	x := next(t, c)
	if err := bell.Wait(); err != nil {
		t.Fatal(err)
	}
	if x.Port != 0x90 || x.Data[0] != 4 {
		t.Fatalf("exit %+v, want the write that does not match", x)
	}
}

func TestDoorbellThatIsClosedLeavesItsAddress(t *testing.T) {
	vm, c, _ := realMode(t, []byte{0xe6, 0x90}) // out 0x90, al
	for range 2 {                               // the address is free again
		bell, _, err := vm.Doorbell(true, 0x90, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := bell.(io.Closer).Close(); err != nil {
			t.Fatal(err)
		}
	}
	if x := next(t, c); x.Port != 0x90 {
		t.Fatalf("exit %+v, want the write to port 0x90", x)
	}
}

func TestDirtyLog(t *testing.T) {
	vm, c, _ := realMode(t, []byte{0xa2, 0x00, 0x50, 0xe6, 0x80}) // mov [0x5000], al; out
	if err := vm.SetDirtyLog(true); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	d := memory.NewDirty(1 << 20)
	if err := vm.DirtyPages(d); err != nil {
		t.Fatal(err)
	}
	if !d.Has(0x5000) || d.Has(0x6000) {
		t.Fatalf("dirty: page 5 %v, page 6 %v, want only page 5", d.Has(0x5000), d.Has(0x6000))
	}
}

func BenchmarkPortIO(b *testing.B) {
	_, c, _ := realMode(b, []byte{0xe6, 0x11, 0xeb, 0xfc}) // out 0x11, al; jmp
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Run(); err != nil {
			b.Fatal(err)
		}
	}
}
