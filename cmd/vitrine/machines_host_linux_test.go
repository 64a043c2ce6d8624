package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// namespaceEnv tells a test that it is the one with namespaces of its own.
const namespaceEnv = "VITRINE_TEST_NAMESPACE"

// alone runs the rest of the test in a process that is root in a user
// namespace, and has a network and mounts of its own. It reports whether this
// is that process.
func alone(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceEnv) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), namespaceEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, os.ErrPermission) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("no namespaces can be made here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skip(string(out))
	}
	return false
}

// links are the host's network devices, loopback aside.
func links(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "lo" {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestMachinesOnABridge(t *testing.T) {
	if !alone(t) {
		return
	}
	// What /sys shows of networks is the mounting process's.
	if err := syscall.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		t.Skipf("no /sys of this network: %v", err)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no TAP devices here: %v", err)
	}
	for _, args := range [][]string{{"link", "add", "br0", "type", "bridge"}, {"link", "set", "br0", "up"}, {"addr", "add", "10.78.0.1/24", "dev", "br0"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
			t.Skip("no ip (Debian: iproute2)")
		} else if err != nil {
			t.Fatalf("ip %q: %v, %s", args, err, out)
		}
	}
	newState(t)
	before := links(t)
	var pids []int
	for i, name := range []string{"left", "right", "killed"} {
		start(t, name, "--net", "bridge=br0", "--append", fmt.Sprintf("vitrine.ip=eth0:10.78.0.%d/24", 11+i))
		pids = append(pids, recordOf(t, os.Getenv("VITRINE_STATE"), name).PID)
	}
	if got := links(t); len(got) != len(before)+3 {
		t.Errorf("network devices %q, before %q: want three more", got, before)
	}
	reaches := func(from, address string) {
		t.Helper()
		var out string
		for range 10 { // its ping waits no longer than a second
			status, stdout, stderr := command("exec", from, "ping", "-c", "1", address)
			if out = stdout + stderr; status == 0 {
				return
			}
		}
		t.Errorf("%s does not reach %s: %s", from, address, out)
	}
	reaches("left", "10.78.0.12")
	reaches("right", "10.78.0.11")
	reaches("left", "10.78.0.1")
	if err := syscall.Kill(pids[2], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !ends(pids[2]) {
		t.Error("the killed process is still there")
	}
	reaches("left", "10.78.0.12") // the others go on
	want(t, "stop", "--time", "60s", "left", "right")
	want(t, "rm", "left", "right", "killed")
	for deadline := time.Now().Add(acceltest.Limit(time.Minute)); ; time.Sleep(10 * time.Millisecond) { // the kernel takes devices away in its own time
		got := links(t)
		if slices.Equal(got, before) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("network devices %q, before %q", got, before)
		}
	}
}

// A run directory without room for a log costs the log, not the guest, and
// afterwards a machine's end is still told.
func TestGuestOutlivesAFullRunDirectory(t *testing.T) {
	if !alone(t) {
		return
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=96k"); err != nil {
		t.Skipf("no tmpfs can be mounted: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	newState(t)
	t.Setenv("VITRINE_STATE", filepath.Join(dir, "run"))
	start(t, "loud", "--", "sh", "-c", "seq 1 20000; echo the last line > /tmp/last; exec sleep 1000")
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if status, stdout, _ := command("exec", "loud", "cat", "/tmp/last"); status == 0 && stdout == "the last line\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the guest does not get to the end of its output")
		}
	}
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	filler.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if got := want(t, "exec", "loud", "echo", "alive"); got != "alive\n" {
		t.Errorf("exec printed %q", got)
	}
	if got := want(t, "logs", "loud"); !strings.HasPrefix(got, "1\n2\n3\n") {
		t.Errorf("the log begins with %.40q", got)
	}
	status, _, stderr := command("run", "--detach", "--accel", anyAccel(t), "--name", "late")
	if status != statusFailure || !strings.Contains(stderr, "no space left") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("a new machine: status %d, %q", status, stderr)
	}
	pid := recordOf(t, os.Getenv("VITRINE_STATE"), "loud").PID
	want(t, "kill", "loud")
	if !ends(pid) {
		t.Error("its process is still there")
	}
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	want(t, "rm", "-f", "loud")
	if left := leftIn(t, os.Getenv("VITRINE_STATE")); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

// Twenty machines are killed at random moments of their lives, all at about
// the same time; rm cleans up behind some, and the next run behind the others.
func TestAllKilledAtOnce(t *testing.T) {
	dir := newState(t)
	sockets := t.TempDir()
	r := rand.New(rand.NewPCG(3, 4))
	var cmds []*exec.Cmd
	for i := range 20 {
		name := fmt.Sprintf("k%02d", i)
		cmds = append(cmds, beginRun(t, "run", "--detach", "--accel", anyAccel(t), "--memory", "96M", "--name", name,
			"--vsock", filepath.Join(sockets, name), "--share", sockets+":share:ro"))
	}
	for _, i := range r.Perm(len(cmds)) {
		time.Sleep(time.Duration(r.IntN(150)) * time.Millisecond)
		if err := cmds[i].Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmds[i].Wait()
	}
	d, err := control.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := d.List()
	if err != nil {
		t.Fatal(err)
	}
	for i, rec := range list {
		if rec.State != control.StateDead || rec.Reason == "" {
			t.Errorf("%s was killed, and is said to be %s (%s)", rec.Name, rec.State, rec.Reason)
		}
		if i%2 == 0 {
			want(t, "rm", rec.Name)
			if _, err := os.Lstat(filepath.Join(sockets, rec.Name)); err == nil {
				t.Errorf("rm %s leaves its socket", rec.Name)
			}
		}
	}
	start(t, "next")
	for deadline := time.Now().Add(acceltest.Limit(time.Minute)); ; time.Sleep(10 * time.Millisecond) { // it cleans up once it runs
		left := leftIn(t, sockets)
		if left == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the next run leaves %q", left)
		}
	}
	want(t, append([]string{"rm", "-f", "next"}, leftIn(t, dir)...)...)
	if left := append(leftIn(t, dir), hostTraces(t)...); left != nil {
		t.Errorf("left behind: %q", left)
	}
}
