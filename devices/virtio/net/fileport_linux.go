package net

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxIovecs is how many pieces of a frame unix.Writev takes without
	// allocating.
	maxIovecs = 8

	// copyBelow is the length up to which a frame is copied together: one
	// write of it is then cheaper than a writev of its pieces.
	copyBelow = 4096
)

// FilePort is a Port over a file of which every read and write is one frame
// with its header: a TAP device's queue or a datagram socket.
type FilePort struct {
	f       *os.File
	raw     syscall.RawConn
	write   func(fd uintptr) bool // the methods below, made into values once
	try     func(fd uintptr) bool
	readOne func(fd uintptr) bool
	await   func(fd uintptr) bool

	out     [][]byte // of Send
	flat    []byte
	one     [1][]byte
	sendErr error

	in      []byte // of Recv and Wait: the last frame read
	n       int
	readErr error
	have    bool // in holds a frame that Recv has not returned
	pieces  [1][]byte
}

var _ Port = (*FilePort)(nil)

// NewFilePort returns a port over f, which must be non-blocking (O_NONBLOCK).
// The port does not close it.
func NewFilePort(f *os.File) (*FilePort, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("use %s as a network: %w", f.Name(), err)
	}
	if err := f.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("use %s as a network: it does not poll: %w", f.Name(), err)
	}
	p := &FilePort{f: f, raw: raw, flat: make([]byte, MaxFrame), in: make([]byte, MaxFrame)}
	p.write = func(fd uintptr) bool { return p.writeFrame(fd) != unix.EAGAIN }
	p.try = func(fd uintptr) bool { p.writeFrame(fd); return true }
	p.readOne = func(fd uintptr) bool { p.readFrame(fd); return true }
	p.await = func(fd uintptr) bool { return p.readFrame(fd) != unix.EAGAIN }
	return p, nil
}

// Send implements Port. A frame that the network refuses is dropped: a TAP
// device that is down, for one.
func (p *FilePort) Send(frame [][]byte) error {
	p.out = frame
	if len(frame) > maxIovecs || lengthOf(frame) <= copyBelow {
		p.out = p.flatten(frame)
	}
	err := p.raw.Write(p.write)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		// Woken, perhaps before this frame: it still goes if it can.
		_ = p.f.SetWriteDeadline(time.Time{})
		err = p.raw.Write(p.try)
	}
	p.out = nil
	if err != nil {
		return fmt.Errorf("write to %s: %w", p.f.Name(), err)
	}
	return nil
}

// Flush implements Port: nothing is kept back.
func (p *FilePort) Flush() error { return nil }

func (p *FilePort) flatten(frame [][]byte) [][]byte {
	p.one[0] = p.flat[:gather(p.flat, frame)]
	return p.one[:]
}

func (p *FilePort) writeFrame(fd uintptr) error {
	for {
		if len(p.out) == 1 {
			_, p.sendErr = unix.Write(int(fd), p.out[0])
		} else {
			_, p.sendErr = unix.Writev(int(fd), p.out)
		}
		if p.sendErr != unix.EINTR {
			return p.sendErr
		}
	}
}

// Recv implements Port.
func (p *FilePort) Recv() ([][]byte, error) {
	if !p.have {
		if err := p.raw.Read(p.readOne); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, fmt.Errorf("read from %s: %w", p.f.Name(), err)
		}
	}
	return p.take()
}

func (p *FilePort) take() ([][]byte, error) {
	if !p.have {
		return nil, nil
	}
	p.have = false
	if p.readErr != nil {
		return nil, fmt.Errorf("read from %s: %w", p.f.Name(), p.readErr)
	}
	p.pieces[0] = p.in[:p.n]
	return p.pieces[:], nil
}

// readFrame keeps what one read gives, a frame or an error; frames that are too
// short to be one are skipped.
func (p *FilePort) readFrame(fd uintptr) error {
	for {
		n, err := unix.Read(int(fd), p.in)
		switch {
		case err == unix.EAGAIN:
			return err
		case err == unix.EINTR || err == nil && n > 0 && n < HeaderLen:
			continue
		case err == nil && n == 0:
			err = ErrClosed
		}
		p.n, p.readErr, p.have = n, err, true
		return err
	}
}

// Wait implements Port.
func (p *FilePort) Wait() error {
	if p.have {
		return nil
	}
	err := p.raw.Read(p.await)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = p.f.SetReadDeadline(time.Time{})
	}
	if err != nil {
		return fmt.Errorf("wait for %s: %w", p.f.Name(), err)
	}
	return nil
}

// Wake implements Port.
func (p *FilePort) Wake() { _ = p.f.SetDeadline(time.Unix(1, 0)) }
