//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// watchSize returns the terminal's sizes as they change.
func watchSize(t *terminal) (sizes <-chan winSize, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	out := make(chan winSize)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			var size winSize
			size.cols, size.rows = t.Size()
			select {
			case out <- size:
			case <-done:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(signals)
		close(done)
	}
}
