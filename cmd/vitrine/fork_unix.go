//go:build unix

package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// holdFork keeps the snapshot of a fork until release: who is the last to let
// go of it removes it. A process that is killed lets go too, and leaves it for
// vitrine cache prune.
func holdFork(dir string) (release func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("fork: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("fork %s: %w", dir, err)
	}
	return func() {
		// Others hold it: one of them is the last. Two that ask at once may
		// both be refused, and prune finds what they leave.
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = f.Close()
	}, nil
}

// forkHeld says whether anybody holds the snapshot of a fork.
func forkHeld(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return true
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}
