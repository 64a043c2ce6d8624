package agent

import (
	"fmt"
	"io/fs"
)

// Error is what the agent refused a request with.
type Error struct {
	Errno uint32 // Linux's number, whatever system this is
	What  string // the path or thing concerned; from the guest
}

// Linux's error numbers that requests meet often (asm-generic/errno*.h).
const (
	enoent  = 2
	eacces  = 13
	eexist  = 17
	enotdir = 20
	eperm   = 1
	enosys  = 38
)

var errnoText = map[uint32]string{
	eperm: "operation not permitted", enoent: "no such file or directory", 5: "input/output error",
	7: "argument list too long", 8: "exec format error", 12: "out of memory", eacces: "permission denied",
	16: "device or resource busy", eexist: "file exists", 19: "no such device", enotdir: "not a directory",
	21: "is a directory", 22: "invalid argument", 26: "text file busy", 28: "no space left on device",
	30: "read-only file system", 36: "file name too long", enosys: "function not implemented",
	39: "directory not empty", 40: "too many levels of symbolic links", 71: "protocol error",
}

func (e *Error) Error() string {
	text, ok := errnoText[e.Errno]
	if !ok {
		text = fmt.Sprintf("Linux error %d", e.Errno)
	}
	if e.What == "" {
		return "in the guest: " + text
	}
	return fmt.Sprintf("in the guest: %q: %s", e.What, text)
}

// Is makes errors.Is work with the errors of package fs.
func (e *Error) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Errno == enoent
	case fs.ErrPermission:
		return e.Errno == eacces || e.Errno == eperm
	case fs.ErrExist:
		return e.Errno == eexist
	}
	return false
}

// ExitCode is the status with which shells answer a program that cannot be
// run: 127 when it is not there, else 126.
func (e *Error) ExitCode() int {
	if e.Errno == enoent {
		return 127
	}
	return 126
}
