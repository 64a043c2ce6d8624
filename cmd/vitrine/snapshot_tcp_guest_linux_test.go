package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// sink is a TCP server on the host that counts what each client sends.
type sink struct {
	net.Listener
	got   [8]atomic.Int64 // by the order in which they came
	ended [8]atomic.Bool
}

func newSink(t *testing.T) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{Listener: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for i := range s.got {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer s.ended[i].Store(true)
				defer c.Close()
				b := make([]byte, 4096)
				for {
					n, err := c.Read(b)
					s.got[i].Add(int64(n))
					if err != nil {
						_, _ = io.WriteString(c, "\n")
						return
					}
				}
			}()
		}
	}()
	return s
}

// awaitMore waits until client i has sent more than n bytes.
func (s *sink) awaitMore(t *testing.T, i int, n int64) int64 {
	t.Helper()
	for limit := time.Now().Add(acceltest.Limit(time.Minute)); ; time.Sleep(2 * time.Millisecond) {
		if got := s.got[i].Load(); got > n {
			return got
		}
		if time.Now().After(limit) || s.ended[i].Load() {
			t.Fatalf("client %d has sent %d bytes; its connection ended: %v", i, s.got[i].Load(), s.ended[i].Load())
		}
	}
}

// A TCP connection of the guest's goes on in the machine that was saved, and is
// reset in one that is restored from it, whose next one works.
func TestGuestIsSavedWhileItTalks(t *testing.T) {
	s := newSink(t)
	port := s.Addr().(*net.TCPAddr).Port
	g := newGuestShell(t)
	// Not the shell's own child: in a restored guest the shell's connection
	// is gone, and its process group with it.
	vitrineOK(t, "exec", "m", "--", "sh", "-c", fmt.Sprintf(
		`nohup sh -c "(while sleep 0.02 && date; do true; done) | netcat 10.0.2.2 %d >/dev/null 2>&1; echo ended > /tmp/end" >/dev/null 2>&1 & sleep 0.1`, port))
	sent := s.awaitMore(t, 0, 0)
	dir := filepath.Join(t.TempDir(), "s")
	vitrineOK(t, "snapshot", "m", dir)
	s.awaitMore(t, 0, sent)
	out := vitrineOK(t, "restore", dir, "--", "sh", "-c",
		fmt.Sprintf("i=0; until [ -s /tmp/end ] || [ $i = 1000 ]; do i=$((i+1)); sleep 0.02; done; cat /tmp/end; echo once more | netcat 10.0.2.2 %d", port))
	if !strings.HasPrefix(out, "ended\n") || s.got[1].Load() != int64(len("once more\n")) {
		t.Errorf("the restored guest says %q, and its next connection carried %d bytes", out, s.got[1].Load())
	}
	s.awaitMore(t, 0, s.got[0].Load())
	g.say("[ ! -e /tmp/end ] || echo ended early")
	if strings.Contains(g.out.String(), "ended early\n") {
		t.Error("the connection of the machine that was saved has ended")
	}
}

// Clones of a machine have its past, and names, random numbers and disks of
// their own; it goes on.
func TestGuestForks(t *testing.T) {
	newState(t)
	img := filepath.Join(t.TempDir(), "disk")
	if err := writeZeros(img, 1<<20); err != nil {
		t.Fatal(err)
	}
	start(t, "m", "--disk", img)
	want(t, "exec", "m", "--", "sh", "-c", "echo past > /tmp/f; echo on-disk | dd of=/dev/vda conv=notrunc 2>/dev/null")
	names := strings.Fields(want(t, "fork", "m", "-n", "3"))
	if len(names) != 3 {
		t.Fatalf("clones: %q", names)
	}
	seen := make(map[string]bool)
	for _, name := range append(names, "m") {
		out := want(t, "exec", name, "--", "sh", "-c",
			"cat /tmp/f; hostname; head -n 1 /dev/vda; echo "+name+" | dd of=/dev/vda conv=notrunc 2>/dev/null; cat /proc/sys/kernel/random/uuid")
		f := strings.Fields(out)
		if len(f) != 4 || f[0] != "past" || f[1] != name || f[2] != "on-disk" || seen[f[3]] {
			t.Errorf("%s says %q", name, out)
			continue
		}
		seen[f[3]] = true
	}
	for _, name := range append(names, "m") {
		if out := want(t, "exec", name, "head", "-n", "1", "/dev/vda"); out != name+"\n" {
			t.Errorf("the disk of %s has %q", name, out)
		}
		want(t, "kill", name)
	}
	var left []string
	for limit := time.Now().Add(acceltest.Limit(30 * time.Second)); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		if left, _ = filepath.Glob(filepath.Join(testCache, "forks", "*")); len(left) == 0 {
			return
		}
	}
	t.Errorf("the clones have left %q", left)
}

// A machine that is still booting has no agent yet that could be told that it
// is a clone now: it is told when it comes, before anybody speaks to it.
func TestForksOfABootingGuest(t *testing.T) {
	newState(t)
	want(t, "run", "-d", "--accel", anyAccel(t), "--name", "m")
	names := strings.Fields(want(t, "fork", "m", "-n", "2"))
	seen := make(map[string]bool)
	for _, name := range append(names, "m") {
		f := strings.Fields(want(t, "exec", name, "--", "sh", "-c", "hostname; cat /proc/sys/kernel/random/uuid"))
		if len(f) != 2 || f[0] != name || seen[f[1]] {
			t.Errorf("%s says %q", name, f)
			continue
		}
		seen[f[1]] = true
		want(t, "kill", name)
	}
}
