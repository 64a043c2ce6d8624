package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/compare"
)

func TestCompareRefuses(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "garbage.json")
	if err := os.WriteFile(garbage, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"--only runcc", statusUsage, `unknown engine "runcc": known are process, namespaces, runc, crun`},
		{"--skip process,x", statusUsage, `unknown engine "x"`},
		{"--workload disk", statusUsage, `unknown workload "disk": known are cpu, memory, files, syscalls`},
		{"--runs 0", statusUsage, "0 runs: use 1 to 10000"},
		{"--scale 1,two", statusUsage, "is no number"},
		{"--scale 4,2", statusUsage, "rising numbers"},
		{"--timeout 0s", statusUsage, "must be more than nothing"},
		{"--budget -1s", statusUsage, "must be more than nothing"},
		{"--lang fr", statusUsage, "en or ko"},
		{"runc", statusUsage, "engines are named with --only"},
		{"--from /no/such/file", statusFailure, "no such file"},
		{"--from " + garbage, statusFailure, "not a comparison"},
	} {
		status, out, err := vitrine(nil, append([]string{"compare"}, strings.Fields(c.args)...)...)
		if status != c.status || !strings.Contains(err, c.want) || strings.Count(err, "\n") != 1 {
			t.Errorf("%s: status %d, want %d; said %q, want one line with %q", c.args, status, c.status, err, c.want)
		}
		if out != "" {
			t.Errorf("%s: printed %q", c.args, out)
		}
	}
}

func TestCompareInstallHelp(t *testing.T) {
	status, out, _ := vitrine(nil, "compare", "--install-help")
	for _, w := range []string{"apt-get install runc", "apt-get install runsc", "firecracker", "go install github.com/bobuhiro11/gokvm"} {
		if status != 0 || !strings.Contains(out, w) {
			t.Errorf("status %d, no %q in %s", status, w, out)
		}
	}
}

// TestCompareHangingEngine: an engine that hangs is killed after its time-out
// and listed with the reason; the others are measured, kept and drawn again.
func TestCompareHangingEngine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("comparisons are measured on Linux only")
	}
	dir := t.TempDir()
	hangs := "#!/bin/sh\n[ \"$1\" = --version ] && echo QEMU that hangs && exit\nexec sleep 1234567\n"
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte(hangs), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("VITRINE_CACHE", testCache)
	json, report := filepath.Join(dir, "c.json"), filepath.Join(dir, "report")
	status, out, err := vitrine(nil, "compare", "--only", "process,qemu-tcg", "--runs", "2", "--scale", "1", "--timeout", "2s", "--json", json, "--report", report)
	if status != 0 {
		t.Fatalf("status %d: %s", status, err)
	}
	table, skipped, _ := strings.Cut(out, "Not measured:")
	if !strings.Contains(table, "\nprocess ") || !strings.Contains(skipped, "qemu-tcg") || !strings.Contains(skipped, "killed after the time-out of 2s") {
		t.Errorf("want process measured and qemu-tcg with its reason:\n%s", out)
	}
	for _, step := range []string{"looking for process", "warming up: process", "round 2 of 2: process", "CPU over time, density: process"} {
		if !strings.Contains(err, step) {
			t.Errorf("no progress %q in %s", step, err)
		}
	}
	if left := processesWith("sleep\x001234567"); len(left) > 0 {
		t.Errorf("what hung is left: %v", left)
	}
	status, again, err := vitrine(nil, "compare", "--from", json)
	if status != 0 || again != out {
		t.Errorf("--from: status %d, %s; drew\n%s\nwant\n%s", status, err, again, out)
	}
	if status, korean, _ := vitrine(nil, "compare", "--from", json, "--lang", "ko"); status != 0 || !strings.Contains(korean, "시작 시간") {
		t.Errorf("--lang ko: status %d: %s", status, korean)
	}
	page, _ := os.ReadFile(filepath.Join(report, "index.html"))
	if !strings.Contains(string(page), "killed after the time-out") {
		t.Error("the page does not say what hung")
	}
}

// processesWith are the command lines of processes that have the words.
func processesWith(words string) (found []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), words) {
			found = append(found, string(b))
		}
	}
	return found
}

// TestCompareProgress: a bar that overwrites itself on a terminal, lines that
// are not repeated elsewhere.
func TestCompareProgress(t *testing.T) {
	var bar, lines strings.Builder
	for _, p := range []*progress{{w: &bar, tty: true}, {w: &lines}} {
		p.show(compare.Progress{Part: 1, Parts: 4, What: "round 1 of 2: runc"})
		p.show(compare.Progress{Part: 1, Parts: 4, What: "round 1 of 2: runc"})
		p.done()
	}
	if s := bar.String(); strings.Contains(s, "\n") || !strings.Contains(s, "["+strings.Repeat("█", 6)+strings.Repeat("·", 18)+"]  25 %  round 1 of 2: runc") || !strings.HasSuffix(s, "\r\x1b[K") {
		t.Errorf("the bar: %q", s)
	}
	if s := lines.String(); s != "vitrine: 1/4 round 1 of 2: runc\n" {
		t.Errorf("the lines: %q", s)
	}
}
