//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// newState gives a test a run directory of its own, and the cache to all.
func newState(t testing.TB) string {
	t.Helper()
	t.Setenv("VITRINE_CACHE", testCache)
	dir := filepath.Join(t.TempDir(), "run")
	t.Setenv("VITRINE_STATE", dir)
	t.Cleanup(func() {
		d, err := control.OpenDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		list, err := d.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if r.Alive() {
				_ = syscall.Kill(r.PID, syscall.SIGKILL)
			}
		}
	})
	return dir
}

// want runs a command line that must succeed and returns its output.
func want(t testing.TB, args ...string) string {
	t.Helper()
	status, stdout, stderr := command(args...)
	if status != 0 {
		t.Fatalf("vitrine %q: status %d, %s", args, status, stderr)
	}
	return stdout
}

// start leaves a machine with the embedded guest in the background.
func start(t testing.TB, name string, args ...string) {
	t.Helper()
	args = append([]string{"run", "--detach", "--accel", anyAccel(t), "--memory", "96M", "--name", name}, args...)
	if got := want(t, args...); got != name+"\n" {
		t.Fatalf("run --detach printed %q", got)
	}
}

func recordOf(t testing.TB, dir, name string) control.Record {
	t.Helper()
	d, err := control.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := d.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// leftIn lists the folders of machines in a run directory.
func leftIn(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestTwentyMachinesAtOnce(t *testing.T) {
	acceltest.Slow(t, vmm.KernelsEmulated, "twenty machines share what one has")
	dir := newState(t)
	sockets := t.TempDir()
	var names []string
	var wg sync.WaitGroup
	for i := range 20 {
		name := fmt.Sprintf("m%02d", i)
		names = append(names, name)
		wg.Go(func() {
			status, _, stderr := command("run", "--detach", "--accel", anyAccel(t), "--memory", "96M", "--net", "user", "--name", name,
				"--vsock", filepath.Join(sockets, name))
			if status != 0 {
				t.Errorf("%s: status %d, %s", name, status, stderr)
				return
			}
			status, stdout, stderr := command("exec", name, "hostname")
			if status != 0 || stdout != name+"\n" {
				t.Errorf("exec in %s: status %d, %q, %s", name, status, stdout, stderr)
			}
		})
	}
	wg.Wait()
	if got := strings.Fields(want(t, "ps", "-q")); !slices.Equal(got, names) {
		t.Fatalf("ps lists %q", got)
	}
	if n := len(hostTraces(t)); n < 40 {
		t.Errorf("%d sockets, want a control socket and a vsock for each", n)
	}
	var pids []int
	for _, name := range names {
		pids = append(pids, recordOf(t, dir, name).PID)
	}
	want(t, append([]string{"stop", "--time", "60s"}, names...)...)
	for i, name := range names {
		if r := recordOf(t, dir, name); r.State != control.StateExited || *r.ExitStatus != 0 {
			t.Errorf("%s was stopped: %s %s", name, r.State, r.Reason)
		}
		if !ends(pids[i]) {
			t.Errorf("%s: process %d is still there", name, pids[i])
		}
	}
	want(t, append([]string{"rm"}, names...)...)
	if left := leftIn(t, dir); left != nil {
		t.Errorf("left behind: %q", left)
	}
	if left := leftIn(t, sockets); left != nil {
		t.Errorf("sockets left behind: %q", left)
	}
	if left := hostTraces(t); left != nil {
		t.Errorf("left on the host: %q", left)
	}
}

// hostTraces are the mounts and UNIX sockets that the host has below the test's
// folders. TAP devices are looked for where there are some:
// TestMachinesOnABridge.
func hostTraces(t testing.TB) (traces []string) {
	t.Helper()
	folders := filepath.Dir(t.TempDir())
	for _, file := range []string{"/proc/self/mounts", "/proc/net/unix"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, folders) {
				traces = append(traces, line)
			}
		}
	}
	return traces
}

