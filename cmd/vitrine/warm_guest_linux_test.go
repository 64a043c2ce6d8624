package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// warmRun is a run of vitrine run --warm-at.
func warmRun(t *testing.T, ctx context.Context, args ...string) (status int, out string) {
	t.Helper()
	var text syncBuffer
	line := append([]string{"vitrine", "run", "--accel", anyAccel(t)}, args...)
	status = run(ctx, line, strings.NewReader(""), &text, &text)
	return status, text.String()
}

// newCaches gives a test a cache of its own.
func newCaches(t *testing.T) {
	t.Helper()
	t.Setenv("VITRINE_CACHE", t.TempDir())
	t.Setenv("VITRINE_STATE", filepath.Join(t.TempDir(), "run"))
}

func keptMachines(t testing.TB) int {
	t.Helper()
	return strings.Count(vitrineOK(t, "cache", "ls"), "machine: --accel "+anyAccel(t))
}

// A program that was kept in its midst goes on there: its output goes on, and
// its exit status is the run's.
func TestGuestProgramGoesOn(t *testing.T) {
	newCaches(t)
	script := "echo before; echo now we begin; i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo tick $i; sleep 0.01; done; exit 7"
	at := []string{"--net", "none", "--warm-at", "line:we begin", "--", "sh", "-c", script}
	for i := range 3 {
		status, out := warmRun(t, context.Background(), at...)
		if status != 7 || !strings.HasSuffix(out, "tick 39\ntick 40\n") {
			t.Fatalf("run %d: status %d\n%s", i, status, out)
		}
		if begun := strings.HasPrefix(out, "before\nnow we begin\n"); begun != (i == 0) {
			t.Errorf("run %d: %q", i, out)
		}
		for n := 40; n > 20; n-- {
			if strings.Count(out, fmt.Sprintf("tick %d\n", n)) != 1 {
				t.Errorf("run %d: tick %d is not there once:\n%s", i, n, out)
			}
		}
		if kept := keptMachines(t); kept != 1 {
			t.Errorf("after run %d %d machines are kept", i, kept)
		}
	}
	// Another command is another machine; one that ends before is not kept.
	at[len(at)-1] = "echo we begin; exit 3"
	if status, out := warmRun(t, context.Background(), at...); status != 3 || out != "we begin\n" {
		t.Errorf("another command: status %d, %q", status, out)
	}
	before := keptMachines(t)
	at[len(at)-1] = "echo no"
	if status, out := warmRun(t, context.Background(), at...); status != 0 || out != "no\n" || keptMachines(t) != before {
		t.Errorf("a command that never gets there: status %d, %q", status, out)
	}
}

// ask fetches from a published port, until there is an answer.
func ask(t testing.TB, address string) string {
	t.Helper()
	for limit := time.Now().Add(acceltest.Limit(time.Minute)); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err != nil {
			continue
		}
		_ = c.SetDeadline(limit)
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n\r\n")
		b, _ := io.ReadAll(c)
		c.Close()
		if _, body, ok := strings.Cut(string(b), "\r\n\r\n"); ok {
			return body
		}
	}
	t.Fatalf("no answer at %s", address)
	return ""
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// buildServer builds testdata/server.
func buildServer(t testing.TB) (path string) {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command to build the guest's server with")
	}
	path = filepath.Join(t.TempDir(), "server")
	build := exec.Command(tool, "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./testdata/server")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return path
}

