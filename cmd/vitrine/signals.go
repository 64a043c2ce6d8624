package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// signalError is the reason for an end that a signal asked for.
type signalError struct{ number syscall.Signal }

func (e signalError) Error() string { return "ended by a signal: " + e.number.String() }

// interrupts follows the signals that ask the process to end: the first asks
// the guest to turn itself off, the second does not wait for it.
type interrupts struct {
	first, second context.Context // done with a signalError as cause
	ch            chan os.Signal
}

func catchSignals(ctx context.Context) *interrupts {
	s := &interrupts{ch: make(chan os.Signal, 2)}
	var first, second context.CancelCauseFunc
	s.second, second = context.WithCancelCause(ctx)
	s.first, first = context.WithCancelCause(s.second)
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		// Ignored are those that nohup, or a shell for its background jobs,
		// wants to be ignored.
		if !signal.Ignored(sig) {
			signal.Notify(s.ch, sig)
		}
	}
	go func() {
		for n := 0; ; n++ {
			sig, ok := <-s.ch
			if !ok {
				first(nil)
				second(nil)
				return
			}
			number, _ := sig.(syscall.Signal)
			first(signalError{number})
			if n > 0 {
				second(signalError{number})
			}
		}
	}()
	return s
}

func (s *interrupts) stop() {
	signal.Stop(s.ch)
	close(s.ch)
}
