package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// restored is what the engines share that run the program in vitrine's embedded
// guest, which they do not boot but restore. They have no root of the
// comparison's.
type restored struct {
	machine
	note string
}

// Info implements Engine.
func (r *restored) Info() Info {
	i := r.machine.Info()
	i.OwnStatus = true
	i.Note = r.note
	if r.site != nil && r.accel() == "soft" {
		i.Note += "; on the software CPU"
	}
	return i
}

// accel is the one that restores fast here: a shell in the guest takes seconds
// where KVM emulates its kernel.
func (r *restored) accel() string {
	if r.site.Config.KernelsEmulated {
		return "soft"
	}
	return "auto"
}

func (r *restored) vitrine(args ...string) *exec.Cmd {
	c := exec.Command(r.path, args...)
	// What it keeps of the first machine goes with the comparison.
	c.Env = append(os.Environ(), "VITRINE_CACHE="+filepath.Join(r.site.Dir, "cache"))
	return c
}

// warm is vitrine run --warm: the program comes to the guest through standard
// input, in the time that is measured.
type warm struct{ restored }

var _ Engine = (*warm)(nil)

func newWarm() *warm {
	return &warm{restored{machine: machine{name: "vitrine-warm", title: "vitrine --warm", versionFlag: "--version"},
		note: "the embedded guest; the program is copied into it while the clock runs"}}
}

// Command implements Engine.
func (w *warm) Command(_ string, j Job) *exec.Cmd {
	script := "cd / && cat >tmp/probe && chmod 755 tmp/probe && exec tmp/probe " + strings.Join(j.args(), " ")
	c := w.vitrine("run", "--warm", "--accel", w.accel(), "--net", "none", "--memory", w.mib()+"M", "--", "sh", "-c", script)
	c.Stdin = bytes.NewReader(probe)
	return c
}

// fork is vitrine fork: a machine runs that has the program; each instance is
// a clone of it, in which the program is executed.
type fork struct {
	restored
	state   string // the run directory
	daemons []int
	killed  bool // a command, in the middle of a fork
}

var (
	_ Engine = (*fork)(nil)
	_ finder = (*fork)(nil)
	_ backed = (*fork)(nil)
)

// original is the name of the machine that is cloned.
const original = "m"

func newFork() *fork {
	return &fork{restored: restored{machine: machine{name: "vitrine-fork", title: "vitrine fork", versionFlag: "--version"},
		note: "the embedded guest; vitrine fork, exec and kill, by a shell"}}
}

// Info implements Engine.
func (f *fork) Info() Info {
	i := f.restored.Info()
	i.Daemons = f.daemons
	return i
}

// Prepare implements Engine.
func (f *fork) Prepare(ctx context.Context, s *Site) error {
	if err := f.machine.Prepare(ctx, s); err != nil {
		return err
	}
	f.state = filepath.Join(s.Dir, "fork-state")
	if err := os.MkdirAll(f.state, 0o700); err != nil {
		return err
	}
	err := errors.Join(
		runUntil(ctx, func() *exec.Cmd {
			return f.vitrine("run", "--detach", "--name", original, "--state", f.state, "--accel", f.accel(), "--net", "none", "--memory", f.mib()+"M")
		}),
		runUntil(ctx, func() *exec.Cmd {
			return f.vitrine("cp", "--state", f.state, filepath.Join(s.Root, "probe"), original+":/probe")
		}))
	f.daemons = family(nil, f.commandLine(original))
	return err
}

// commandLine is a part of the command line of the process of a machine.
func (f *fork) commandLine(name string) []string {
	return []string{"--name\x00" + name + "\x00--state\x00" + f.state + "\x00"}
}

// forkScript runs the program in a clone. $0 is vitrine, $1 the run directory,
// $2 the file for the clone's name; what follows is for the program.
const forkScript = `n=$("$0" fork --state "$1" ` + original + `) || exit 125
s=$1
echo "$n" >"$2"
shift 2
"$0" exec --state "$s" --dir / "$n" /probe "$@"
status=$?
"$0" kill --state "$s" "$n" >/dev/null
exit $status`

