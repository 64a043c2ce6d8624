//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/vitrine-vmm/vitrine/vmm/agent"
)

// watchSize returns the terminal's sizes as they change.
func watchSize(t *terminal) (sizes <-chan agent.Size, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	out := make(chan agent.Size)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			size := t.Size()
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
