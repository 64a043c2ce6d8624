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
	pipe          chan os.Signal
	cancel        context.CancelCauseFunc // of first
}

func catchSignals(ctx context.Context) *interrupts {
	s := &interrupts{ch: make(chan os.Signal, 2), pipe: make(chan os.Signal, 1)}
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
	s.cancel = first
	// Caught, SIGPIPE does not end the process on the spot: the write fails,
	// and the machine is turned off. See outlet.
	signal.Notify(s.pipe, syscall.SIGPIPE)
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

// end asks for the end as a first signal does, because of err.
func (s *interrupts) end(err error) { s.cancel(err) }

// why is the reason for the end that is asked for.
func (s *interrupts) why() error { return context.Cause(s.first) }

func (s *interrupts) stop() {
	signal.Stop(s.ch)
	signal.Stop(s.pipe)
	close(s.ch)
}