func (f *fork) nameFile(id string) string { return filepath.Join(f.site.Dir, id, "name") }

// Command implements Engine.
func (f *fork) Command(id string, j Job) *exec.Cmd {
	c := f.vitrine()
	c.Path, c.Err = exec.LookPath("sh")
	c.Args = append([]string{"sh", "-c", forkScript, f.path, f.state, f.nameFile(id)}, j.args()...)
	if err := os.MkdirAll(filepath.Dir(f.nameFile(id)), 0o700); err != nil {
		c.Err = err
	}
	return c
}

func (f *fork) clone(id string) string {
	b, _ := os.ReadFile(f.nameFile(id))
	return strings.TrimSpace(string(b))
}

// Names implements finder: a clone is no child of the command that made it.
func (f *fork) Names(id string) []string {
	if name := f.clone(id); name != "" {
		return f.commandLine(name)
	}
	return nil
}

// RAMFiles implements backed: each fork is a snapshot of its own, in memory.
func (f *fork) RAMFiles(id string) []string {
	var files []string
	for _, pid := range family(nil, f.Names(id)) {
		if dir := snapshotOf(pid); dir != "" {
			files = append(files, filepath.Join(dir, "memory"))
		}
	}
	return files
}

// snapshotOf is the folder that a clone was restored from: the last argument
// of its process.
func snapshotOf(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	if dir := args[len(args)-1]; slices.Contains(args, "--fork") && strings.Contains(filepath.Base(dir), "vitrine-fork-") {
		return dir
	}
	return ""
}

// Remove implements Engine. A command that was killed may not have come to
// write the clone's name, and a clone may still be on its way: then all go that
// no instance has.
func (f *fork) Remove(ctx context.Context, id string) error {
	names := []string{f.clone(id)}
	var errs []error
	if names[0] == "" {
		f.killed = true
		errs = append(errs, f.endForks())
		names = f.strays()
	}
	for _, n := range names {
		errs = append(errs, f.removeMachine(ctx, n))
	}
	return errors.Join(append(errs, os.RemoveAll(filepath.Dir(f.nameFile(id))))...)
}

// removeMachine ends a machine, and removes its record and snapshot.
func (f *fork) removeMachine(ctx context.Context, name string) error {
	var errs []error
	for _, pid := range family(nil, f.commandLine(name)) {
		dir := snapshotOf(pid)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, err)
		}
		if dir != "" {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	if _, err := os.Stat(filepath.Join(f.state, name)); err == nil {
		errs = append(errs, runUntil(ctx, func() *exec.Cmd { return f.vitrine("rm", "--force", "--state", f.state, name) }))
	}
	return errors.Join(errs...)
}

// endForks ends what is still making clones: processes that have left the
// group of the command that was killed.
func (f *fork) endForks() error {
	var errs []error
	for _, pid := range family(nil, []string{"fork\x00--state\x00" + f.state + "\x00"}) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// strays are the clones that no instance has.
func (f *fork) strays() []string {
	files, _ := filepath.Glob(f.nameFile("*"))
	owned := []string{original}
	for _, file := range files {
		b, _ := os.ReadFile(file)
		owned = append(owned, strings.TrimSpace(string(b)))
	}
	var names []string
	for _, pid := range family(nil, []string{"--state\x00" + f.state + "\x00"}) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		args := strings.Split(string(b), "\x00")
		if i := slices.Index(args, "--name"); i >= 0 && i+1 < len(args) {
			names = append(names, args[i+1])
		}
	}
	folders, _ := os.ReadDir(f.state)
	for _, e := range folders {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(n string) bool { return slices.Contains(owned, n) })
}

// Close implements Engine.
func (f *fork) Close() error {
	if f.state == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeTime)
	defer cancel()
	var errs []error
	for _, n := range append(f.strays(), original) {
		errs = append(errs, f.removeMachine(ctx, n))
	}
	if f.killed { // a snapshot may be left that no clone came to use
		errs = append(errs, runUntil(ctx, func() *exec.Cmd { return f.vitrine("cache", "prune") }))
	}
	return errors.Join(errs...)
}
