//go:build !unix

package main

import "time"

var mainStarted = time.Now()

// processStart is when main's variables were set, a little after the process
// was started.
func processStart() time.Time { return mainStarted }
