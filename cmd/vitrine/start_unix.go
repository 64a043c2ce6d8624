//go:build unix

package main

import (
	"syscall"
	"time"
)

var mainStarted = time.Now()

// processStart is when the process was executed. /proc has it only to the
// hundredth of a second; until main the process does nothing but compute, so
// it is the processor time that had been used by then.
var processStart = func() func() time.Time {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return func() time.Time { return mainStarted }
	}
	start := mainStarted.Add(-time.Duration(u.Utime.Nano() + u.Stime.Nano()))
	return func() time.Time { return start }
}()
