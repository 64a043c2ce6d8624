//go:build linux

package vmm_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
)

// One guest under KVM is checked for all that depends on KVM: where KVM emulates
// guest kernels its boot takes seconds, and a MiB of data one.
func TestGuestUnderKVM(t *testing.T) {
	accel := acceltest.Only(t, acceltest.KVM, "other tests check the same with the software CPU")
	t.Parallel()
	n, netdev := userNetwork(t)
	file, content := rawFile(t, 1<<20)
	out := &lines{}
	g := bootGuest(t, vmm.Config{
		Accel: accel, Console: vmm.Serial{Out: out}, CommandLine: "quiet " + addressed(n),
		Devices: []virtio.Device{newDisk(t, disk.Options{Path: file, ID: "first"}), netdev},
	})
	probe := g.probe()
	t.Run("commands", func(t *testing.T) { checkCommands(t, g) })
	t.Run("memory", func(t *testing.T) { checkMemory(t, g, 128<<10) })
	t.Run("disk", func(t *testing.T) { checkDisk(t, g, file, content) })
	t.Run("serial port", func(t *testing.T) { checkConsole(t, g, "/dev/ttyS0", out, 6<<10) })
	t.Run("network", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		toHost := netip.AddrPortFrom(n.Gateway(), uint16(l.Addr().(*net.TCPAddr).Port))
		checkTCP(t, g, probe, 128<<10, l, toHost.String(), n.Published()[0].Host.String())
	})
	t.Run("AVX registers of two processes", func(t *testing.T) { checkAVX(t, g, probe) })
	t.Run("idle", func(t *testing.T) { checkIdle(t, g) })
	t.Run("power-off", func(t *testing.T) {
		go func() { _ = g.agent.PowerOff(t.Context()) }()
		if err := g.wait(); err != nil {
			t.Error(err)
		}
	})
}

// checkAVX: two processes on one CPU each keep their registers while the other
// has the CPU.
func checkAVX(t *testing.T, g *guest, probe string) {
	t.Helper()
	var wg sync.WaitGroup
	var outs [2]string
	for i := range outs {
		wg.Go(func() { outs[i], _, _ = g.exec(probe, "avx", fmt.Sprintf("0x%d1111111", i+1), "3s") })
	}
	wg.Wait()
	for _, out := range outs {
		var checks, corrupted, switches int
		if _, err := fmt.Sscanf(out, "checks %d corrupted %d switches %d", &checks, &corrupted, &switches); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		t.Logf("%d checks of 8 registers, %d switches", checks, switches)
		if corrupted != 0 || checks == 0 || switches == 0 {
			t.Errorf("%d registers in %d checks were not what they had been, over %d switches", corrupted, checks, switches)
		}
	}
}

// checkIdle: a guest that has nothing to do touches no device. Its timers are
// KVM's; where KVM emulates guest kernels, what the handlers of their interrupts
// need completed is all that brings a CPU out of KVM_RUN.
func checkIdle(t *testing.T, g *guest) {
	t.Helper()
	timers := func() (n int) {
		for line := range strings.Lines(g.must("cat", "/proc/interrupts")) {
			if _, err := fmt.Sscanf(strings.TrimSpace(line), "LOC: %d", &n); err == nil {
				return n
			}
		}
		t.Fatal("no LOC among the guest's interrupts")
		return 0
	}
	ticks := timers()
	time.Sleep(time.Second) // what the last command leaves behind
	before := g.m.CPUStats()[0].Exits
	time.Sleep(5 * time.Second)
	exits := make(map[string]uint64)
	for reason, n := range g.m.CPUStats()[0].Exits {
		if n -= before[reason]; n > 0 {
			exits[reason] = n
		}
	}
	ticks = timers() - ticks
	t.Logf("in 5 s of idleness: exits %v, at most %d interrupts of the timer", exits, ticks)
	for reason, n := range exits {
		most := uint64(5) // of a signal for all of this process
		// Instructions to complete, and the timer's deadlines, which are paced.
		if (reason == "internal-error" || reason == "wrmsr") && vmm.KernelsEmulated() {
			most = 100 * uint64(ticks)
		}
		if n > most {
			t.Errorf("%d exits by %s of an idle guest", n, reason)
		}
	}
}

// Several CPUs under KVM, which call each other.
func TestGuestCPUsUnderKVM(t *testing.T) {
	accel := acceltest.Only(t, acceltest.KVM, "it is about KVM's CPUs")
	t.Parallel()
	checkCPUs(t, bootGuest(t, vmm.Config{Accel: accel, CPUs: 4}), 4)
}
