//go:build unix

package main

import (
	"errors"
	"syscall"
)

// endProcess ends a process that cannot object.
func endProcess(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
