//go:build unix

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// fileIdentity is different for files that may differ: another one, or one that
// was written to since. The time of the last change of its inode is part of it,
// which programs cannot set back.
func fileIdentity(path string) (string, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return "", err
	}
	return fmt.Sprint(s.Dev, s.Ino, s.Size, s.Mtim.Nano(), s.Ctim.Nano()), nil
}
