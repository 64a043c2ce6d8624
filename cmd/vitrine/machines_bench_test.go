//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// BenchmarkTwentyIdleGuests is the price of guests that do nothing: the host's
// processor time of all together, and the memory of each beside the guest's.
func BenchmarkTwentyIdleGuests(b *testing.B) {
	accel := "soft"
	// Where KVM emulates guest kernels, twenty of them boot for minutes.
	if _, err := os.Stat("/dev/kvm"); err == nil && !vmm.KernelsEmulated() {
		accel = "kvm"
	}
	dir := newState(b)
	var pids []int
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range 20 {
		wg.Go(func() {
			name := fmt.Sprintf("idle%02d", i)
			status, _, stderr := command("run", "--detach", "--accel", accel, "--memory", "128M", "--name", name)
			if status == 0 {
				status, _, stderr = command("exec", name, "true")
			}
			if status != 0 {
				b.Errorf("%s: %s", name, stderr)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(time.Since(begin).Seconds()/20, "s/start")
	time.Sleep(2 * settled)
	for i := range 20 {
		pids = append(pids, recordOf(b, dir, fmt.Sprintf("idle%02d", i)).PID)
	}
	// Machines that are asked do something: the host is asked instead.
	before := cpuOf(b, pids)
	b.ResetTimer()
	for range b.N {
		time.Sleep(5 * time.Second)
	}
	b.StopTimer()
	cpu, span := cpuOf(b, pids)-before, b.Elapsed()
	var own, guest uint64
	for _, s := range statsOfAll(b) {
		own, guest = max(own, s.Memory.Own), max(guest, s.Memory.GuestPSS)
	}
	b.ReportMetric(100*float64(cpu)/float64(span), "%CPU-of-all")
	b.ReportMetric(float64(own)/(1<<20), "MiB-own-max")
	b.ReportMetric(float64(guest)/(1<<20), "MiB-guest-max")
}

// cpuOf is the processor time of all threads of processes (Linux
// Documentation/scheduler/sched-stats.rst).
func cpuOf(b *testing.B, pids []int) (sum time.Duration) {
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || threads == nil {
			b.Fatalf("process %d: no threads, %v", pid, err)
		}
		for _, path := range threads {
			text, _ := os.ReadFile(path)
			var ns int64
			if _, err := fmt.Sscan(string(text), &ns); err != nil {
				b.Skipf("%s: %v: the kernel keeps no such statistics", path, err)
			}
			sum += time.Duration(ns)
		}
	}
	return sum
}

func statsOfAll(b *testing.B) map[string]control.Stats {
	all := make(map[string]control.Stats)
	for line := range strings.Lines(want(b, "stats", "--json")) {
		var s struct {
			Name string
			control.Stats
		}
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			b.Fatal(err)
		}
		all[s.Name] = s.Stats
	}
	return all
}

// BenchmarkPS50 lists fifty machines, from the command line to the table.
func BenchmarkPS50(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "run")
	b.Setenv("VITRINE_STATE", dir)
	d, err := control.OpenDir(dir)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 50 {
		c, err := d.Claim(fmt.Sprintf("m%02d", i))
		if err != nil {
			b.Fatal(err)
		}
		defer c.Release()
		if err := c.Update(func(r *control.Record) { r.State = control.StateRunning }); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	for range b.N {
		if n := strings.Count(want(b, "ps"), "\n"); n != 51 {
			b.Fatalf("%d lines", n)
		}
	}
}
