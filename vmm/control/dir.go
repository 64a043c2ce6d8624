// Package control is how machines are found and spoken to: a run directory
// with one folder for each machine, and in it the socket that the machine's own
// process serves (HTTP over a UNIX socket; docs/control-api.yaml). There is no
// daemon: whether a machine lives is whether its process holds its lock.
package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Names of the files in a machine's folder.
const (
	lockFile    = "lock"
	recordFile  = "machine.json"
	SocketFile  = "control.sock" // the control socket
	ConsoleFile = "console.log"  // what the guest wrote to its console
	LogFile     = "vmm.log"      // what the VMM has to say
	CrashFile   = "crash.log"    // what the Go runtime has to say, should it end the process
)

// State is what a machine is doing.
type State string

// States. A machine's process writes all but StateDead, which is what others
// find when it ended without a word.
const (
	StateStarting State = "starting"
	StateRunning  State = "running"
	StatePaused   State = "paused"
	StateExited   State = "exited"
	StateDead     State = "dead"
)

// Record is what a machine's folder says about it.
type Record struct {
	Name    string    `json:"name"`
	PID     int       `json:"pid"`
	State   State     `json:"state"`
	Created time.Time `json:"created"`
	Command []string  `json:"command,omitempty"` // what runs in the guest, or the kernel's path

	CPUs   int    `json:"cpus"`
	Memory uint64 `json:"memory"` // bytes
	Kernel string `json:"kernel"`
	Accel  string `json:"accel"`

	Detached bool `json:"detached,omitempty"` // no terminal belongs to it
	// Config is the machine as a machine file would say it.
	Config json.RawMessage `json:"config,omitempty"`

	Ended      *time.Time `json:"ended,omitempty"`
	ExitStatus *int       `json:"exitStatus,omitempty"`
	Reason     string     `json:"reason,omitempty"` // why it ended

	// BootID is the host's boot in which the record was written: after
	// another boot the process is gone whatever the lock says.
	BootID string `json:"bootID,omitempty"`
	// Leftovers are files outside the folder that go with the machine.
	Leftovers []string `json:"leftovers,omitempty"`
}

// Alive says whether the machine's process exists.
func (r *Record) Alive() bool { return r.State != StateExited && r.State != StateDead }

// Dir is a run directory.
type Dir struct{ path string }

// DefaultPath is where machines are registered unless the user says otherwise:
// below XDG_RUNTIME_DIR, /run for root, else the temporary directory.
func DefaultPath() string {
	switch dir := os.Getenv("XDG_RUNTIME_DIR"); {
	case dir != "":
		return filepath.Join(dir, "vitrine")
	case os.Getuid() == 0:
		return "/run/vitrine"
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("vitrine-%d", os.Getuid()))
}

// OpenDir opens the run directory at path, and makes it if need be. It must
// belong to the user alone: whoever may write there may speak to the machines.
func OpenDir(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("run directory: %w: choose another with --state", err)
	}
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("run directory: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("run directory %s: not a directory: choose another with --state", path)
	case !ownedByUs(info):
		return nil, fmt.Errorf("run directory %s: belongs to another user: choose another with --state", path)
	case info.Mode().Perm()&0o077 != 0:
		if err := os.Chmod(path, 0o700); err != nil {
			return nil, fmt.Errorf("run directory: %w", err)
		}
	}
	return &Dir{path}, nil
}

// Path is the directory's path.
func (d *Dir) Path() string { return d.path }

// CheckName says what is wrong with a machine's name, if anything.
func CheckName(name string) error {
	if !validName(name) {
		return fmt.Errorf("machine name %q: want up to 63 letters, digits, '.', '_' and '-', the first a letter or digit", name)
	}
	return nil
}

func validName(name string) bool {
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return false
		}
	}
	return 0 < len(name) && len(name) <= 63
}

// Folder is the folder of the machine with that name.
func (d *Dir) Folder(name string) string { return filepath.Join(d.path, name) }

// Socket is the path of its control socket.
func (d *Dir) Socket(name string) string { return filepath.Join(d.path, name, SocketFile) }

// ErrNoMachine is what a look-up of an unknown name wraps.
var ErrNoMachine = errors.New("no such machine")

// Find returns the record of the machine called name.
func (d *Dir) Find(name string) (Record, error) {
	if err := CheckName(name); err != nil {
		return Record{}, err
	}
	r, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, fmt.Errorf("%q: %w: vitrine ps -a lists them", name, ErrNoMachine)
	}
	return r, err
}

// List returns all records in the order of their names. It asks no machine, so
// that one that hangs holds nobody up.
func (d *Dir) List() ([]Record, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	var list []Record
	for _, e := range entries {
		if !e.IsDir() || CheckName(e.Name()) != nil {
			continue
		}
		r, err := d.read(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue // being made or removed at this moment
		}
		if err != nil {
			r = Record{Name: e.Name(), State: StateDead, Reason: err.Error()}
		}
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Record) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// read returns a machine's record, its state corrected where its process is
// gone.
func (d *Dir) read(name string) (Record, error) {
	b, err := os.ReadFile(filepath.Join(d.path, name, recordFile))
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("record of machine %q: %w", name, err)
	}
	r.Name = name
	if !r.Alive() {
		return r, nil
	}
	switch {
	case r.BootID != "" && r.BootID != bootID():
		r.State, r.Reason = StateDead, "the host was restarted"
	case !locked(filepath.Join(d.path, name, lockFile)):
		r.State, r.Reason = StateDead, "its process ended without a word (killed?)"
		if line := d.lastWords(name); line != "" {
			r.Reason = "its process crashed: " + line
		}
	}
	return r, nil
}

// lastWords is the line with which the Go runtime ended a machine's process, or
// "".
func (d *Dir) lastWords(name string) string {
	f, err := os.Open(filepath.Join(d.path, name, CrashFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for lines.Scan() {
		for _, prefix := range []string{"panic: ", "fatal error: ", "SIG"} {
			if strings.HasPrefix(lines.Text(), prefix) {
				return lines.Text()
			}
		}
	}
	return ""
}

// Remove forgets a machine that does not live any more, with what it left: also
// one whose record cannot be read, or that was killed before it wrote one.
func (d *Dir) Remove(name string) error {
	r, err := d.Find(name)
	if err != nil && (!d.hasFolder(name) || d.Held(name)) {
		return err
	}
	if err == nil && !r.Alive() {
		d.waitReleased(context.Background(), name)
	}
	c, err := d.Claim(name)
	if err != nil {
		return err
	}
	return c.Forget()
}

func (d *Dir) hasFolder(name string) bool {
	info, err := os.Lstat(d.Folder(name))
	return CheckName(name) == nil && err == nil && info.IsDir()
}

// Held says whether a process has the name: also one that has said how its
// machine ended, and is about to leave.
func (d *Dir) Held(name string) bool { return locked(filepath.Join(d.Folder(name), lockFile)) }

// bootID tells this boot of the host from others; "" where the system does
// not say.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
})
