package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// usage is what a process has used, its busiest thread apart: that one executes
// the guest.
type usage struct {
	cpu    time.Duration // of the other threads
	guest  time.Duration // of the busiest
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
			u.guest, u.guests = t.cpu-was.cpu, t.wakes-was.wakes
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
				all, file := ownMemory(b, p.cmd.Process.Pid, x.kernel)
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
// large, or all of it around the kernel's file, mapped where it loads.
func ownMemory(b *testing.B, pid int, kernel string) (own, file float64) {
	b.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		b.Fatal(err)
	}
	const loaded = 16 << 20    // the kernel's first segment, physical
	files := map[uint64]bool{} // where mappings of files begin
	var ram uint64             // where RAM begins, if the kernel says so
	for line := range strings.Lines(string(smaps)) {
		var from, to uint64
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 && strings.Contains(line, "/") {
			files[from] = true
			if ram == 0 && strings.HasSuffix(line, kernel+"\n") {
				ram = from - loaded
			}
		}
	}
	isRAM := func(from, to uint64) bool {
		if ram != 0 {
			return from >= ram && to <= ram+benchRAM
		}
		return to-from >= benchRAM && to-from < benchRAM*3/2
	}
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

// BenchmarkGuestReads has a Linux guest read a disk of 8 MiB past its page
// cache, by 1 MiB and by 4 KiB: the time of one read, of which most is the guest
// kernel's, and what it costs in processor time, of the thread of the guest's
// CPU and of the VMM's others, and in system calls of all of them.
func BenchmarkGuestReads(b *testing.B) {
	x := newBench(b)
	rs := x.rivals(b)
	_, noStrace := exec.LookPath("strace")
	if noStrace != nil {
		b.Log("system calls are not counted: strace is not on PATH")
	}
	var names []string
	for _, r := range rs {
		names = append(names, r.name)
	}
	for _, size := range []int{1 << 20, 4 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			took, cpu, vmms := map[string][]time.Duration{}, map[string][]time.Duration{}, map[string][]time.Duration{}
			calls := map[string][]float64{}
			for range b.N {
				for _, r := range rs {
					n, slow := max(8<<20/size, 256), r.accel == "kvm" && vmm.KernelsEmulated()
					if slow {
						n = min(8<<20/size, 256)
					}
					t, u := readsOf(b, r, size, n)
					took[r.name] = append(took[r.name], t/time.Duration(n))
					cpu[r.name] = append(cpu[r.name], u.guest/time.Duration(n))
					vmms[r.name] = append(vmms[r.name], u.cpu/time.Duration(n))
					// Where KVM emulates the guest's kernel, most are those that
					// complete instructions.
					if noStrace == nil && !slow {
						calls[r.name] = append(calls[r.name], float64(callsOf(b, r, size, n))/float64(n))
					}
				}
			}
			report(b, "µs/read", time.Microsecond, names, took)
			report(b, "CPU-µs/read", time.Microsecond, names, cpu)
			report(b, "VMM-µs/read", time.Microsecond, names, vmms)
			report(b, "syscalls/read", 1, names, calls)
		})
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

// callsOf is the number of system calls during n reads.
func callsOf(b *testing.B, r rival, size, n int) int {
	b.Helper()
	file := filepath.Join(b.TempDir(), "calls")
	args := r.args
	r.args = func(job string) []string {
		return append([]string{"strace", "-f", "-o", file}, args(job)...)
	}
	r.start(b, fmt.Sprintf("job=read size=%d count=%d", size, n)).toEnd()
	out, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	calls, ok := callsBetween(string(out), "begin", "done")
	if !ok {
		b.Fatalf("the guest's lines are not in what strace wrote, which ends with %q", out[max(0, len(out)-500):])
	}
	return calls
}

// callsBetween counts system calls in a log of strace -f, from the one that puts
// out the end of the line from to the one that puts out the end of the line to.
func callsBetween(log, from, to string) (n int, ok bool) {
	said, begun := "", false
	for line := range strings.Lines(log) {
		if text, found := written(line); found {
			said += text
			switch {
			case !begun && strings.HasSuffix(said, from+`\r\n`):
				begun, said = true, ""
				continue
			case begun && strings.HasSuffix(said, to+`\r\n`):
				return n, true
			}
		}
		// The second half of a call during which others were seen is one with
		// the first; signals and ends of threads are no calls.
		if begun && !strings.Contains(line, " resumed>") && !strings.Contains(line, " --- ") && !strings.Contains(line, " +++ ") {
			n++
		}
	}
	return 0, false
}

// written is what a line of strace's says that was written to standard output,
// as strace prints it.
func written(line string) (text string, ok bool) {
	for _, call := range []string{` write(1, "`, ` writev(1, [{iov_base="`} {
		if _, rest, found := strings.Cut(line, call); found {
			text, _, ok = strings.Cut(rest, `"`)
			return text, ok
		}
	}
	return "", false
}

func TestCallsBetween(t *testing.T) {
	const log = `10 write(1, "be", 2) = 2
10 read(3, "begin\r\n", 4096) = 7
11 write(1, "gin\r\n", 5 <unfinished ...>
10 futex(0x1, FUTEX_WAIT, 0, NULL <unfinished ...>
11 <... write resumed>) = 5
12 --- SIGURG {si_signo=SIGURG} ---
11 preadv2(6, [{iov_base="done\r\n", iov_len=6}], 1, 0, 0) = 6
12 +++ exited with 0 +++
10 <... futex resumed>) = 0
11 writev(1, [{iov_base="done\r\n", iov_len=6}], 1) = 6
10 exit_group(0) = ?
`
	if n, ok := callsBetween(log, "begin", "done"); n != 2 || !ok {
		t.Errorf("%d calls, %v; want 2", n, ok)
	}
	if n, ok := callsBetween(log, "begin", "never"); ok {
		t.Errorf("%d calls up to what was not said", n)
	}
}
