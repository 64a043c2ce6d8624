package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Wait returns the last record of the machine called name when it has ended,
// however it ended.
func (d *Dir) Wait(ctx context.Context, name string) (Record, error) {
	r, err := d.Find(name)
	if err == nil && !r.Alive() {
		d.waitReleased(ctx, name)
	}
	if err != nil || !r.Alive() {
		return r, err
	}
	lock, err := os.Open(filepath.Join(d.Folder(name), lockFile))
	if err != nil {
		return r, fmt.Errorf("machine %q: %w", name, err)
	}
	defer lock.Close()
	// The machine itself can tell even if it leaves no record.
	if last, err := NewClient(name, d.Socket(name)).Wait(ctx); err == nil {
		waitUnlocked(ctx, lock)
		return last, nil
	}
	waitUnlocked(ctx, lock)
	if err := ctx.Err(); err != nil {
		return r, err
	}
	last, err := d.Find(name)
	switch {
	case err != nil:
		return r, fmt.Errorf("machine %q has ended, and its record was removed", name)
	case last.PID != r.PID:
		return r, fmt.Errorf("machine %q has ended, and another has its name", name)
	}
	return last, nil
}

// leaving is how long a machine that has said how it ended may keep its name.
const leaving = 5 * time.Second

// waitReleased returns when a machine that has ended has given its name up.
func (d *Dir) waitReleased(ctx context.Context, name string) {
	lock, err := os.Open(filepath.Join(d.Folder(name), lockFile))
	if err != nil {
		return
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(ctx, leaving)
	defer cancel()
	waitUnlocked(ctx, lock)
}

// waitUnlocked returns when nobody holds the lock, or ctx is done.
func waitUnlocked(ctx context.Context, lock *os.File) {
	// The pause grows: a machine that ends now is noticed at once, one that
	// runs for days costs nothing.
	for pause := time.Millisecond; lockedFile(lock); pause = min(2*pause, 100*time.Millisecond) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Bury writes down why a machine died whose process cannot do so any more. It
// does nothing for one that lives, or that has said itself how it ended.
func (d *Dir) Bury(name, reason string) error {
	r, err := d.Find(name)
	if err != nil || r.State != StateDead {
		return err
	}
	lock, err := os.Open(filepath.Join(d.Folder(name), lockFile))
	if err != nil {
		return fmt.Errorf("machine %q: %w", name, err)
	}
	defer lock.Close()
	if !tryLock(lock) || !stillAt(lock) {
		return nil // its name was taken meanwhile
	}
	if err := removeLeftovers(append(r.Leftovers, d.Socket(name))); err != nil {
		return fmt.Errorf("machine %q: remove what is left of it: %w", name, err)
	}
	if reason != "" {
		r.Reason = reason
	}
	r.Leftovers = nil
	if r.Ended == nil {
		now := time.Now()
		r.Ended = &now
	}
	b, err := json.MarshalIndent(&r, "", "  ")
	if err != nil {
		return err
	}
	return writeRecord(filepath.Join(d.Folder(name), recordFile), append(b, '\n'))
}

// Sweep removes what machines that died without a word have left outside their
// folders, and their sockets. Their records stay, for others to read. Folders
// without one, of machines killed before they wrote it, are removed.
func (d *Dir) Sweep() error {
	list, err := d.List()
	for _, r := range list {
		if r.State == StateDead && r.Ended == nil {
			if e := d.Bury(r.Name, ""); !errors.Is(e, fs.ErrNotExist) && !errors.Is(e, ErrNoMachine) {
				err = errors.Join(err, e)
			}
		}
	}
	return errors.Join(err, d.sweepUnwritten())
}

// unwrittenAfter is the age from which a folder without a record is nobody's
// who is about to write it.
const unwrittenAfter = time.Minute

func (d *Dir) sweepUnwritten() (err error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	for _, e := range entries {
		info, ierr := e.Info()
		if ierr != nil || !info.IsDir() || time.Since(info.ModTime()) < unwrittenAfter {
			continue
		}
		if _, ferr := d.Find(e.Name()); !errors.Is(ferr, ErrNoMachine) {
			continue
		}
		if rerr := d.Remove(e.Name()); rerr != nil && !errors.Is(rerr, ErrNoMachine) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}
