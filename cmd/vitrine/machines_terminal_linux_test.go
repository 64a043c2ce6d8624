package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// seat is a user at a terminal who has given a command line.
type seat struct {
	t      *testing.T
	master *os.File
	tty    *os.File
	screen syncBuffer
	leave  context.CancelFunc
	ended  chan int
}

// sit runs a command line at a terminal of 50 lines and 132 columns.
func sit(t *testing.T, args ...string) *seat {
	t.Helper()
	s := &seat{t: t, ended: make(chan int, 1)}
	s.master, s.tty = openPTY(t)
	if err := unix.IoctlSetWinsize(int(s.tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, s.leave = context.WithCancel(context.Background())
	t.Cleanup(s.leave)
	go io.Copy(&s.screen, s.master)
	go func() { s.ended <- run(ctx, append([]string{"vitrine"}, args...), s.tty, s.tty, s.tty) }()
	return s
}

func (s *seat) types(text string) {
	s.t.Helper()
	if _, err := io.WriteString(s.master, text); err != nil {
		s.t.Fatal(err)
	}
}

// sees waits until the screen has shown text.
func (s *seat) sees(text string) {
	s.t.Helper()
	for deadline := time.Now().Add(acceltest.Limit(time.Minute)); !strings.Contains(s.screen.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("want %q on the screen, which has %q", text, s.screen.String())
		}
	}
}

// status waits for the command to end.
func (s *seat) status() int {
	s.t.Helper()
	select {
	case n := <-s.ended:
		return n
	case <-time.After(acceltest.Limit(time.Minute)):
		s.t.Fatalf("the command does not end; the screen has %q", s.screen.String())
		return -1
	}
}

func TestExecWithATerminal(t *testing.T) {
	newState(t)
	start(t, "term")
	s := sit(t, "exec", "-t", "term", "sh", "-c", "tty; stty; read x; echo got $x; exit 3")
	before := settings(t, s.tty)
	s.sees("/dev/pts/")
	s.sees("cols:132")
	s.sees("rows:50")
	s.types("a line\r")
	s.sees("got a line")
	if n := s.status(); n != 3 {
		t.Errorf("status %d, want the command's", n)
	}
	if settings(t, s.tty) != before {
		t.Error("the terminal is not as it was")
	}
	// Without a command there is a shell, and Ctrl-C is the guest's.
	s = sit(t, "exec", "term")
	s.sees("# ")
	s.types("echo begin; sleep 1000\r")
	s.sees("\r\nbegin")
	prompts := func() int { return strings.Count(s.screen.String(), "# ") }
	for before := prompts(); prompts() == before; { // the first may come before there is something to end
		s.types("\x03")
		for wait := 0; wait < 100 && prompts() == before; wait++ {
			time.Sleep(10 * time.Millisecond)
		}
	}
	s.types("echo $((6*7))0\r")
	s.sees("420")
	s.types("exit 5\r")
	if n := s.status(); n != 5 {
		t.Errorf("status %d of the shell, want 5", n)
	}
	want(t, "rm", "-f", "term")
}

func TestAttachAndDetach(t *testing.T) {
	newState(t)
	start(t, "work", "--tty", "--", "sh", "-c", "while read x; do echo got $x; stty; test $x = end && exit 4; done")
	s := sit(t, "attach", "work")
	before := settings(t, s.tty)
	s.types("one\r")
	s.sees("got one")
	for range 100 { // the size comes on a way of its own
		if s.types("more\r"); strings.Contains(s.screen.String(), "cols:132") {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.sees("rows:50")
	s.types("\x01d")
	if n := s.status(); n != 0 {
		t.Errorf("detached with status %d", n)
	}
	if settings(t, s.tty) != before {
		t.Error("the terminal is not as it was")
	}
	if got := want(t, "ps", "-q"); got != "work\n" {
		t.Fatalf("after the detach ps lists %q", got)
	}
	s = sit(t, "attach", "work") // its last words are still there
	s.sees("got more")
	s.types("end\r")
	s.status()
	if n, _, stderr := command("wait", "work"); n != 4 {
		t.Errorf("wait: status %d, %s", n, stderr)
	}
}

func TestWhoMayOnlyWatchIsToldWhy(t *testing.T) {
	newState(t)
	start(t, "deaf", "--", "sh", "-c", "echo hello; cat; sleep 1000")
	s := sit(t, "attach", "deaf")
	s.sees("start it with --interactive or --tty")
	s.sees("hello")
	s.types("\x01d")
	if n := s.status(); n != 0 {
		t.Errorf("status %d", n)
	}
	want(t, "rm", "-f", "deaf")
}

// What a command in the background reads without a terminal, and that both of
// its outputs are the console's.
func TestInteractiveCommand(t *testing.T) {
	newState(t)
	start(t, "pipe", "-i", "--", "sh", "-c", "echo ready >&2; read x; echo got $x; sleep 1000")
	r, w := io.Pipe()
	defer w.Close()
	var out, errs syncBuffer
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"vitrine", "attach", "pipe"}, r, &out, &errs) }()
	if _, err := io.WriteString(w, "a word\n"); err != nil {
		t.Fatal(err)
	}
	// The two streams come as they come.
	for deadline := time.Now().Add(acceltest.Limit(time.Minute)); !strings.Contains(out.String(), "ready") || !strings.Contains(out.String(), "got a word"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the console has %q, errors %q", out.String(), errs.String())
		}
	}
	if got := want(t, "logs", "pipe"); !strings.Contains(got, "ready") || !strings.Contains(got, "got a word") {
		t.Errorf("logs: %q", got)
	}
	want(t, "kill", "pipe")
	select {
	case <-ended:
	case <-time.After(acceltest.Limit(time.Minute)):
		t.Fatal("the console does not end with the machine")
	}
}

func TestTopAndStatsGoOn(t *testing.T) {
	newState(t)
	start(t, "busy")
	s := sit(t, "top")
	frames := func() int { return strings.Count(s.screen.String(), "vitrine top · ") }
	for deadline := time.Now().Add(acceltest.Limit(time.Minute)); frames() < 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the screen has %q", s.screen.String())
		}
	}
	for _, text := range []string{"1 machines", "busy", "%", "MiB"} {
		s.sees(text)
	}
	s.leave()
	if n := s.status(); n != 0 {
		t.Errorf("top ends with status %d", n)
	}

	s = sit(t, "stats", "--watch", "busy")
	for deadline := time.Now().Add(acceltest.Limit(time.Minute)); strings.Count(s.screen.String(), "NAME ") < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("stats --watch has shown %q", s.screen.String())
		}
	}
	s.leave()
	s.status()

	var out, errs syncBuffer
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"vitrine", "stats", "--watch", "--json", "busy"}, strings.NewReader(""), &out, &errs)
	}()
	for deadline := time.Now().Add(acceltest.Limit(time.Minute)); strings.Count(out.String(), "\n") < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("stats --watch --json has printed %q, %s", out.String(), errs.String())
		}
	}
	leave()
	<-ended
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is no JSON", line)
		}
	}
	want(t, "rm", "-f", "busy")
}
