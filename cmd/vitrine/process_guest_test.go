//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
)

// programEnv makes the test binary the program itself.
const programEnv = "VITRINE_TEST_PROGRAM"

func init() {
	if os.Getenv(programEnv) != "" {
		os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
	}
}

// program is the program as a process of its own, in a process group of its
// own, and with a folder of its own for running machines.
func program(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), programEnv+"=1", "VITRINE_CACHE="+testCache, "XDG_RUNTIME_DIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// leavesNothing fails if any process of the program's group is left.
func leavesNothing(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	for range 100 {
		if err := syscall.Kill(-cmd.Process.Pid, 0); errors.Is(err, syscall.ESRCH) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	t.Error("a process is left")
}

// Whenever SIGTERM comes, from the first moment of the process to the guest's
// last, the program ends and leaves no process.
func TestGuestEndsBySIGTERMAtAnyMoment(t *testing.T) {
	acceltest.Each(t, func(t *testing.T, accel string) {
		t.Parallel()
		for delay := time.Millisecond; delay < time.Second; delay = delay*7/4 + time.Millisecond {
			cmd := program(t, "run", "--accel", accel, "--", "sleep", "1000")
			var errs bytes.Buffer
			cmd.Stderr = &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(delay)
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			ended := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
			err := cmd.Wait()
			if !ended.Stop() {
				t.Errorf("after %v: SIGTERM does not end it", delay)
			}
			// Before the program has its handler the signal itself ends it.
			state := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if state.ExitStatus() != 128+int(syscall.SIGTERM) && state.Signal() != syscall.SIGTERM {
				t.Errorf("after %v: %v, errors %q", delay, err, errs.String())
			}
			leavesNothing(t, cmd)
		}
	})
}

// untilSaid starts the program and waits until its output has a line that
// begins with word, which is returned.
func untilSaid(t *testing.T, cmd *exec.Cmd, word string) string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs syncBuffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	stuck := time.AfterFunc(acceltest.Limit(3*time.Minute), func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), word) {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return lines.Text()
		}
	}
	t.Fatalf("it ended without %q; errors %q", word, errs.String())
	return ""
}

// What the guest has synced is on the disk when the VMM is killed: raw, in a
// file system, and in an overlay, whose base stays as it was.
func TestGuestDataSurvivesKill(t *testing.T) {
	data := make([]byte, 3<<20)
	r := rand.New(rand.NewPCG(8, 9))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	source := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(source, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ext4, overlay bool
		write, read   string
	}{
		"raw":     {false, false, writeRaw, readRaw},
		"ext4":    {true, false, writeExt4, readExt4},
		"overlay": {true, true, writeExt4, readExt4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t, c.ext4)
			base, err := os.ReadFile(target)
			if err != nil {
				t.Fatal(err)
			}
			setting := target
			if c.overlay {
				setting = overlayOf(t, target) + ",format=qcow2"
			}
			killAfterSync(t, source, setting, c.write)
			now, err := os.ReadFile(target)
			switch {
			case err != nil:
				t.Error(err)
			case name == "raw" && !bytes.Equal(now[:len(data)], data):
				t.Error("the file has not what was synced")
			case c.overlay && !bytes.Equal(now, base):
				t.Error("the base changed")
			}
			want := fmt.Sprintf("%x", sha256.Sum256(data))
			out, err := program(t, "run", "--accel", anyAccel(t), "--net", "none", "--disk", setting, "--", "sh", "-c", c.read).Output()
			if err != nil || !strings.HasPrefix(string(out), want) {
				t.Errorf("another guest reads %q, %v; want %s", out, err, want)
			}
		})
	}
}

// Commands that copy the disk vda to vdb and say so, and that sum up what was
// written, which is 3 MiB.
const (
	writeRaw  = "dd if=/dev/vda of=/dev/vdb bs=1M conv=notrunc && sync && echo synced && sleep 1000"
	readRaw   = "head -c 3145728 /dev/vda | shasum -a 256"
	writeExt4 = "mkdir /tmp/m && mount -t ext4 /dev/vdb /tmp/m && dd if=/dev/vda of=/tmp/m/file bs=1M && sync && echo synced && sleep 1000"
	readExt4  = "mkdir /tmp/m && mount -t ext4 /dev/vda /tmp/m && cat /tmp/m/file | shasum -a 256"
)

// newTarget is a disk of zeros, or with an empty ext4.
func newTarget(t *testing.T, ext4 bool) string {
	t.Helper()
	target := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(target, 24<<20); err != nil {
		t.Fatal(err)
	}
	if ext4 {
		if out, err := exec.Command("mkfs.ext4", "-q", target).CombinedOutput(); err != nil {
			t.Skipf("mkfs.ext4 (Debian: e2fsprogs): %v\n%s", err, out)
		}
	}
	return target
}

// overlayOf is a qcow2 image over the raw image base.
func overlayOf(t *testing.T, base string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "overlay.qcow2")
	if _, err := disk.CreateOverlay(path, base, disk.Raw); err != nil {
		t.Fatal(err)
	}
	return path
}

// killAfterSync runs a guest with both disks until the command says that it has
// synced, and kills the VMM.
func killAfterSync(t *testing.T, source, target, command string) {
	t.Helper()
	cmd := program(t, "run", "--accel", anyAccel(t), "--net", "none", "--disk", source+",ro", "--disk", target, "--", "sh", "-c", command)
	untilSaid(t, cmd, "synced")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	leavesNothing(t, cmd)
}
