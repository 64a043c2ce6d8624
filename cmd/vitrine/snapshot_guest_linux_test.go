package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

// vitrineOK runs a command line that must succeed and returns what it printed.
func vitrineOK(t testing.TB, args ...string) string {
	t.Helper()
	var out, errOut syncBuffer
	if status := run(context.Background(), append([]string{"vitrine"}, args...), strings.NewReader(""), &out, &errOut); status != 0 {
		t.Fatalf("vitrine %s: status %d\n%s%s", strings.Join(args, " "), status, out.String(), errOut.String())
	}
	return out.String()
}

// guestShell is a machine whose shell a test types into.
type guestShell struct {
	t     *testing.T
	in    *io.PipeWriter
	out   syncBuffer
	ended chan int
	asked int
}

// newGuestShell runs the embedded guest under the name m, in a run directory
// of the test's own.
func newGuestShell(t *testing.T, args ...string) *guestShell {
	t.Helper()
	t.Setenv("VITRINE_CACHE", testCache)
	t.Setenv("VITRINE_STATE", filepath.Join(t.TempDir(), "run"))
	accel := anyAccel(t)
	r, w := io.Pipe()
	g := &guestShell{t: t, in: w, ended: make(chan int, 1)}
	go func() {
		g.ended <- run(context.Background(), append([]string{"vitrine", "run", "--accel", accel, "--name", "m"}, args...), r, &g.out, &g.out)
	}()
	t.Cleanup(func() {
		w.Close()
		<-g.ended
	})
	g.say("true")
	return g
}

// say has the shell run a line, and waits until it has.
func (g *guestShell) say(line string) {
	g.t.Helper()
	g.asked++
	mark := fmt.Sprintf("done-%d-", g.asked)
	fmt.Fprintf(g.in, "%s\necho %s\n", line, mark)
	for limit := time.Now().Add(acceltest.Limit(5 * time.Minute)); !strings.Contains(g.out.String(), mark); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(limit) {
			g.t.Fatalf("the guest does not answer %q:\n%s", line, g.out.String())
		}
	}
}

func writeZeros(path string, size int) error { return os.WriteFile(path, make([]byte, size), 0o600) }

// writer counts, and writes each number to a block of the disk before it says
// that it has.
const writer = `(i=0; while true; do i=$((i+1)); echo "block $i" | dd of=/dev/vda bs=512 seek=$i conv=notrunc 2>/dev/null; echo $i > /tmp/n; mv /tmp/n /tmp/count; sleep 0.02; done) &`

// checker looks whether the disk has every number that the guest has counted.
const checker = `n=$(cat /tmp/count); i=1; while [ $i -le $n ]; do
[ "$(dd if=/dev/vda bs=512 skip=$i count=1 2>/dev/null | head -n 1)" = "block $i" ] || echo "block $i is lost"; i=$((i+1)); done; echo "counted $n"`

// A guest that writes to its disk all the time is saved at any moment: whoever
// goes on from there finds on the disk what the guest has written, not more and
// not less, and the snapshot does not change.
func TestGuestIsSavedWhileItWrites(t *testing.T) {
	for _, c := range []struct{ cpus, transport string }{{"1", "mmio"}, {"4", "mmio"}, {"4", "pci"}} {
		t.Run(c.cpus+" CPUs "+c.transport, func(t *testing.T) {
			if c.cpus != "1" {
				acceltest.Slow(t, vmm.KernelsEmulated, "several CPUs wait for one another")
			}
			top := t.TempDir()
			img := filepath.Join(top, "disk")
			if err := writeZeros(img, 4<<20); err != nil {
				t.Fatal(err)
			}
			g := newGuestShell(t, "--cpus", c.cpus, "--transport", c.transport, "--disk", img+",id=data")
			g.say(writer + "\nuntil [ -s /tmp/count ]; do sleep 0.02; done")
			for i := range 2 {
				time.Sleep(time.Duration(80+rand.IntN(150)) * time.Millisecond)
				dir := filepath.Join(top, fmt.Sprint(i))
				vitrineOK(t, "snapshot", "m", dir)
				for range i + 1 {
					out := vitrineOK(t, "restore", dir, "--name", "r", "--", "sh", "-c", "kill %1 2>/dev/null; "+checker)
					n, _ := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(out), "counted "))
					if n == 0 || strings.Contains(out, "lost") {
						t.Errorf("the restored guest found %q", out)
					}
				}
			}
		})
	}
}

