package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// A guest computes with vector registers, writes a disk and talks TCP, and is
// saved at two moments that are like any other. It goes on as if nothing had
// been, and so do those that are restored from there, but for their connection,
// which is another.
func TestGuestIsSavedAtItsToil(t *testing.T) {
	for _, c := range []struct{ cpus, transport string }{{"1", "mmio"}, {"4", "pci"}} {
		t.Run(c.cpus+" CPUs "+c.transport, func(t *testing.T) {
			checkToil(t, 300, "--accel", "soft", "--cpus", c.cpus, "--transport", c.transport)
		})
	}
}

func TestGuestIsSavedAtItsToilUnderKVM(t *testing.T) {
	accel := acceltest.Only(t, acceltest.KVM, "TestGuestIsSavedAtItsToil is the same with the other")
	for _, cpus := range []string{"1", "4"} {
		t.Run(cpus+" CPUs", func(t *testing.T) {
			checkToil(t, 60, "--accel", accel, "--memory", "128M", "--cpus", cpus)
		})
	}
}

func checkToil(t *testing.T, rounds int, args ...string) {
	t.Helper()
	top := t.TempDir()
	img := filepath.Join(top, "disk")
	if err := writeZeros(img, 4<<20); err != nil {
		t.Fatal(err)
	}
	g := newGuestShell(t, append(args, "--disk", img+",id=data")...)
	vitrineOK(t, "cp", buildProbe(t), "m:/tmp/probe")
	g.say(fmt.Sprintf("/tmp/probe toil /dev/vda %s %d /tmp/count /tmp/out\nuntil [ -s /tmp/count ]; do sleep 0.1; done", echoForGuests(t), rounds))
	var snapshots []string
	for i := range 2 {
		time.Sleep(time.Duration(rand.IntN(700)) * time.Millisecond)
		dir := filepath.Join(top, fmt.Sprint(i))
		vitrineOK(t, "snapshot", "m", dir)
		snapshots = append(snapshots, dir)
	}
	// The file OUT comes with the last round.
	const rest = "until [ -s /tmp/out ]; do sleep 1; done; cat /tmp/count /tmp/out; read up rest < /proc/uptime; echo $up"
	fine := func(out string, connections int) {
		t.Helper()
		_, vectors, _ := strings.Cut(out, " avx ")
		vectors, _, _ = strings.Cut(vectors, " ")
		want := fmt.Sprintf("%08d\nrounds %d avx %s corrupted 0 wrong 0 lost 0 connections %d\n", rounds-1, rounds, vectors, connections)
		if !strings.HasPrefix(out, want) {
			t.Errorf("the guest says\n%s, want\n%s", out, want)
		}
	}
	fine(vitrineOK(t, "exec", "m", "sh", "-c", rest), 1)
	for _, dir := range snapshots {
		fine(vitrineOK(t, "restore", dir, "--name", "r", "--", "sh", "-c", rest), 2)
	}
}

// echoForGuests sends back what comes, and returns where guests on a user
// network find it.
func echoForGuests(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return fmt.Sprintf("10.0.2.2:%d", l.Addr().(*net.TCPAddr).Port)
}

// buildProbe builds the guest tests' program.
func buildProbe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../../vmm/testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	return path
}
