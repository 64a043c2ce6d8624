//go:build !linux

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// Copy makes dst, which must not exist, a copy of the file src as it is now.
// Whoever has the disk open sees to it that nobody writes meanwhile.
func Copy(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy disk %s: %w", src, err), os.Remove(dst))
	}
	return nil
}
