//go:build !unix

package main

import (
	"os"
	"time"
)

// writable says that f takes something: nothing here asks.
func writable(*os.File, time.Duration) bool { return true }
