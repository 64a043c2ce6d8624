//go:build unix

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// background starts vitrine in a session of its own. It returns when that lets
// go of its standard error, with what it wrote there and, if it ended, its exit
// status.
func background(ctx context.Context, args []string) (said []byte, status int, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, 0, err
	}
	defer r.Close()
	cmd := exec.Command(self, args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), detachedEnv+"=1")
	cmd.Stderr = w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return nil, 0, err
	}
	ctx, done := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer done()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	said, err = io.ReadAll(r)
	if err != nil {
		return nil, 0, err
	}
	for _, b := range said {
		if b == 0 {
			return said, 0, cmd.Process.Release()
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return said, statusSignal + int(ws.Signal()), nil
		}
		return said, exit.ExitCode(), nil
	}
	return said, 0, err
}

// redirectErrors makes a file standard error.
func redirectErrors(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		// The pipe must go in any case: the first process waits for that.
		if f, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
			return err
		}
	}
	defer f.Close()
	return unix.Dup2(int(f.Fd()), 2)
}
