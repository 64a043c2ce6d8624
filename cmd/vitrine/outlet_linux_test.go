package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// chatter is a guest that writes to its console for ever: mov edx, 0x3f8; mov
// al, 'x'; out dx, al; jmp -3.
var chatter = []byte{0xba, 0xf8, 0x03, 0, 0, 0xb0, 'x', 0xee, 0xeb, 0xfd}

// filled waits until the pipe f takes no more.
func filled(t *testing.T, f *os.File) {
	t.Helper()
	for range 6000 {
		if !writable(f, 10*time.Millisecond) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nothing fills the pipe")
}

// endsBy signals the program and returns how it ended.
func endsBy(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) syscall.WaitStatus {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	return ended(t, cmd)
}

func ended(t *testing.T, cmd *exec.Cmd) syscall.WaitStatus {
	t.Helper()
	kill := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	if !kill.Stop() {
		t.Error("it does not end")
	}
	leavesNothing(t, cmd)
	return cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// watchingEndless are commands with output that has no end, to FILE or where
// stdout or stderr says.
func watchingEndless(t *testing.T) map[string]struct {
	args           []string
	stdout, stderr bool
} {
	end := func(command string, more ...string) []string {
		return append(watched(t, command, "soft", chatter), more...)
	}
	return map[string]struct {
		args           []string
		stdout, stderr bool
	}{
		"output":       {args: end("trace", "--console", "none", "--output", "FILE")},
		"instructions": {args: end("trace", "--console", "none", "--instructions", "--output", "FILE")},
		"json":         {args: end("trace", "--console", "none", "--instructions", "--json"), stderr: true},
		"stderr":       {args: end("trace", "--console", "none", "--instructions"), stderr: true},
		"perfetto":     {args: end("trace", "--console", "none", "--perfetto", "FILE")},
		"record":       {args: end("record", "--console", "none", "--output", "FILE")},
		"console":      {args: end("run"), stdout: true},
	}
}

// TestOutputThatNobodyReads: a command whose output is stuck ends by a signal.
func TestOutputThatNobodyReads(t *testing.T) {
	for name, c := range watchingEndless(t) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			t.Run(fmt.Sprint(name, sig), func(t *testing.T) {
				t.Parallel()
				pipe := filepath.Join(t.TempDir(), "pipe")
				if err := unix.Mkfifo(pipe, 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := os.OpenFile(pipe, os.O_RDWR, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				cmd := program(t, c.args...)
				for i := range cmd.Args {
					cmd.Args[i] = strings.Replace(cmd.Args[i], "FILE", pipe, 1)
				}
				if c.stdout {
					cmd.Stdout = f
				}
				if c.stderr {
					cmd.Stderr = f
				}
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				filled(t, f)
				if s := endsBy(t, cmd, sig); s.ExitStatus() != statusSignal+int(sig) {
					t.Errorf("it ends with %#x", s)
				}
			})
		}
	}
}

// TestOutputPipeWithoutAReader: opening it waits, but not against a signal.
func TestOutputPipeWithoutAReader(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := program(t, append(watched(t, "trace", "soft", chatter), "--output", pipe)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // most likely it opens by now
	if s := endsBy(t, cmd, syscall.SIGTERM); s.ExitStatus() != 143 && s.Signal() != syscall.SIGTERM {
		t.Errorf("it ends with %#x", s)
	}
}

// TestReaderThatLeaves: a command whose reader leaves ends as others do by
// SIGPIPE, without a word, and leaves no dead machine behind.
func TestReaderThatLeaves(t *testing.T) {
	for name, c := range watchingEndless(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := program(t, c.args...)
			for i := range cmd.Args {
				cmd.Args[i] = strings.Replace(cmd.Args[i], "FILE", "/dev/stdout", 1)
			}
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = w, &said
			if c.stderr {
				cmd.Stdout, cmd.Stderr = nil, w
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_ = w.Close()
			if n, err := r.Read(make([]byte, 1)); n != 1 {
				t.Fatalf("it writes nothing: %v, %q", err, said.String())
			}
			_ = r.Close()
			if s := ended(t, cmd); s.ExitStatus() != int(statusPipe) || said.Len() > 0 {
				t.Errorf("it ends with %#x and %q", s, said.String())
			}
			list := program(t, "ps", "-a")
			list.Env = cmd.Env
			if out, err := list.Output(); err != nil || strings.Contains(string(out), "dead") {
				t.Errorf("machines afterwards: %s, %v", out, err)
			}
		})
	}
}

// TestFullDisk: what cannot be written is one clear error, whatever it is.
func TestFullDisk(t *testing.T) {
	tiny := func(command string, more ...string) []string {
		return append(watched(t, command, "soft", out(0x3f8, 'H'), powerOff, forever), more...)
	}
	for name, c := range map[string]struct {
		args   []string
		stdout bool
	}{
		"output":       {args: tiny("trace", "--output", "/dev/full")},
		"instructions": {args: tiny("trace", "--instructions", "--output", "/dev/full")},
		"summary":      {args: tiny("trace", "--summary", "--output", "/dev/full")},
		"json":         {args: tiny("trace", "--json", "--output", "/dev/full")},
		"perfetto":     {args: tiny("trace", "--perfetto", "/dev/full")},
		"pcap":         {args: tiny("trace", "--pcap", "/dev/full")},
		"record":       {args: tiny("record", "--output", "/dev/full")},
		"console":      {args: tiny("run"), stdout: true},
		"ps":           {args: []string{"ps", "-a"}, stdout: true},
		"version":      {args: []string{"--version"}, stdout: true},
		"help":         {args: []string{"trace", "--help"}, stdout: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer full.Close()
			cmd := program(t, c.args...)
			var said bytes.Buffer
			cmd.Stderr = &said
			if c.stdout {
				cmd.Stdout = full
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			s := ended(t, cmd)
			if s.ExitStatus() != statusFailure || strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), "no space left on device") {
				t.Errorf("it ends with %#x and %q", s, said.String())
			}
		})
	}
}