// ends says whether a process ends soon: it has let go of its name already.
func ends(pid int) bool {
	for range 500 {
		if err := syscall.Kill(pid, 0); err != nil || zombie(pid) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// zombie says whether a process has ended and only its parent, which is this
// test where a command line would have ended long before, keeps its number.
func zombie(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := bytes.Cut(b, []byte(") "))
	return bytes.HasPrefix(rest, []byte("Z"))
}

// background processes of this test that are not told of being one.
func beginRun(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), detachedEnv+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestMachinesKilledAtRandomMoments(t *testing.T) {
	dir := newState(t)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 8 {
		socket := filepath.Join(t.TempDir(), "vsock")
		args := []string{"run", "--detach", "--accel", anyAccel(t), "--memory", "96M", "--name", "victim", "--vsock", socket}
		cmd := beginRun(t, args...)
		time.Sleep(time.Duration(r.IntN(250)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if d, err := control.OpenDir(dir); err == nil {
			if rec, err := d.Find("victim"); err == nil && (rec.State != control.StateDead || rec.Reason == "") {
				t.Fatalf("killed, and said to be %s (%s)", rec.State, rec.Reason)
			}
		}
		if i%2 == 0 { // its name is free, and the next of that name works
			start(t, "victim", "--vsock", socket)
			if got := want(t, "exec", "victim", "echo", "alive"); got != "alive\n" {
				t.Fatalf("exec printed %q", got)
			}
			want(t, "kill", "victim")
		}
		if slices.Contains(leftIn(t, dir), "victim") {
			if status, _, stderr := command("rm", "victim"); status != 0 && !strings.Contains(stderr, "no such machine") {
				t.Fatal(stderr)
			}
		}
		if _, err := os.Lstat(socket); err == nil && i%2 == 0 {
			t.Error("the vsock's UNIX socket is still there")
		}
	}
}

func TestTwoRunsWithOneName(t *testing.T) {
	newState(t)
	start(t, "twin")
	status, _, stderr := command("run", "--accel", anyAccel(t), "--name", "twin", "--", "true")
	if status != statusFailure || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, `machine "twin" is running`) {
		t.Errorf("in the foreground: status %d, %q", status, stderr)
	}
	status, stdout, stderr := command("run", "--detach", "--accel", anyAccel(t), "--name", "twin")
	if status != statusFailure || stdout != "" || !strings.Contains(stderr, `machine "twin" is running`) {
		t.Errorf("in the background: status %d, %q", status, stderr)
	}
	status, _, stderr = command("rm", "twin")
	if status != statusFailure || !strings.Contains(stderr, "vitrine stop twin first") || strings.Contains(stderr, "another name") {
		t.Errorf("rm of a running machine: status %d, %q", status, stderr)
	}
	if got := want(t, "exec", "twin", "echo", "still", "here"); got != "still here\n" {
		t.Errorf("the first one: %q", got)
	}
	want(t, "rm", "-f", "twin")
}

func TestALifeInTheBackground(t *testing.T) {
	dir := newState(t)
	start(t, "life", "--balloon", "--", "sh", "-c", "echo out; cat; exec sleep 1000")
	status, stdout, _ := command("exec", "life", "sh", "-c", "echo a; echo b >&2; exit 3")
	if status != 3 || stdout != "a\n" {
		t.Errorf("exec: status %d, %q", status, stdout)
	}
	want(t, "pause", "life")
	if s := recordOf(t, dir, "life").State; s != control.StatePaused {
		t.Errorf("paused, and said to be %s", s)
	}
	if status, _, stderr := command("exec", "life", "true"); status == 0 || !strings.Contains(stderr, "paused") {
		t.Errorf("exec in a paused machine: status %d, %s", status, stderr)
	}
	want(t, "resume", "life")
	var s struct {
		Name string
		control.Stats
	}
	if err := json.Unmarshal([]byte(want(t, "stats", "--json", "life")), &s); err != nil {
		t.Fatal(err)
	}
	if m := s.Memory; s.Name != "life" || m.Guest != 96<<20 || m.PSS != m.Own+m.GuestPSS || m.GuestPSS == 0 || m.Resident < m.PSS || len(s.VCPUs) != 1 || s.GuestTime == 0 || s.Networks["net0"].TxFrames > s.Networks["net0"].TxBytes {
		t.Errorf("%+v", s)
	}
	want(t, "balloon", "life", "16M")
	for range 100 {
		if strings.Contains(want(t, "balloon", "life"), "taken       16 MiB") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if got := want(t, "balloon", "life"); !strings.Contains(got, "taken       16 MiB") {
		t.Errorf("the balloon: %s", got)
	}
	if got := want(t, "logs", "life"); !strings.Contains(got, "out") {
		t.Errorf("logs: %q", got)
	}
	if got := want(t, "logs", "--vmm", "life"); !strings.Contains(got, "the machine runs") || !strings.Contains(got, "paused") {
		t.Errorf("logs --vmm: %q", got)
	}
	want(t, "kill", "life")
	if status, _, _ := command("wait", "life"); status != statusKilled {
		t.Errorf("wait: status %d", status)
	}
	for _, name := range []string{"exec", "stop", "kill", "pause", "attach", "balloon", "cp"} {
		args := []string{name, "life"}
		if name == "cp" {
			args = []string{name, "life:/a", "b"}
		}
		if status, _, stderr := command(args...); status != statusFailure || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "not running") {
			t.Errorf("%s of one that has ended: status %d, %q", name, status, stderr)
		}
		args[1] = strings.Replace(args[1], "life", "nobody", 1)
		if status, _, stderr := command(args...); status != statusFailure || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "no such machine") {
			t.Errorf("%s of nobody: status %d, %q", name, status, stderr)
		}
	}
}

func TestExitStatusOfACommandInTheBackground(t *testing.T) {
	newState(t)
	start(t, "seven", "--", "sh", "-c", "echo last words; exit 7")
	if status, _, stderr := command("wait", "seven"); status != 7 {
		t.Errorf("wait: status %d, %s", status, stderr)
	}
	if got := want(t, "logs", "seven"); !strings.Contains(got, "last words") {
		t.Errorf("logs: %q", got)
	}
	start(t, "absent", "--", "no-such-program")
	if status, _, stderr := command("wait", "absent"); status != 127 {
		t.Errorf("wait for one that cannot run: status %d, %s", status, stderr)
	}
	if got := want(t, "logs", "absent"); !strings.Contains(got, "no-such-program") {
		t.Errorf("logs of one that cannot run: %q", got)
	}
	// A machine that never ran leaves nothing: its user has been told.
	if status, _, stderr := command("run", "--detach", "--accel", anyAccel(t), "--name", "never", "--net", "bridge=none-such"); status != statusFailure || strings.Count(stderr, "\n") != 1 {
		t.Errorf("without its bridge: status %d, %q", status, stderr)
	}
	if got := want(t, "ps", "-a"); strings.Contains(got, "never") {
		t.Errorf("ps -a lists %q", got)
	}
	if status, _, stderr := command("exec", "seven", "true"); status != statusFailure {
		t.Errorf("exec: status %d, %s", status, stderr)
	}
}

func TestAMachineThatHangsHoldsUpNobody(t *testing.T) {
	dir := newState(t)
	start(t, "hung")
	start(t, "well")
	pid := recordOf(t, dir, "hung").PID
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if got := want(t, "ps"); !strings.Contains(got, "hung") || !strings.Contains(got, "well") {
		t.Errorf("ps: %s", got)
	}
	if got := want(t, "stats"); !strings.Contains(got, "no answer") || !strings.Contains(got, "well") {
		t.Errorf("stats: %s", got)
	}
	want(t, "kill", "hung")
	if r := recordOf(t, dir, "hung"); r.State != control.StateDead || !strings.Contains(r.Reason, "did not answer") {
		t.Errorf("%s: %s", r.State, r.Reason)
	}
	want(t, "rm", "-f", "hung", "well")
	if left := leftIn(t, dir); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

func TestFilesGoBothWays(t *testing.T) {
	newState(t)
	shared := t.TempDir()
	start(t, "files", "--share", shared+":tree")
	from := filepath.Join(t.TempDir(), "tree")
	data := make([]byte, 200<<10)
	for i := range data {
		data[i] = byte(i * i >> 3)
	}
	for _, err := range []error{
		os.MkdirAll(filepath.Join(from, "a b", "c"), 0o755),
		os.WriteFile(filepath.Join(from, "a b", "c", "data"), data, 0o640),
		os.WriteFile(filepath.Join(from, "run"), []byte("#!"), 0o755),
		os.Symlink("../outside", filepath.Join(from, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want(t, "cp", from, "files:/tmp")
	back := filepath.Join(t.TempDir(), "back")
	want(t, "cp", "files:/tmp/tree", back)
	if got, err := os.ReadFile(filepath.Join(back, "a b", "c", "data")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
	if info, err := os.Stat(filepath.Join(back, "run")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if to, err := os.Readlink(filepath.Join(back, "link")); err != nil || to != "../outside" {
		t.Errorf("link to %q, %v", to, err)
	}
	want(t, "exec", "files", "cp", "/tmp/tree/run", "/mnt/tree/shared")
	if got, err := os.ReadFile(filepath.Join(shared, "shared")); err != nil || string(got) != "#!" {
		t.Errorf("the share: %q, %v", got, err)
	}
	for _, c := range [][]string{{"cp", "files:/none", back}, {"cp", filepath.Join(from, "none"), "files:/tmp"}, {"cp", "a", "b"}, {"cp", "files:/a", "files:/b"}} {
		if status, _, stderr := command(c...); status == 0 || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%q: status %d, %q", c, status, stderr)
		}
	}
	want(t, "rm", "-f", "files")
}

func TestMachinesOfAFile(t *testing.T) {
	dir := newState(t)
	file := filepath.Join(t.TempDir(), "two.yaml")
	text := `
networks:
  lan: {mode: user, group: ` + fmt.Sprintf("t%d", os.Getpid()) + `}
machines:
  one: &base {accel: ` + anyAccel(t) + `, memory: "${TEST_MEMORY:-96M}", net: lan}
  two: {<<: *base}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, "config", "check", file)
	if got := strings.Fields(want(t, "up", file)); len(got) != 2 {
		t.Fatalf("up: %q", got)
	}
	addr := ""
	for _, f := range strings.Fields(want(t, "exec", "two", "ip", "addr")) {
		if strings.HasPrefix(f, "10.0.2.") && strings.HasSuffix(f, "/24") {
			addr = strings.TrimSuffix(f, "/24")
		}
	}
	var status int
	var stderr string
	for range 5 { // its ping waits no longer than a second
		if status, _, stderr = command("exec", "one", "ping", "-c", "1", addr); status == 0 {
			break
		}
	}
	if status != 0 {
		t.Errorf("ping %q over the group: status %d, %s", addr, status, stderr)
	}
	want(t, "down", file)
	if left := leftIn(t, dir); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

// vsockProbe puts the program at testdata/vsock into the guest.
func vsockProbe(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vsock-probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./testdata/vsock")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	want(t, "cp", path, name+":/tmp/probe")
	return "/tmp/probe"
}

// Programs that know no more than UNIX sockets talk with the guest's programs,
// each beginning once.
func TestVsockBothWays(t *testing.T) {
	newState(t)
	socket := filepath.Join(t.TempDir(), "v")
	start(t, "sock", "--vsock", socket)
	probe := vsockProbe(t, "sock")
	data := bytes.Repeat([]byte("through the glass and back. "), 20_000)

	var ready syncBuffer
	echo := make(chan int, 1)
	go func() {
		echo <- run(context.Background(), []string{"vitrine", "exec", "sock", probe, "echo", "5000"}, strings.NewReader(""), &ready, &ready)
	}()
	for deadline := time.Now().Add(acceltest.Limit(time.Minute)); !strings.Contains(ready.String(), "ready"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the guest's listener says %q", ready.String())
		}
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "CONNECT 5000\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "OK ") {
		t.Fatalf("answer %q, %v", line, err)
	}
	go func() {
		_, _ = c.Write(data)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("to the guest and back: %d bytes of %d, %v", len(got), len(data), err)
	}
	if status := <-echo; status != 0 {
		t.Errorf("the guest's listener ends with %d: %s", status, ready.String())
	}

	l, err := net.Listen("unix", socket+"_1234")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	var back, errs syncBuffer
	status := run(context.Background(), []string{"vitrine", "exec", "sock", probe, "dial", "2", "1234"}, bytes.NewReader(data), &back, &errs)
	if status != 0 || back.String() != string(data) {
		t.Errorf("to the host and back: status %d, %d bytes of %d, %s", status, len(back.String()), len(data), errs.String())
	}
	if status, _, stderr := command("exec", "sock", probe, "dial", "2", "4321"); status == 0 {
		t.Errorf("where nobody listens: status %d, %s", status, stderr)
	}
	want(t, "stop", "sock")
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket is still there")
	}
}

// memoryOf is how much of a guest's memory the host has to keep.
func memoryOf(t *testing.T, name string) uint64 {
	t.Helper()
	var s struct{ control.Stats }
	if err := json.Unmarshal([]byte(want(t, "stats", "--json", name)), &s); err != nil {
		t.Fatal(err)
	}
	return s.Memory.GuestPSS
}

// awaitMemory waits until the guest's memory on the host is as it should be.
func awaitMemory(t *testing.T, name, what string, ok func(uint64) bool) (n uint64) {
	t.Helper()
	for deadline := time.Now().Add(acceltest.Limit(time.Minute)); ; time.Sleep(20 * time.Millisecond) {
		if n = memoryOf(t, name); ok(n) {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: the host keeps %s", what, formatSize(n))
		}
	}
}

// What the guest frees, and what the balloon takes, goes back to the host; the
// guest lives, and can use all of it again afterwards.
func TestBalloonGivesMemoryToTheHost(t *testing.T) {
	newState(t)
	start(t, "round", "--balloon")
	const fill = "dd if=/dev/zero of=/tmp/fill bs=1M count=40 2>/dev/null && ls -l /tmp/fill" // wc would read all of it first
	idle := memoryOf(t, "round")
	want(t, "exec", "round", "sh", "-c", fill)
	full := awaitMemory(t, "round", "a file of 40 MiB", func(n uint64) bool { return n > idle+32<<20 })
	want(t, "exec", "round", "rm", "/tmp/fill")
	freed := awaitMemory(t, "round", "the file removed", func(n uint64) bool { return n < full-24<<20 })

	// The page cache of what follows is the guest's, and the balloon's to take.
	want(t, "exec", "round", "sh", "-c", "dd if=/dev/zero of=/tmp/fill bs=1M count=30 2>/dev/null")
	want(t, "balloon", "round", "32M")
	awaitBalloon := func(taken string) {
		t.Helper()
		for deadline := time.Now().Add(acceltest.Limit(time.Minute)); !strings.Contains(want(t, "balloon", "round"), taken); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("want %s: %s", taken, want(t, "balloon", "round"))
			}
		}
	}
	awaitBalloon("taken       32 MiB")
	if got := want(t, "exec", "round", "sh", "-c", "ls -l /tmp/fill"); !strings.Contains(got, "31457280") {
		t.Errorf("with the balloon full: %q", got)
	}
	want(t, "exec", "round", "rm", "/tmp/fill")
	awaitMemory(t, "round", "balloon full, file removed", func(n uint64) bool { return n < freed+16<<20 })
	want(t, "balloon", "round", "0")
	awaitBalloon("taken       0 B")
	if got := want(t, "exec", "round", "sh", "-c", fill); !strings.Contains(got, "41943040") {
		t.Errorf("after the balloon: %q", got)
	}
	want(t, "rm", "-f", "round")
}

func TestAttachedUsersType(t *testing.T) {
	newState(t)
	start(t, "console")
	d, err := control.OpenDir(os.Getenv("VITRINE_STATE"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := d.Client("console")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := client.Console(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want(t, "exec", "console", "true")
	var seen syncBuffer
	go io.Copy(&seen, conn)
	for range 200 {
		if _, err := io.WriteString(conn, "echo $((6*7))0\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		if strings.Contains(seen.String(), "420") {
			want(t, "rm", "-f", "console")
			return
		}
	}
	t.Errorf("the console says %q", seen.String())
}
