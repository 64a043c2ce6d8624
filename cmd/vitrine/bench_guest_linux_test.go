package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// usage is what a process has used, its busiest thread apart: that one executes
// the guest.
type usage struct {
	cpu    time.Duration // of the other threads
	wakes  int64         // their voluntary context switches: they slept and were woken
	guests int64         // those of the busiest
}

// usageOf reads /proc/PID/task (Linux Documentation/filesystems/proc.rst, and
// Documentation/scheduler/sched-stats.rst).
func usageOf(b *testing.B, pid int) map[string]threadUsage {
	b.Helper()
	dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(dirs) == 0 {
		b.Fatalf("threads of %d: %d, %v", pid, len(dirs), err)
	}
	all := make(map[string]threadUsage)
	for _, dir := range dirs {
		var u threadUsage
		stat, err1 := os.ReadFile(dir + "/schedstat")
		status, err2 := os.ReadFile(dir + "/status")
		if errors.Join(err1, err2) != nil {
			continue // it has ended
		}
		fmt.Sscan(string(stat), &u.cpu)
		if _, rest, ok := strings.Cut(string(status), "\nvoluntary_ctxt_switches:"); ok {
			fmt.Sscan(rest, &u.wakes)
		}
		all[filepath.Base(dir)] = u
	}
	return all
}

type threadUsage struct {
	cpu   time.Duration
	wakes int64
}

// between is what was used from one look to the next.
func between(before, after map[string]threadUsage) (u usage) {
	busiest := ""
	for id, t := range after {
		if busiest == "" || t.cpu > after[busiest].cpu {
			busiest = id
		}
	}
	for id, t := range after {
		was := before[id]
		if id == busiest {
			u.guests = t.wakes - was.wakes
			continue
		}
		u.cpu += t.cpu - was.cpu
		u.wakes += t.wakes - was.wakes
	}
	return u
}

// BenchmarkIdle is what VMMs do while their guests do nothing: how often threads
// beside the CPU's wake up in 10 seconds, how often the CPU's own, and the
// VMM's memory, its proportional share (PSS) without guest RAM.
func BenchmarkIdle(b *testing.B) {
	x := newBench(b)
	for _, r := range x.rivals(b) {
		b.Run(r.name, func(b *testing.B) {
			p := r.start(b, "job=idle")
			p.until("user space")
			time.Sleep(2 * settled)
			var wakes, guests, own, files []float64
			for range b.N {
				before := usageOf(b, p.cmd.Process.Pid)
				time.Sleep(10 * time.Second)
				u := between(before, usageOf(b, p.cmd.Process.Pid))
				wakes, guests = append(wakes, float64(u.wakes)), append(guests, float64(u.guests))
				all, file := ownMemory(b, p.cmd.Process.Pid)
				own, files = append(own, all), append(files, file)
			}
			b.ReportMetric(median(wakes), "wakeups/10s")
			b.ReportMetric(median(guests), "CPU-wakeups/10s")
			b.ReportMetric(median(own), "MiB-own")
			b.ReportMetric(median(files), "MiB-file")
			p.kill()
		})
	}
}

// ownMemory is a VMM's memory in MiB, and the part of it that are pages of
// files, above all the program's. The guest's RAM is the mapping that is as
// large.
func ownMemory(b *testing.B, pid int) (own, file float64) {
	b.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		b.Fatal(err)
	}
	files := map[uint64]bool{} // where mappings of files begin
	for line := range strings.Lines(string(smaps)) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 && strings.Contains(line, "/") {
			files[from] = true
		}
	}
	isRAM := func(from, to uint64) bool { return to-from >= benchRAM && to-from < benchRAM*3/2 }
	s, err1 := sumMappings(bytes.NewReader(smaps), isRAM)
	f, err2 := sumMappings(bytes.NewReader(smaps), func(from, to uint64) bool { return files[from] && !isRAM(from, to) })
	if err := errors.Join(err1, err2); err != nil {
		b.Fatal(err)
	}
	if s.GuestPSS == 0 {
		b.Fatal("none of its mappings is guest RAM")
	}
	return float64(s.Own) / (1 << 20), float64(f.GuestPSS) / (1 << 20)
}

// BenchmarkGuestReads has a Linux guest read 8 MiB from a disk past its page
// cache, by 1 MiB and by 4 KiB: the time of one read, of which most is the guest
// kernel's, and what it costs the VMM's threads beside the CPU's, in processor
// time and system calls.
func BenchmarkGuestReads(b *testing.B) {
	x := newBench(b)
	rs := x.rivals(b)
	_, noStrace := exec.LookPath("strace")
	if noStrace != nil {
		b.Log("system calls are not counted: strace is not on PATH")
	}
	for _, size := range []int{1 << 20, 4 << 10} {
		for _, r := range rs {
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, r.name), func(b *testing.B) {
				n, slow := 8<<20/size, r.accel == "kvm" && vmm.KernelsEmulated()
				if slow {
					n = min(n, 256)
				}
				var took, cpu []time.Duration
				for range b.N {
					t, u := readsOf(b, r, size, n)
					took, cpu = append(took, t/time.Duration(n)), append(cpu, u.cpu/time.Duration(n))
				}
				b.ReportMetric(float64(median(took))/1e3, "µs/read")
				b.ReportMetric(float64(median(cpu))/1e3, "VMM-µs/read")
				// Where KVM emulates the guest's kernel, most are those that
				// complete instructions.
				if noStrace == nil && !slow {
					b.ReportMetric(float64(callsOf(b, r, size, n)-callsOf(b, r, size, 0))/float64(n), "syscalls/read")
				}
			})
		}
	}
}

// readsOf boots a guest that does n reads.
func readsOf(b *testing.B, r rival, size, n int) (time.Duration, usage) {
	b.Helper()
	p := r.start(b, fmt.Sprintf("job=read size=%d count=%d hold=1", size, n))
	defer p.kill()
	begin := p.until("begin")
	before := usageOf(b, p.cmd.Process.Pid)
	done := p.until("done")
	return done - begin, between(before, usageOf(b, p.cmd.Process.Pid))
}

// callsOf is the number of system calls of a whole run with n reads.
func callsOf(b *testing.B, r rival, size, n int) int {
	b.Helper()
	file := filepath.Join(b.TempDir(), "calls")
	args := r.args
	r.args = func(job string) []string {
		return append([]string{"strace", "-f", "-c", "-U", "calls", "-o", file}, args(job)...)
	}
	r.start(b, fmt.Sprintf("job=read size=%d count=%d", size, n)).toEnd()
	out, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if number, ok := strings.CutSuffix(strings.TrimSpace(line), " total"); ok {
			total, err := strconv.Atoi(number)
			if err != nil {
				b.Fatal(err)
			}
			return total
		}
	}
	b.Fatalf("no sum in %q", out)
	return 0
}
