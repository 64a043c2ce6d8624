package snapshot

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockFolder locks a folder against sweep, until the file that it returns is
// closed or its process ends.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// exchange moves the folder dir to place, in one step where the file system
// can do that. It returns where what was at place is now, if anything was.
func exchange(dir, place string) (old string, err error) {
	if err := os.Rename(dir, place); err == nil { // nothing there, or an empty folder
		return "", nil
	}
	err = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, place, unix.RENAME_EXCHANGE)
	if err == nil {
		return dir, nil
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return "", &os.LinkError{Op: "rename", Old: dir, New: place, Err: err}
	}
	// Between the two steps there is none, which is allowed; never a half.
	aside := newName(place)
	if err := os.Rename(place, aside); err != nil {
		return "", err
	}
	if err := os.Rename(dir, place); err != nil {
		return "", errors.Join(err, os.Rename(aside, place))
	}
	return aside, nil
}
