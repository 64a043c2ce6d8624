package compare

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// agreement is how far an independent measurement may be from ours.
const agreement = 0.10

// hyperfineSlack is below what hyperfine itself warns that its results may be
// inaccurate.
const hyperfineSlack = 0.005

// agree measures in turn, ours and the other, until the medians of all runs so
// far agree; a busy host only makes that take longer. It fails when they still
// differ after the last turn.
func agree(t *testing.T, what string, turns int, slack float64, measure func() (ours, others []float64)) {
	t.Helper()
	var ours, others []float64
	for turn := range turns {
		a, b := measure()
		ours, others = append(ours, a...), append(others, b...)
		x, y := medianOf(ours), medianOf(others)
		t.Logf("%s, turn %d: ours %.4g, the other %.4g, %+.1f %%", what, turn+1, x, y, 100*(x/y-1))
		if math.Abs(x-y) <= max(agreement*y, slack) && turn >= 2 {
			return
		}
	}
	t.Errorf("%s: the medians of %d and %d runs differ by more than %.0f %%", what, len(ours), len(others), 100*agreement)
}

// agreeing are the engines whose figures are compared with others' tools.
func agreeing(t *testing.T, test func(t *testing.T, c *comparison)) {
	for _, e := range []Engine{&process{}, &oci{name: "runc", title: "runc"}} {
		t.Run(e.Info().Name, func(t *testing.T) {
			cfg := &Config{Runs: 1, Timeout: time.Minute, Budget: time.Minute}
			site, err := newSite(cfg)
			if err != nil {
				t.Fatal(err)
			}
			c := newTestComparison(t, cfg, site, e)
			defer func() {
				if err := c.close(); err != nil {
					t.Error(err)
				}
				checkNothingLeft(t, site)
			}()
			if err := e.Prepare(t.Context(), site); err != nil {
				t.Skipf("does not work here: %v", err)
			}
			test(t, c)
		})
	}
}

// TestStartToExitAgrees compares the time from start to exit with hyperfine's, of
// a program that ends at once, and of one that works for long enough that
// hyperfine has no doubts.
func TestStartToExitAgrees(t *testing.T) {
	hyperfine, err := exec.LookPath("hyperfine")
	if err != nil {
		t.Skip("hyperfine is not on PATH")
	}
	agreeing(t, func(t *testing.T, c *comparison) {
		for _, j := range []struct {
			job   Job
			runs  int
			slack float64
		}{{Job{List: "-"}, 10, hyperfineSlack}, {Job{List: "cpu,cpu"}, 2, 0}} {
			agree(t, j.job.List+": start to exit, seconds", 80, j.slack, func() (ours, others []float64) {
				for range j.runs {
					in, _, err := c.once(t.Context(), c.engines[0], j.job)
					if err != nil {
						t.Fatal(err)
					}
					ours = append(ours, in.ended.Sub(in.began).Seconds())
				}
				return ours, timesByHyperfine(t, hyperfine, c, j.job, j.runs)
			})
		}
	})
}

func timesByHyperfine(t *testing.T, hyperfine string, c *comparison, job Job, runs int) []float64 {
	t.Helper()
	e, id, out := c.engines[0].engine, c.site.id("hyperfine", 1), filepath.Join(t.TempDir(), "times.json")
	cmd := e.Command(id, job)
	h := exec.Command(hyperfine, "--shell=none", "--style=none", "--output=pipe", "--runs", fmt.Sprint(runs), "--export-json", out,
		strings.Join(append([]string{cmd.Path}, cmd.Args[1:]...), " "))
	h.Dir = cmd.Dir
	// Ours is in a control group of its own, as a container is under either, and
	// so has a part of busy processors for itself; that is what sessions have too.
	_, plain := e.(*process)
	h.SysProcAttr = &syscall.SysProcAttr{Setsid: plain}
	if b, err := h.CombinedOutput(); err != nil {
		t.Fatalf("hyperfine: %v: %s", err, b)
	}
	if err := e.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	return hyperfineTimes(t, out)
}

func hyperfineTimes(t *testing.T, file string) []float64 {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Results []struct{ Times []float64 } }
	if err := json.Unmarshal(b, &all); err != nil || len(all.Results) != 1 || len(all.Results[0].Times) == 0 {
		t.Fatalf("hyperfine wrote %s (%v)", b, err)
	}
	return all.Results[0].Times
}

// TestMemoryAgrees compares the memory of an instance with what the kernel sums
// up itself: smaps_rollup of the processes that ps and the cgroup name, and the
// cgroup's own files.
func TestMemoryAgrees(t *testing.T) {
	agreeing(t, func(t *testing.T, c *comparison) {
		in := startIdle(t, c)
		defer in.kill()
		time.Sleep(settle)
		agree(t, "memory, bytes", 10, 0, func() (ours, others []float64) {
			ours = []float64{float64(c.memory(c.engines[0], []*instance{in}).Total())}
			return ours, []float64{float64(memoryByKernel(t, in.cmd.Process.Pid))}
		})
	})
}

// memoryByKernel sums up the process tree below pid.
func memoryByKernel(t *testing.T, pid int) (sum uint64) {
	t.Helper()
	charged := make(map[string]bool)
	var own string
	for _, p := range append(tree(t, pid), os.Getpid()) {
		dir := "/proc/" + strconv.Itoa(p)
		group := memoryGroup(t, dir)
		if p == os.Getpid() {
			own = group
			continue
		}
		charged[group] = true
		sum += field(t, dir+"/smaps_rollup", "Pss:")<<10 + field(t, dir+"/status", "VmPTE:")<<10
	}
	delete(charged, own)
	for g := range charged {
		if b, err := os.ReadFile(g + "/memory.kmem.usage_in_bytes"); err == nil {
			n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		} else {
			sum += field(t, g+"/memory.stat", "kernel ")
		}
	}
	return sum
}

// tree is what ps says are a process and its descendants.
func tree(t *testing.T, pid int) []int {
	t.Helper()
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		out, _ := exec.Command("ps", "-o", "pid=", "--ppid", strconv.Itoa(all[i])).Output() // status 1: no child
		for _, f := range strings.Fields(string(out)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatalf("ps wrote %q", out)
			}
			all = append(all, n)
		}
	}
	return all
}

// memoryGroup is the folder of the cgroup that a process's memory is charged to.
func memoryGroup(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, path, ok := strings.Cut(line, ":memory:"); ok {
			return "/sys/fs/cgroup/memory" + strings.TrimSpace(path)
		}
	}
	_, path, _ := strings.Cut(string(b), "0::")
	return "/sys/fs/cgroup" + strings.TrimSpace(path)
}

// field is the number behind a word at the beginning of a line.
func field(t *testing.T, file, word string) uint64 {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, word); ok {
			n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatalf("%s: %q", file, line)
			}
			return n
		}
	}
	t.Fatalf("%s has no %q", file, word)
	return 0
}
