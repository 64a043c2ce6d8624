//go:build unix

package main

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// writable waits, for so long at most, until f takes something or has failed.
func writable(f *os.File, timeout time.Duration) bool {
	c, err := f.SyscallConn()
	if err != nil {
		return true // the write will say what is wrong
	}
	ready := true
	_ = c.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(timeout.Milliseconds()))
		ready = n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
	return ready
}
