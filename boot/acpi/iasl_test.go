package acpi

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestIASL has ACPICA's compiler read every table back: it disassembles, and
// what it disassembles compiles to the same bytes without an error or warning.
func TestIASL(t *testing.T) {
	iasl, err := exec.LookPath("iasl")
	if err != nil {
		t.Skip("iasl is not installed (Debian: acpica-tools)")
	}
	for name, c := range testConfigs() {
		t.Run(name, func(t *testing.T) {
			tables, err := Build(c)
			if err != nil {
				t.Fatal(err)
			}
			for _, table := range tables {
				if len(table.Signature) == 4 && table.Signature != "RSDP" {
					recompile(t, iasl, table)
				}
			}
		})
	}
}

var iaslResult = regexp.MustCompile(`(\d+) Errors?, (\d+) Warnings?`)

func recompile(t *testing.T, iasl string, table Table) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, strings.ToLower(table.Signature)+".dat")
	if err := os.WriteFile(path, table.Data, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		cmd := exec.Command(iasl, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: iasl %s: %v\n%s", table.Signature, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	base := strings.TrimSuffix(filepath.Base(path), ".dat")
	if out := run("-d", filepath.Base(path)); strings.Contains(out, "rror") {
		t.Errorf("%s: disassembly:\n%s", table.Signature, out)
	}
	source, err := os.ReadFile(filepath.Join(dir, base+".dsl"))
	if err != nil {
		t.Fatal(err)
	}
	out := run("-p", "again", base+".dsl")
	m := iaslResult.FindStringSubmatch(out)
	if m == nil && strings.Contains(out, "Table") { // a data table: no such line
		m = []string{"", "0", "0"}
	}
	if m == nil || m[1] != "0" || m[2] != "0" {
		t.Errorf("%s: compiler:\n%s\n%s", table.Signature, out, source)
	}
	again, err := os.ReadFile(filepath.Join(dir, "again.aml"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(withoutCompiler(again), withoutCompiler(table.Data)) {
		t.Errorf("%s: compiles to other bytes:\n%x\nwant\n%x\n%s", table.Signature, again, table.Data, source)
	}
}

// withoutCompiler blanks what a compiler fills in with its own: the checksum
// and the creator.
func withoutCompiler(b []byte) []byte {
	b = bytes.Clone(b)
	b[9] = 0
	clear(b[28:36])
	return b
}
