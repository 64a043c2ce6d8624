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

func TestSignalsEndTheGuest(t *testing.T) {
	kernel := tinyKernel(t, out(0x3f8, '!'), forever)
	eachAccel(t, func(t *testing.T, accel string) {
		for sig, want := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
			var o syncBuffer
			go func() {
				for o.String() == "" {
					time.Sleep(time.Millisecond)
				}
				_ = syscall.Kill(os.Getpid(), sig)
			}()
			var e syncBuffer
			got := run(context.Background(), []string{"vitrine", "run", "--net", "none", "--kernel", kernel, "--accel", accel}, nil, &o, &e)
			if got != want {
				t.Errorf("%v: status %d, want %d, errors %q", sig, got, want, e.String())
			}
		}
	})
}