// serverDisk is a disk with a server: an archive.
func serverDisk(t testing.TB, binary string) string {
	t.Helper()
	b, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := tar.NewWriter(f)
	err = w.WriteHeader(&tar.Header{Name: "server", Mode: 0o755, Size: int64(len(b))})
	_, werr := w.Write(b)
	if err := errors.Join(err, werr, w.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// serverArgs are the arguments of vitrine run for the server on disk.
func serverArgs(disk, address string) []string {
	return []string{"--warm-at", "listen:8080", "--publish", address + ":8080", "--disk", disk + ",ro", "--",
		"sh", "-c", "tar -x -f /dev/vda /tmp; exec /tmp/server"}
}

// startServer runs the server, and stops it at the end of the test.
func startServer(t *testing.T, disk string) (address string) {
	address = freeAddress(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan string, 1)
	go func() {
		_, out := warmRun(t, ctx, serverArgs(disk, address)...)
		ended <- out
	}()
	t.Cleanup(func() {
		cancel()
		if out := <-ended; t.Failed() {
			t.Log(out)
		}
	})
	return address
}

// A server that was kept listening answers in machines that begin there, at
// the same time too, and none gives the answers of another.
func TestGuestServerIsKeptListening(t *testing.T) {
	newCaches(t)
	seen := make(map[string]bool)
	note := func(answer string) {
		t.Helper()
		if len(answer) != 37 || seen[answer] {
			t.Errorf("the server answers %q; so far %v", answer, seen)
		}
		seen[answer] = true
	}
	disk := serverDisk(t, buildServer(t))
	note(ask(t, startServer(t, disk)))
	for limit := time.Now().Add(acceltest.Limit(time.Minute)); keptMachines(t) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the machine is not kept")
		}
	}
	one, two := startServer(t, disk), startServer(t, disk)
	for range 2 {
		note(ask(t, one))
		note(ask(t, two))
	}
}

// A disk is part of what a machine is known by: one that has changed since is
// not taken for the one that it was kept with.
func TestGuestKeptWithAnotherDisk(t *testing.T) {
	newCaches(t)
	img := filepath.Join(t.TempDir(), "disk")
	at := []string{"--net", "none", "--disk", img + ",ro", "--warm-at", "ready", "--", "sh", "-c",
		"head -n 1 /dev/vda; touch " + readyFile + "; sleep 0.5; echo end"}
	for i, c := range []struct{ disk, says string }{{"first", "first\nend\n"}, {"first", "end\n"}, {"other", "other\nend\n"}} {
		content := make([]byte, 64<<10)
		copy(content, c.disk+"\n")
		if old, err := os.ReadFile(img); err != nil || string(old) != string(content) {
			if err := os.WriteFile(img, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if status, out := warmRun(t, context.Background(), at...); status != 0 || out != c.says {
			t.Errorf("run %d with %s: status %d, %q", i, c.disk, status, out)
		}
	}
}

func TestWarmPoints(t *testing.T) {
	for text, says := range map[string]string{
		"": "", "ready": "", "listen:80": "", "line:a: b": "",
		"listen": "no port", "listen:0": "no port", "listen:65536": "no port", "line:": "no such moment", "line:a\nb": "no such moment", "later": "no such moment",
	} {
		_, err := parseWarmPoint(text)
		if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("--warm-at %q: %v", text, err)
		}
	}
	const table = "  sl  local_address rem_address   st\n   0: 0100007F:1F90 00000000:0000 0A 0\n   1: 0F02000A:0050 0202000A:D431 01 0\n"
	if !listens(table, 8080) || listens(table, 80) || listens(table, 0x1f9) {
		t.Error("a listening socket is not told from others")
	}
	for _, parts := range [][]string{{"we begin\n"}, {"x\nnow we be", "gin he", "re\ny"}, {"we begin", "\n"}} {
		w := &lineWatch{w: io.Discard, text: "we begin"}
		for _, p := range parts {
			if w.found {
				t.Errorf("%q: found before the line's end", parts)
			}
			_, _ = io.WriteString(w, p)
		}
		if !w.found {
			t.Errorf("%q: not found", parts)
		}
	}
	w := &lineWatch{w: io.Discard, text: "we begin"}
	_, _ = io.WriteString(w, "we be\ngin\n"+strings.Repeat("x", 3*maxWatched))
	if w.found || len(w.line) > maxWatched {
		t.Errorf("found %v; %d bytes are kept", w.found, len(w.line))
	}
}
