package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

func TestEmbeddedGuestDeterministicRunsHaveTheSameTrace(t *testing.T) {
	acceltest.Only(t, acceltest.Soft, deterministic)
	t.Setenv("VITRINE_CACHE", testCache)
	for _, cpus := range []string{"1", "2"} {
		var traces [2][]byte
		for i := range traces {
			path := filepath.Join(t.TempDir(), "trace")
			var out, errOut syncBuffer
			status := run(context.Background(), []string{"vitrine", "trace", "--deterministic", "--cpus", cpus, "--json", "--output", path,
				"--", "sh", "-c", "echo 'h i'; exit 3"}, strings.NewReader(""), &out, &errOut)
			if status != 3 || out.String() != "h i\n" {
				t.Fatalf("status %d, output %q, errors %q", status, out.String(), errOut.String())
			}
			var err error
			if traces[i], err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
		}
		if n := bytes.Count(traces[0], []byte("\n")); n < 1000 {
			t.Errorf("%s CPUs: only %d events", cpus, n)
		}
		if !bytes.Equal(traces[0], traces[1]) {
			a, b := bytes.Split(traces[0], []byte("\n")), bytes.Split(traces[1], []byte("\n"))
			for i := range min(len(a), len(b)) {
				if !bytes.Equal(a[i], b[i]) {
					t.Fatalf("%s CPUs: event %d differs:\n%s\n%s", cpus, i, a[i], b[i])
				}
			}
			t.Fatalf("%s CPUs: %d and %d events", cpus, len(a), len(b))
		}
	}
}

func TestDeterministicRefusesWhatComesFromOutside(t *testing.T) {
	for _, args := range [][]string{
		{"--accel", "kvm"}, {"--net", "user"}, {"--publish", "8080"}, {"--detach"}, {"--vsock", "x"}, {"--balloon"}, {"--gdb", "stdio"},
	} {
		var errOut syncBuffer
		line := append(append([]string{"vitrine", "run", "--deterministic"}, args...), "--", "true")
		if status := run(context.Background(), line, strings.NewReader(""), io.Discard, &errOut); status != statusUsage {
			t.Errorf("%v: status %d: %s", args, status, errOut.String())
		}
	}
}

func TestRecordedSessionFindsTheOutput(t *testing.T) {
	var out bytes.Buffer
	s := &recordedSession{out: &out}
	for _, b := range []byte("boot\r\n# printf '\\035vitrine-%s\\n' begin\r\n" + beginMark + "a\r\nb\x1dc\r\rd\r\n" + endMark + "7\r\nrest") {
		if _, err := s.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if want := "a\nb\x1dc\r\rd\n"; out.String() != want {
		t.Errorf("output %q, want %q", out.String(), want)
	}
	if err := s.result(); err != exitStatus(7) {
		t.Errorf("result %v", err)
	}
	if err := new(recordedSession).result(); err != errNoCommandEnd {
		t.Errorf("without an end: %v", err)
	}
}
