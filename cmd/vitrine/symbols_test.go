package main

import (
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSymbols(t *testing.T) {
	t.Setenv("VITRINE_STATE", t.TempDir())
	for _, kernel := range []string{"lean", "full"} {
		status, o, e := vitrine(nil, "symbols", "--kernel", kernel)
		if status != 0 || !strings.Contains(o, " t start_kernel\n") || !strings.Contains(o, " t entry_SYSCALL_64\n") {
			t.Errorf("%s: %d %q", kernel, status, e)
		}
	}
	file := filepath.Join(t.TempDir(), "lean.elf")
	if status, o, e := vitrine(nil, "symbols", "--elf", file); status != 0 || o+e != "" {
		t.Errorf("--elf: %d %q %q", status, o, e)
	}
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if syms, err := f.Symbols(); err != nil || len(syms) < 1000 {
		t.Errorf("%d symbols, %v", len(syms), err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"symbols", "--kernel", tinyKernel(t, powerOff)}, statusFailure, "CONFIG_KALLSYMS"},
		{[]string{"symbols", "--kernel", "/nonexistent"}, statusFailure, "/nonexistent"},
		{[]string{"symbols", "absent"}, statusFailure, "absent"},
		{[]string{"symbols", "a", "b"}, statusUsage, "unexpected argument"},
		{[]string{"symbols", "--elf", "/nonexistent/x"}, statusFailure, "/nonexistent/x"},
	} {
		if status, _, e := vitrine(nil, c.args...); status != c.status || !strings.Contains(e, c.want) {
			t.Errorf("%v: %d %q", c.args, status, e)
		}
	}
}

// TestGuestFunctionsHaveNames: a trace of the default guest names the functions
// of its kernel.
func TestGuestFunctionsHaveNames(t *testing.T) {
	t.Setenv("VITRINE_STATE", t.TempDir())
	file := filepath.Join(t.TempDir(), "summary")
	status, _, e := vitrine(nil, "trace", "--accel", anyAccel(t), "--summary", "--output", file, "--", "true")
	text, err := os.ReadFile(file)
	if status != 0 || err != nil || !strings.Contains(string(text), "virtio_mmio_probe") {
		t.Errorf("%d %v %s %s", status, err, e, text)
	}
}
