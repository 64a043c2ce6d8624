package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Claim is a machine's name and folder, held by its process until it ends.
type Claim struct {
	dir    *Dir
	name   string
	lock   *os.File
	mu     sync.Mutex
	record Record
}

// InUseError says that a living machine has the name.
type InUseError struct {
	Name string
	PID  int
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("machine %q is running (process %d): choose another name, or vitrine stop %s", e.Name, e.PID, e.Name)
}

// Claim takes a name for this process. What a machine of that name that is
// gone has left is removed first.
func (d *Dir) Claim(name string) (*Claim, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	folder := d.Folder(name)
	for {
		if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("machine %q: %w", name, err)
		}
		lock, err := os.OpenFile(filepath.Join(folder, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed between the two steps
		}
		if err != nil {
			return nil, fmt.Errorf("machine %q: %w", name, err)
		}
		if !patientLock(lock) {
			_ = lock.Close()
			r, _ := d.read(name)
			return nil, &InUseError{name, r.PID}
		}
		if !stillAt(lock) {
			_ = lock.Close() // somebody removed the folder while we waited
			continue
		}
		c := &Claim{dir: d, name: name, lock: lock}
		if err := c.clean(); err != nil {
			_ = lock.Close()
			return nil, fmt.Errorf("machine %q: remove what is left of the last: %w", name, err)
		}
		return c, nil
	}
}

// ClaimNew takes a name that no machine has, and none has left a record under.
func (d *Dir) ClaimNew(name string) (*Claim, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	// Who makes the folder is the first: the others see that it is there.
	switch err := os.Mkdir(d.Folder(name), 0o700); {
	case errors.Is(err, fs.ErrExist):
		r, _ := d.read(name)
		return nil, &InUseError{name, r.PID}
	case err != nil:
		return nil, fmt.Errorf("machine %q: %w", name, err)
	}
	return d.Claim(name)
}

// patientLock is tryLock, but for those who hold the lock for a moment to see
// whether somebody else does.
func patientLock(f *os.File) bool {
	for range 10 {
		if tryLock(f) {
			return true
		}
		time.Sleep(2 * time.Millisecond)
	}
	return false
}

// stillAt says whether an open file is the one that its path names.
func stillAt(f *os.File) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(a, b)
}

// clean empties the folder but for the lock.
func (c *Claim) clean() error {
	if r, err := c.dir.read(c.name); err == nil {
		if err := removeLeftovers(r.Leftovers); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(c.Folder())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == lockFile {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.Folder(), e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeLeftovers removes files that a machine has left outside its folder. A
// socket that somebody listens at by now is another's.
func removeLeftovers(files []string) error {
	for _, f := range files {
		if info, err := os.Lstat(f); err == nil && info.Mode().Type() == fs.ModeSocket && served(f) {
			continue
		}
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// served says whether a process listens at a UNIX socket.
func served(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// Name is the name that was claimed.
func (c *Claim) Name() string { return c.name }

// Folder is the machine's folder.
func (c *Claim) Folder() string { return c.dir.Folder(c.name) }

// Path is the path of a file in it.
func (c *Claim) Path(file string) string { return filepath.Join(c.Folder(), file) }

// Update changes the record and writes it, whole or not at all.
func (c *Claim) Update(change func(*Record)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.record)
	c.record.Name, c.record.PID, c.record.BootID = c.name, os.Getpid(), bootID()
	b, err := json.MarshalIndent(&c.record, "", "  ")
	if err != nil {
		return err
	}
	if err := writeRecord(c.Path(recordFile), append(b, '\n')); err != nil {
		return fmt.Errorf("record of machine %q: %w", c.name, err)
	}
	return nil
}

// writeRecord replaces a record, whole or not at all.
func writeRecord(path string, b []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, path)
}

// Record is the record as last written.
func (c *Claim) Record() Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.record
}

// Release gives the name up and leaves the record, for others to see how the
// machine ended.
func (c *Claim) Release() error {
	_ = os.Remove(c.Path(SocketFile))
	return c.lock.Close()
}

// Forget gives the name up and leaves nothing.
func (c *Claim) Forget() error {
	if err := c.clean(); err != nil {
		return fmt.Errorf("machine %q: %w", c.name, err)
	}
	// The lock goes last, and while it is held: who opens it in between finds
	// out by stillAt.
	return errors.Join(os.Remove(c.Path(lockFile)), os.Remove(c.Folder()), c.lock.Close())
}
