package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
)

// guestInit is the program that is PID 1 in the default guest; here it runs on
// the host, serving what it is given as standard input.
var guestInit = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "agent-test-")
	if err != nil {
		return "", err
	}
	path, err := guestimages.Path(dir, guestimages.Init)
	if err != nil {
		return "", err
	}
	return path, os.Chmod(path, 0o500)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := guestInit(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// testClient is a client whose connections each reach a process of init.
type testClient struct {
	*Client
	started func(*exec.Cmd) // if set, it waits for the process
}

func newClient(t *testing.T) *testClient {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the agent is a Linux program for x86-64")
	}
	path, err := guestInit()
	if err != nil {
		t.Fatal(err)
	}
	c := &testClient{}
	c.Client = New(func(context.Context) (net.Conn, error) {
		theirs, ours, err := socketPair()
		if err != nil {
			return nil, err
		}
		defer theirs.Close()
		defer ours.Close()
		cmd := exec.Command(path, "--serve-stdin")
		cmd.Stdin, cmd.Stderr = theirs, os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		if c.started != nil {
			c.started(cmd)
		} else {
			t.Cleanup(func() { _ = cmd.Wait() })
		}
		return net.FileConn(ours)
	})
	return c
}

func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func TestPing(t *testing.T) {
	info, err := newClient(t).Ping(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	if info.Version != 1 || info.Hostname != host || info.Uptime <= 0 || time.Since(info.Clock).Abs() > time.Minute {
		t.Errorf("info %+v", info)
	}
}

func TestExecStatusAndStreams(t *testing.T) {
	c := newClient(t)
	for _, test := range []struct {
		script string
		in     string
		want   Status
		out    string
		errOut string
	}{
		{"exit 0", "", Status{}, "", ""},
		{"exit 7", "", Status{Code: 7}, "", ""},
		{"kill -9 $$", "", Status{Signal: 9}, "", ""},
		{"echo out; echo err >&2; exit 255", "", Status{Code: 255}, "out\n", "err\n"},
		{"cat; cat >&2", "in\n", Status{}, "in\n", ""},
		{"pwd; echo $A; echo $#", "", Status{}, "/tmp\nb c\n0\n", ""},
		{"sleep 100 & echo early", "", Status{}, "early\n", ""},
	} {
		var out, errOut bytes.Buffer
		got, err := c.Exec(timeout(t), &Command{
			Args: sh(test.script), Env: []string{"A=b c", "PATH=/bin:/usr/bin"}, Dir: "/tmp",
			Stdin: strings.NewReader(test.in), Stdout: &out, Stderr: &errOut,
		})
		if err != nil || got != test.want || out.String() != test.out || errOut.String() != test.errOut {
			t.Errorf("%q: %+v, %v, %q, %q; want %+v, %q, %q", test.script, got, err, out.String(), errOut.String(), test.want, test.out, test.errOut)
		}
	}
}

func TestExecFindsPrograms(t *testing.T) {
	c := newClient(t)
	env := []string{"PATH=/nonexistent:/usr/bin:/bin"}
	for _, test := range []struct {
		arg  string
		code int // 0: it runs
	}{{"true", 0}, {"/bin/true", 0}, {"no-such-program", 127}, {"/etc/passwd", 126}, {"/no/such", 127}} {
		_, err := c.Exec(timeout(t), &Command{Args: []string{test.arg}, Env: env})
		var e *Error
		switch {
		case test.code == 0 && err != nil:
			t.Errorf("%s: %v", test.arg, err)
		case test.code != 0 && (!errors.As(err, &e) || e.ExitCode() != test.code):
			t.Errorf("%s: %v, want an exit code of %d", test.arg, err, test.code)
		}
	}
	if _, err := c.Exec(timeout(t), &Command{Args: []string{"no-such"}, Env: env}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v is not fs.ErrNotExist", err)
	}
}

// A megabyte each way, of every byte value, must arrive whole: the windows and
// buffers on the way are far smaller.
func TestExecMovesData(t *testing.T) {
	data := make([]byte, 1<<20+17)
	_, _ = rand.Read(data)
	var out bytes.Buffer
	status, err := newClient(t).Exec(timeout(t), &Command{Args: sh("cat"), Stdin: bytes.NewReader(data), Stdout: &out})
	if err != nil || status != (Status{}) || !bytes.Equal(out.Bytes(), data) {
		t.Fatalf("%+v, %v, %d bytes of %d", status, err, out.Len(), len(data))
	}
}

func TestExecInputNobodyReads(t *testing.T) {
	status, err := newClient(t).Exec(timeout(t), &Command{Args: sh("exit 3"), Stdin: bytes.NewReader(make([]byte, 1<<20))})
	if err != nil || status.Code != 3 {
		t.Fatalf("%+v, %v", status, err)
	}
}

func TestExecTerminal(t *testing.T) {
	resize := make(chan Size)
	in, typed := io.Pipe()
	out := &watched{}
	go func() {
		out.await("40 100")
		resize <- Size{50, 132}
		out.await("resized 50 132")
		_, _ = io.WriteString(typed, "hello\n")
		_ = typed.Close()
	}()
	status, err := newClient(t).Exec(timeout(t), &Command{
		Args: sh(`trap 'echo resized $(stty size)' WINCH; tty >/dev/null && stty size; for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2; done; read x; echo "got $x"; cat; exit 5`),
		TTY:  true, Size: Size{40, 100}, Resize: resize, Stdin: in, Stdout: out,
	})
	text := out.String()
	if err != nil || status.Code != 5 || !strings.Contains(text, "got hello") {
		t.Fatalf("%+v, %v, %q", status, err, text)
	}
}

// watched is a writer whose content can be waited for.
type watched struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func (w *watched) await(s string) {
	for !strings.Contains(w.String(), s) {
		time.Sleep(5 * time.Millisecond)
	}
}

func TestExecSignal(t *testing.T) {
	signals := make(chan uint32, 1)
	out := &watched{}
	go func() {
		out.await("ready")
		signals <- 15
	}()
	status, err := newClient(t).Exec(timeout(t), &Command{Args: sh("trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"), Stdout: out, Signals: signals})
	if err != nil || status.Code != 9 {
		t.Fatalf("%+v, %v", status, err)
	}
}

func TestExecCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(timeout(t))
	file := filepath.Join(t.TempDir(), "hung-up")
	out := &watched{}
	why := errors.New("enough")
	go func() {
		out.await("ready")
		cancel(why)
	}()
	_, err := newClient(t).Exec(ctx, &Command{Args: sh("exec 2>/dev/null; trap 'touch " + file + "; exit' HUP; echo ready; while :; do sleep 0.1; done"), Stdout: out})
	if !errors.Is(err, why) {
		t.Fatalf("error %v, want the cause", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the program did not learn that its host hung up")
		}
	}
}