func TestDifferencesThroughTheCommandLine(t *testing.T) {
	g := newGuestShell(t)
	top := t.TempDir()
	base := ""
	for i := range 4 {
		g.say(fmt.Sprintf("echo %d > /tmp/f%d", i, i))
		dir := filepath.Join(top, fmt.Sprint(i))
		args := []string{"snapshot", "m", dir}
		if base != "" {
			args = append(args, "--diff", base)
		}
		vitrineOK(t, args...)
		base = dir
	}
	if out := vitrineOK(t, "restore", base, "--", "sh", "-c", "cat /tmp/f0 /tmp/f1 /tmp/f2 /tmp/f3"); out != "0\n1\n2\n3\n" {
		t.Errorf("the last of the chain has %q", out)
	}
	s, err := snapshot.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if whole := s.Layers()[0].Stored(); len(s.Layers()) != 4 || s.Stored() > whole/2 {
		t.Errorf("%d layers; the last has %d bytes of %d", len(s.Layers()), s.Stored(), whole)
	}
	if out := vitrineOK(t, "snapshot", "inspect", base, "--verify"); !strings.Contains(out, "can be restored: vitrine restore") || !strings.Contains(out, "checksums  right") {
		t.Errorf("inspect says\n%s", out)
	}
}

// Two lives of one snapshot have the same past, the time of now, and random
// numbers and names of their own.
func TestRestoredGuestsDiffer(t *testing.T) {
	g := newGuestShell(t)
	g.say("echo past > /tmp/f; read up rest < /proc/uptime; echo $up > /tmp/up")
	dir := filepath.Join(t.TempDir(), "s")
	vitrineOK(t, "snapshot", "m", dir)
	time.Sleep(1500 * time.Millisecond)
	uuids := make(map[string]bool)
	for _, name := range []string{"one", "two"} {
		out := vitrineOK(t, "restore", dir, "--name", name, "--", "sh", "-c",
			"cat /tmp/f; hostname; cat /proc/sys/kernel/random/uuid; date; cat /tmp/up; read up rest < /proc/uptime; echo $up")
		f := strings.Split(strings.TrimSpace(out), "\n")
		if len(f) != 6 || f[0] != "past" || f[1] != name || uuids[f[2]] {
			t.Fatalf("%s says %q", name, out)
		}
		uuids[f[2]] = true
		if now, err := time.Parse(time.UnixDate, f[3]); err != nil || time.Since(now).Abs() > 30*time.Second {
			t.Errorf("%s has the time %v, %v", name, now, err)
		}
		// As after suspend: the time in the snapshot's file does not count.
		before, _ := strconv.ParseFloat(f[4], 64)
		after, _ := strconv.ParseFloat(f[5], 64)
		if after < before {
			t.Errorf("%s: the time since boot went from %v back to %v", name, before, after)
		}
	}
}

// What the first machine with --prefetch needs of memory is what is read ahead
// for the next.
func TestGuestWorkingSet(t *testing.T) {
	g := newGuestShell(t)
	dir := filepath.Join(t.TempDir(), "s")
	vitrineOK(t, "snapshot", "m", dir)
	s, err := snapshot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		if out := vitrineOK(t, "restore", dir, "--prefetch", "--", "echo", "fine"); out != "fine\n" {
			t.Errorf("a restored machine says %q", out)
		}
		need, ok := s.WorkingSet()
		if !ok || need.Count() == 0 || need.Count() > s.State.Pages.Count() {
			t.Errorf("working set of %d pages, %v, of %d", need.Count(), ok, s.State.Pages.Count())
		}
	}
	vitrineOK(t, "snapshot", "m", dir) // a new one, which knows of none
	s2, err := snapshot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if _, ok := s2.WorkingSet(); ok {
		t.Error("a new snapshot has the working set of the old one")
	}
	g.say("true")
}

