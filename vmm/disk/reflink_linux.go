package disk

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// reflink makes path a copy of base that shares its blocks (FICLONE), or
// fails and leaves nothing.
func reflink(path, base string) (err error) {
	src, err := os.Open(base)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := lock(src, false); err != nil {
		return err
	}
	dst, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := dst.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		return fmt.Errorf("share blocks: %w", err)
	}
	return nil
}
