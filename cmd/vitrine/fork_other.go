//go:build !unix

package main

// holdFork keeps nothing here: the snapshot stays until somebody removes it.
func holdFork(string) (release func(), err error) { return func() {}, nil }

// forkHeld says that somebody may still need it.
func forkHeld(string) bool { return true }
