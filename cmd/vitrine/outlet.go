package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// outlet is where a command writes. Whoever is behind it may stop to read for a
// while, or for ever, or leave; a disk may be full. A first failure is kept,
// and is that of all later writes.
type outlet struct {
	w    io.Writer
	file *os.File // w, if it is one
	slow bool     // it may keep a writer waiting: a pipe, a terminal, a socket
	ends int      // which failures end what the command does

	sig atomic.Pointer[interrupts]

	mu   sync.Mutex
	left time.Duration // how long it may yet keep a writer waiting, once a signal has come
	err  error
}

// What an outlet's failures mean for a command that runs a machine or follows
// one.
const (
	endsNothing = iota // the writer looks at its errors
	endsByPipe         // standard error: a message that cannot be written is no reason to end a machine
	endsByAll          // standard output
)

// atOnce is how much a pipe takes without waiting, if poll(2) says that it
// takes anything: PIPE_BUF of Linux, a page.
const atOnce = 4096

// lastWait is how long an outlet may keep its writers waiting, all in all, after
// a signal has asked the command to end.
const lastWait = 2 * time.Second

// statusPipe is the exit status of a program that SIGPIPE ends, as a shell
// shows it.
const statusPipe = statusSignal + exitStatus(syscall.SIGPIPE)

var errNobodyReads = errors.New("nobody reads it: what is left is lost")

func newOutlet(w io.Writer, ends int) *outlet {
	if o, ok := w.(*outlet); ok {
		return o
	}
	o := &outlet{w: w, ends: ends, left: lastWait}
	if f, ok := w.(*os.File); ok {
		o.file = f
		info, err := f.Stat()
		o.slow = err == nil && !info.Mode().IsRegular()
	}
	return o
}

// createOutlet creates a file for a command's output, or opens a pipe or device.
// It is not opened for reading: the reader of a pipe never learns that it is the
// last. sig may be nil.
func createOutlet(path string, perm os.FileMode, sig *interrupts) (*outlet, error) {
	open := func() (*os.File, error) { return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm) }
	var f *os.File
	var err error
	if info, e := os.Stat(path); sig != nil && e == nil && info.Mode().Type() == os.ModeNamedPipe {
		f, err = openPipe(open, sig)
	} else {
		f, err = open()
	}
	if err != nil {
		return nil, err
	}
	o := newOutlet(f, endsNothing)
	o.heed(sig)
	return o, nil
}

// openPipe waits until a pipe has a reader, or until a signal.
func openPipe(open func() (*os.File, error), sig *interrupts) (f *os.File, err error) {
	done := make(chan struct{})
	go func() { f, err = open(); close(done) }()
	select {
	case <-done:
		return f, err
	case <-sig.first.Done():
		return nil, ending(sig.why())
	}
}

// heed has the outlet give up when sig has come and nobody reads, and end what
// the command does if it fails, as far as that ends it.
func (o *outlet) heed(sig *interrupts) {
	if sig != nil {
		o.sig.Store(sig)
	}
}

// heed is outlet.heed for those of the writers that are outlets.
func heed(sig *interrupts, writers ...io.Writer) {
	for _, w := range writers {
		if o, ok := w.(*outlet); ok {
			o.heed(sig)
		}
	}
}

// Write implements io.Writer.
func (o *outlet) Write(p []byte) (n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	for {
		part := p[n:]
		if o.slow {
			part = part[:min(len(part), atOnce)]
			err = o.await()
		}
		if err == nil {
			var k int
			k, err = o.w.Write(part)
			n += k
		}
		if err != nil {
			return n, o.fail(err)
		}
		if n == len(p) {
			return n, nil
		}
	}
}

// await waits until the file takes something.
func (o *outlet) await() error {
	const look = 50 * time.Millisecond
	for !writable(o.file, look) {
		sig := o.sig.Load()
		if sig == nil || sig.first.Err() == nil {
			continue
		}
		if o.left -= look; o.left <= 0 {
			return &os.PathError{Op: "write", Path: o.file.Name(), Err: errNobodyReads}
		}
	}
	return nil
}

func (o *outlet) fail(err error) error {
	gone := errors.Is(err, syscall.EPIPE)
	if gone {
		err = fmt.Errorf("%w: %w", err, statusPipe) // who reads no more needs no message
	}
	o.err = err
	if sig := o.sig.Load(); sig != nil && (o.ends == endsByAll || o.ends == endsByPipe && gone) {
		sig.end(err)
	}
	return err
}

// failure is the first failure of a write.
func (o *outlet) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// Close implements io.Closer.
func (o *outlet) Close() error {
	if c, ok := o.w.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
