// Package lab runs the course of docs/labs: tiny programs in a machine that has
// nothing else, and checks of what they did that say in words which invariant
// is broken.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vitrine-vmm/vitrine/docs/labs"
)

// Lab is one lab of the course.
type Lab struct {
	Number int
	Folder string // in docs/labs
	Title  string
	Demo   Start                   // what the demonstration begins with
	cases  func() ([]Start, error) // what the exercise is checked with
	check  func(r *Result) []string
}

// All are the labs in their order.
func All() []Lab {
	return append([]Lab{
		{1, "01-twelve-bytes", "a VM in twelve bytes", Start{AX: 2, BX: 2}, these(Start{AX: 3}, Start{}, Start{AX: 9}), checkCountdown},
		{2, "02-run-loop", "the run loop and registers", Start{}, these(Start{BX: 5}, Start{BX: 12}), checkAnswer},
		{3, "03-long-mode", "protected and long mode, page tables", Start{}, these(Start{}), checkWindow},
		{4, "04-interrupts", "a UART and interrupts", Start{Input: "hello\n"},
			these(Start{Input: "vitrine\n"}, Start{Input: "a line that is longer than a FIFO\n"}), checkEcho},
		{Number: 5, Folder: deviceFolder, Title: "MMIO and a device of your own"},
		{6, "06-virtio-blk", "a virtio-blk driver from scratch", diskStart(0), these(diskStart(1), diskStart(6)), checkDisk},
		{7, "07-two-cpus", "two CPUs (INIT, SIPI)", cpusStart(2), these(cpusStart(2), cpusStart(4)), checkCPUs},
		{Number: 8, Folder: bootFolder, Title: "the Linux boot protocol by hand", Demo: headerStart()},
	}, later()...)
}

// these are cases that need no work.
func these(s ...Start) func() ([]Start, error) {
	return func() ([]Start, error) { return s, nil }
}

// Find is the lab with a number.
func Find(number string) (Lab, error) {
	for _, l := range All() {
		if n := strings.TrimLeft(number, "0"); n == fmt.Sprint(l.Number) {
			return l, nil
		}
	}
	return Lab{}, fmt.Errorf("no lab %q: there are 1 to %d", number, All()[len(All())-1].Number)
}

// File reads one of the lab's files.
func (l Lab) File(name string) ([]byte, error) { return labs.Files.ReadFile(l.Folder + "/" + name) }

// Files are the names of the lab's files.
func (l Lab) Files() (names []string, err error) {
	entries, err := labs.Files.ReadDir(l.Folder)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Hints are the lab's hints, in English or Korean ("ko").
func (l Lab) Hints(lang string) ([]string, error) {
	b, err := l.File("hints.txt")
	if err != nil {
		return nil, err
	}
	en, ko, _ := strings.Cut(string(b), "===\n")
	if lang == "ko" {
		en = ko
	}
	return strings.Split(strings.TrimSpace(en), "\n"), nil
}

// Check runs a program in each of the lab's cases and returns what is wrong
// with the first that fails; nothing if the exercise is solved.
func (l Lab) Check(ctx context.Context, program []byte, o Options) ([]string, error) {
	if judge := ways[l.Number].judge; judge != nil {
		return judge(ctx, program, o)
	}
	cases, err := l.cases()
	if err != nil {
		return nil, err
	}
	for _, s := range cases {
		r, err := Run(ctx, program, s, o)
		if err != nil {
			return nil, err
		}
		broken := l.check(r)
		if !r.Halted {
			broken = append([]string{"the program ends by HLT with interrupts off, and this one does not: " + r.Why}, broken...)
		}
		if err := r.Close(); err != nil || len(broken) > 0 {
			return broken, err
		}
	}
	return nil, nil
}

// Program reads a program from a file: an assembler source (.s), which is
// assembled, or a flat binary.
func Program(ctx context.Context, file string) ([]byte, error) {
	if filepath.Ext(file) != ".s" {
		return readProgram(file)
	}
	if _, err := os.Stat(file); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vitrine-lab")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	object, binary := filepath.Join(dir, "a.o"), filepath.Join(dir, "a.bin")
	for _, command := range [][]string{
		{"as", "--64", "-o", object, file},
		{"ld", "-m", "elf_x86_64", "-Ttext", "0x8000", "-e", "0x8000", "--oformat", "binary", "-o", binary, object},
	} {
		said, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s is not installed: install GNU binutils (Debian: apt install binutils), or give a flat binary instead of %s", command[0], file)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w\n%s", command[0], file, err, strings.TrimSpace(string(said)))
		}
	}
	return readProgram(binary)
}

func readProgram(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxProgram {
		return nil, fmt.Errorf("%s: not a program of at most %d bytes", file, maxProgram)
	}
	return os.ReadFile(file)
}
