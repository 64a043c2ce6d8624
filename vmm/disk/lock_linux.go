package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// lock takes a lock on the whole of f: a read lock shares it with others that
// only read. It belongs to the open file description (fcntl(2), F_OFD_SETLK),
// so it ends with the file, whatever else of the process opens and closes. The
// description is used for nothing else: io_uring holds on to files for some time
// after the ring was closed, and even after the process was killed.
func lock(f *os.File, exclusive bool) error {
	l := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
	if exclusive {
		l.Type = unix.F_WRLCK
	}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES):
		if exclusive {
			return fmt.Errorf("%w: stop what uses it, or open it read-only in both places", ErrInUse)
		}
		return fmt.Errorf("%w, which writes to it: stop that first", ErrInUse)
	}
	return fmt.Errorf("lock: %w", err)
}