func TestWarmMachines(t *testing.T) {
	t.Setenv("VITRINE_CACHE", t.TempDir())
	t.Setenv("VITRINE_STATE", filepath.Join(t.TempDir(), "run"))
	warm := func(args ...string) string {
		return vitrineOK(t, append([]string{"run", "--accel", anyAccel(t), "--warm"}, args...)...)
	}
	seen := make(map[string]bool)
	for range 3 {
		uuid := warm("--", "cat", "/proc/sys/kernel/random/uuid")
		if seen[uuid] {
			t.Errorf("%s again", uuid)
		}
		seen[uuid] = true
	}
	kept := func() int { return strings.Count(vitrineOK(t, "cache", "ls"), "machine: --accel "+anyAccel(t)) }
	if kept() != 1 {
		t.Errorf("%d machines are kept after three runs of one kind", kept())
	}
	if out := warm("--memory", "128M", "--", "grep", "MemTotal", "/proc/meminfo"); !strings.Contains(out, " 1") || kept() != 2 {
		t.Errorf("a machine with other memory: %q, %d kept", out, kept())
	}
	// What looks into a machine that never read its kernel's file names the
	// kernel's functions all the same.
	summary := filepath.Join(t.TempDir(), "summary")
	vitrineOK(t, "trace", "--accel", anyAccel(t), "--warm", "--summary", "-o", summary, "--", "true")
	if text, err := os.ReadFile(summary); err != nil || !strings.Contains(string(text), "top functions of the guest") {
		t.Errorf("no function has its name (%v):\n%s", err, text)
	}
	// A damaged one is not used, and replaced.
	states, err := filepath.Glob(filepath.Join(os.Getenv("VITRINE_CACHE"), "warm", "*", "state"))
	if err != nil || len(states) != 2 {
		t.Fatal(states, err)
	}
	for _, s := range states {
		if err := os.Truncate(s, 1000); err != nil {
			t.Fatal(err)
		}
	}
	if out := warm("--", "echo", "fine"); out != "fine\n" || kept() != 1 {
		t.Errorf("with a damaged machine in the cache: %q, %d kept", out, kept())
	}
	vitrineOK(t, "cache", "prune")
	vitrineOK(t, "cache", "rm", "--all")
	if out := vitrineOK(t, "cache", "ls"); strings.Count(out, "\n") != 1 {
		t.Errorf("after rm --all:\n%s", out)
	}
}

func TestSnapshotMistakes(t *testing.T) {
	t.Setenv("VITRINE_CACHE", testCache)
	t.Setenv("VITRINE_STATE", filepath.Join(t.TempDir(), "run"))
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"snapshot", "m"}, statusUsage, "want a machine and a folder"},
		{[]string{"snapshot", "m", none}, statusFailure, "no such machine"},
		{[]string{"snapshot", "inspect", none}, statusFailure, "not a snapshot"},
		{[]string{"restore"}, statusUsage, "want the folder"},
		{[]string{"restore", none}, statusFailure, "not a snapshot"},
		{[]string{"restore", none, "--no-such-flag"}, statusUsage, "there is no flag --no-such-flag"},
		{[]string{"fork", "m", "-n", "0"}, statusUsage, "not a number of clones"},
		{[]string{"fork", "m"}, statusFailure, "no such machine"},
		{[]string{"cache", "rm"}, statusUsage, "want keys"},
		{[]string{"cache", "rm", "no-such-key"}, statusFailure, "nothing is kept"},
		{[]string{"run", "--warm", "--kernel", "/dev/null"}, statusUsage, "--warm needs the embedded guest"},
	} {
		var out, errOut syncBuffer
		status := run(context.Background(), append([]string{"vitrine"}, c.args...), strings.NewReader(""), &out, &errOut)
		if status != c.status || !strings.Contains(errOut.String(), c.says) {
			t.Errorf("%q: status %d, %s", c.args, status, errOut.String())
		}
	}
}

func TestPathsOfSavedFlags(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ flag, value, want string }{
		{"kernel", "lean", "lean"},
		{"kernel", "bzImage", here + "/bzImage"},
		{"console", "stdio", "stdio"},
		{"disk", "a.img,ro,id=x", here + "/a.img,ro,id=x"},
		{"disk", "a,,b.img,ro", here + "/a,,b.img,ro"},
		{"disk", "/a.img", "/a.img"},
		{"share", "dir:tag:ro", here + "/dir:tag:ro"},
		{"memory", "256M", "256M"},
	} {
		if got := absoluteValue(c.flag, c.value); got != c.want {
			t.Errorf("--%s %s becomes %s, want %s", c.flag, c.value, got, c.want)
		}
	}
}

func TestDiskTextAndBack(t *testing.T) {
	for _, s := range []string{"/a,,b.img,ro,direct,id=x,format=qcow2,iops=5,bps=6", "/a"} {
		d, err := parseDisk(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := diskText(&d); got != s {
			t.Errorf("%s becomes %s", s, got)
		}
	}
}
