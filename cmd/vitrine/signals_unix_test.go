//go:build unix

package main

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestFirstSignalAsksSecondInsists(t *testing.T) {
	s := catchSignals(context.Background())
	defer s.stop()
	raise := func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(ctx context.Context) {
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Second):
			t.Fatal("the signal did not arrive")
		}
		if cause := context.Cause(ctx); cause != (signalError{syscall.SIGTERM}) {
			t.Errorf("cause %v", cause)
		}
	}
	raise()
	wait(s.first)
	if s.second.Err() != nil {
		t.Fatal("the first signal insists")
	}
	raise()
	wait(s.second)
}
