package compare

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Engine runs the program in one way. A comparison calls Prepare once, then
// Command for each instance and, after the command has ended or was killed,
// Remove; Close in the end.
type Engine interface {
	Info() Info
	// Prepare finds out whether the engine works here; the error says why not.
	Prepare(ctx context.Context, s *Site) error
	// Command is what starts the instance id, with the program's output as its
	// standard output. It ends when the program ends.
	Command(id string, j Job) *exec.Cmd
	// Remove leaves nothing of an instance whose command has ended, however it
	// ended: no process, container, cgroup, mount.
	Remove(ctx context.Context, id string) error
	Close() error
}

// Info is what an engine is.
type Info struct {
	Name    string
	Title   string
	Kind    Kind
	Version string
	Note    string
	Disk    []DiskItem

	// HideUnified: start commands where the cgroup v2 hierarchy that is mounted
	// beside cgroup v1 is not seen.
	HideUnified bool
	// Daemons serve all instances.
	Daemons []int
	// OwnStatus: the command's exit status is the program's.
	OwnStatus bool
	// KillAtEnd: the command does not end by itself.
	KillAtEnd bool
	// GaveUp is what the engine says on standard error when it will not go on
	// and does not end either, if it has such a word.
	GaveUp string
	// RAM is a machine's, in bytes.
	RAM uint64
}

// fallback is an Engine that has several ways to run the program.
type fallback interface {
	// Next goes on to the next way, because of err; false: there is none.
	Next(err error) bool
}

// finder is an Engine of which not all processes are its command's children.
type finder interface {
	// Names returns words of which one stands in the command line of each
	// process that belongs to the instance but is no child of its command.
	Names(id string) []string
}

// backed is an Engine whose machines' RAM is mapped from files.
type backed interface {
	// RAMFiles are those that exist for this instance alone.
	RAMFiles(id string) []string
}

// Job is what the program is to do.
type Job struct {
	List   string // see probe/probe.c
	Status int    // its exit status
}

func (j Job) args() []string { return []string{j.List, fmt.Sprint(j.Status)} }

//go:embed probe/probe
var probe []byte

// Site is the folder that a comparison works in, with the root file system in
// both its forms.
type Site struct {
	Dir    string // its name is a prefix of every instance's
	Root   string // a folder
	Initrd string // the same as an initramfs
	Config *Config
	Cgroup string // name of the cgroup that instances are made in, where an engine lets one choose
}

// newSite makes the folder: in memory where that can hold programs, so that
// every engine's ./tmp is in memory as a machine's initramfs is.
func newSite(c *Config) (*Site, error) {
	pattern := fmt.Sprintf("vitrine-compare-%d-", os.Getpid())
	dir, err := os.MkdirTemp("/dev/shm", pattern)
	if err == nil && !canExecute(dir) {
		os.RemoveAll(dir)
		err = errors.ErrUnsupported
	}
	if err != nil {
		if dir, err = os.MkdirTemp("", pattern); err != nil {
			return nil, fmt.Errorf("make a folder to work in: %w: set TMPDIR to one that you may write to", err)
		}
	}
	s := &Site{Dir: dir, Root: filepath.Join(dir, "root"), Initrd: filepath.Join(dir, "root.cpio"), Config: c}
	s.Cgroup = filepath.Base(dir)
	if err := s.fill(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Site) fill() error {
	for _, d := range rootFolders {
		if err := os.MkdirAll(filepath.Join(s.Root, d), 0o755); err != nil {
			return err
		}
	}
	// Rootless engines map the user to another who must be able to pass.
	if err := errors.Join(os.Chmod(s.Dir, 0o755), os.Chmod(filepath.Join(s.Root, "tmp"), 0o777)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.Root, "probe"), probe, 0o755); err != nil {
		return err
	}
	return os.WriteFile(s.Initrd, initramfs(probe), 0o644)
}

func canExecute(dir string) bool {
	path := filepath.Join(dir, "try")
	defer os.Remove(path)
	return os.WriteFile(path, probe, 0o755) == nil && exec.Command(path, "-", "0").Run() == nil
}

// id names instance n of an engine. No two comparisons give the same.
func (s *Site) id(engine string, n int) string {
	return fmt.Sprintf("%s-%s-%d", filepath.Base(s.Dir), engine, n)
}

// Close removes the folder and the cgroups.
func (s *Site) Close() error { return errors.Join(removeCgroups(s.Cgroup), os.RemoveAll(s.Dir)) }

// removeCgroups removes the cgroups of that name, and what is empty below them,
// from every hierarchy.
func removeCgroups(name string) error {
	var errs []error
	mounts, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		errs = append(errs, removeCgroup(filepath.Join(m, name)))
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	// What is in it dies: it was made for the comparison. A process that has
	// just ended may still be counted.
	for deadline := time.Now().Add(removeTime / 2); ; time.Sleep(25 * time.Millisecond) {
		if err = os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
			}
		}
	}
}

// cgroupMounts are the mount points of all cgroup hierarchies. They are this
// thread's: the process's are those of its first thread, which may be the one
// from which a hierarchy is hidden (see spawner).
func cgroupMounts() ([]string, error) {
	b, err := os.ReadFile("/proc/thread-self/mounts")
	if err != nil {
		return nil, err
	}
	var dirs []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			dirs = append(dirs, f[1])
		}
	}
	return dirs, nil
}

// find is the path of a program, or the reason why the engine cannot run.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%s is not on PATH: see vitrine compare --install-help", program)
	}
	return path, nil
}

// firstLine is the first line that a program prints, for its version.
func firstLine(ctx context.Context, program string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, _ := exec.CommandContext(ctx, program, args...).Output()
	line, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
	return string(line)
}

// fileItem is a file that an engine needs, with the size that its content has.
func fileItem(kind, path string) DiskItem {
	d := DiskItem{Kind: kind, Path: path}
	if info, err := os.Stat(path); err == nil {
		d.Bytes = info.Size()
	}
	return d
}

// lastWords is what a command said on standard error in the end, for a reason:
// its last line, or the one above the stacks of a Go program that gave up.
func lastWords(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "goroutine ") && i > 0 {
			lines = strings.Split(strings.TrimSpace(strings.Join(lines[:i], "\n")), "\n")
			break
		}
	}
	s := strings.TrimSpace(lines[len(lines)-1])
	if len(s) > 300 {
		s = "…" + s[len(s)-300:]
	}
	if s == "" {
		return "it said nothing"
	}
	return s
}
