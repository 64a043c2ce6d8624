package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func build(t *testing.T, flags string) string {
	t.Helper()
	dir := t.TempDir()
	source, program := filepath.Join(dir, "hello.go"), filepath.Join(dir, "hello")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(len(\"hello\")) }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-ldflags="+flags, "-o", program, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

func TestAlign(t *testing.T) {
	program := build(t, "-s -w -R 0x200000")
	if err := align(program); err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	whole := 0
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_W == 0 {
			whole++
			if p.Vaddr%huge != 0 || p.Off%huge != 0 || p.Filesz%huge != 0 || p.Memsz != p.Filesz {
				t.Errorf("segment %+v is not whole huge pages", p.ProgHeader)
			}
		}
	}
	if whole < 2 {
		t.Errorf("%d read-only segments, want text and data", whole)
	}
	if out, err := exec.Command(program).CombinedOutput(); err != nil || string(out) != "5\n" {
		t.Errorf("it runs no more: %q, %v", out, err)
	}
}

func TestAlignRefuses(t *testing.T) {
	if err := align(build(t, "-s -w")); err == nil {
		t.Error("a program with small pages passed")
	}
	file := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(file, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := align(file); err == nil {
		t.Error("a text file passed")
	}
}
