package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func labRun(t *testing.T, args ...string) (status int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	status = run(t.Context(), append([]string{"vitrine", "lab"}, args...), strings.NewReader(""), &o, &e)
	return status, o.String(), e.String()
}

func TestLabCommands(t *testing.T) {
	status, solution, _ := labRun(t, "solution", "1")
	if status != 0 || !strings.Contains(solution, "jae") {
		t.Fatalf("solution: %d %q", status, solution)
	}
	garbage := filepath.Join(t.TempDir(), "my.bin")
	if err := os.WriteFile(garbage, []byte{0xeb, 0xfe}, 0o600); err != nil { // jmp $
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"ls", 0, "a VM in twelve bytes"},
		{"show 1", 0, "# Lab 1"},
		{"show --lang ko 1", 0, "# 실습 1"},
		{"show --hint 2 1", 0, "2/3"},
		{"show --hint 4 1", statusUsage, "hints 1 to 3"},
		{"show --lang xx 1", statusUsage, "want en or ko"},
		{"show --exercise 3", 0, "The tables for that are missing"},
		{"run --accel ANY 1", 0, "4\n"},
		{"run --accel ANY --limit 100ms 1 " + garbage, statusCrash, "has not halted; it is here"},
		{"run --limit 0s 1", statusUsage, "must be positive"},
		{"run --accel ANY 1 /nonexistent/my.s", statusFailure, "no such file"},
		{"check --accel ANY 1", statusFailure, "not yet: COM1 must send"},
		{"run --accel ANY 5", 0, "read of 1 byte at 0x0: 0x3\n0123\n"},
		{"check --accel ANY 5 my.s", statusUsage, "my.s: lab 5 takes a .go file"},
		{"check --accel ANY 4 my.go", statusUsage, "my.go: lab 4 takes a .s file"},
		{"show --file picture.svg 4", 0, "<svg"},
		{"show --file none.svg 4", statusUsage, "demo.s"},
		{"show --exercise 5", 0, "type Device struct"},
		{"solution 5", 0, "crc32.Update"},
		{"show 77", statusUsage, "no lab \"77\""},
		{"show", statusUsage, "no lab"},
	} {
		status, out, errOut := labRun(t, strings.Fields(strings.ReplaceAll(c.args, "ANY", anyAccel(t)))...)
		if status != c.status || !strings.Contains(out+errOut, c.want) {
			t.Errorf("lab %s: status %d, want %d and %q:\n%s%s", c.args, status, c.status, c.want, out, errOut)
		}
	}
}

func TestLabWithoutTools(t *testing.T) {
	source := filepath.Join(t.TempDir(), "my")
	for _, ext := range []string{".s", ".go"} {
		if err := os.WriteFile(source+ext, []byte("\thlt\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	for args, want := range map[string]string{
		"check --accel ANY 4 " + source + ".s":  "as is not installed: install GNU binutils",
		"run --accel ANY 5 " + source + ".go":   "go is not installed",
		"check --accel ANY 5 " + source + ".go": "go is not installed",
	} {
		status, out, errOut := labRun(t, strings.Fields(strings.ReplaceAll(args, "ANY", anyAccel(t)))...)
		if status != statusFailure || !strings.Contains(out+errOut, want) {
			t.Errorf("lab %s: status %d, want %q:\n%s%s", args, status, want, out, errOut)
		}
	}
}
