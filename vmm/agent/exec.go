package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Size is a terminal's, in characters.
type Size struct{ Rows, Cols uint16 }

// Command is a program to run in the guest.
type Command struct {
	Args []string // the program, looked up in Env's PATH, and its arguments
	Env  []string // the whole environment; nil: DefaultEnv
	Dir  string   // "": the agent's, which is /
	UID  uint32
	GID  uint32

	// Stdin is read until its end or the program's; a read that is under way
	// when the program ends is left to itself. nil: empty.
	Stdin  io.Reader
	Stdout io.Writer // nil: discarded
	Stderr io.Writer // nil: discarded; not used with TTY

	TTY    bool        // a terminal instead of three streams
	Size   Size        // of the terminal
	Resize <-chan Size // its changes

	// Signals are sent to the program's process group.
	Signals <-chan uint32

	// Kept, if not nil, is called when the program runs, with its connection:
	// one that goes into snapshots of the guest, for Client.Resume. Such a
	// program must have neither Stdin nor TTY, which belong to one life only.
	Kept func(KeptConn)
	// Passed, if not nil, is called after a piece of output was passed on.
	// A snapshot that is made in it has the program with nothing to repeat.
	Passed func()
}

// KeptConn is a connection that can go on in a restored guest: a *vsock.Conn.
type KeptConn interface {
	net.Conn
	Keep()            // it is to go into snapshots
	Done()            // what was read of it is dealt with
	HostPort() uint32 // its name in the restored guest
}

// check refuses what cannot go on in a restored guest.
func (c *Command) check() error {
	if c.Kept != nil && (c.TTY || c.Stdin != nil) {
		return errors.New("a program that is to go on in a restored guest can have no terminal and no input")
	}
	return nil
}

// DefaultEnv is the environment of commands that bring none.
func DefaultEnv() []string {
	return []string{"PATH=/bin:/usr/local/bin", "HOME=/root", "USER=root", "LANG=C.UTF-8", "TERM=linux"}
}

// Status is how a program ended.
type Status struct {
	Code   int // its exit status, if Signal is 0
	Signal int // the signal that ended it, or 0
}

// ExitCode is the status as shells give it: 128 and the number for a signal.
func (s Status) ExitCode() int {
	if s.Signal != 0 {
		return 128 + s.Signal
	}
	return s.Code
}

const execTTY = 1

func (c *Command) encode() *encoder {
	env := c.Env
	if env == nil {
		env = DefaultEnv()
	}
	e := &encoder{}
	if len(c.Args) == 0 {
		e.err = errors.New("no command")
	}
	flags := uint32(0)
	if c.TTY {
		flags |= execTTY
	}
	e.u32(flags)
	e.u16(c.Size.Rows)
	e.u16(c.Size.Cols)
	e.u32(c.UID)
	e.u32(c.GID)
	e.str(c.Dir)
	e.strs(c.Args)
	e.strs(env)
	return e
}

// Exec runs a program and returns when it has ended and all that it wrote was
// passed on. An *Error means that it could not be run. When ctx is done, or
// Stdout or Stderr fails, the program gets SIGHUP, and SIGKILL two seconds later.
func (c *Client) Exec(ctx context.Context, cmd *Command) (Status, error) {
	if err := cmd.check(); err != nil {
		return Status{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	k, err := c.start(ctx, reqExec, cmd.encode())
	if err != nil {
		return Status{}, err
	}
	defer k.close()
	t, d, err := k.next()
	if err != nil {
		return Status{}, err
	}
	if t != outStarted {
		return Status{}, unexpected(t)
	}
	if d.u32(); d.bad {
		return Status{}, d.err()
	}
	if cmd.Kept != nil {
		if err := k.keep(); err != nil {
			return Status{}, err
		}
		k.kept.Done()
		cmd.Kept(k.kept)
	}
	w := newWindow()
	defer w.close()
	go feed(ctx, cancel, k, cmd.Stdin, w)
	go forward(ctx, k, cmd)
	return k.follow(cmd, w)
}

// keep has the connection go into snapshots.
func (k *conn) keep() error {
	c, ok := k.Conn.(KeptConn)
	if !ok {
		return errors.New("a program's connection of this kind cannot go into a snapshot")
	}
	k.kept = c
	c.Keep()
	return nil
}

// Resume goes on with a program of a restored guest on its connection, until it
// has ended, as Exec does. Of cmd it uses where the output goes, and Signals.
func (c *Client) Resume(ctx context.Context, nc KeptConn, cmd *Command) (Status, error) {
	k := newConn(ctx, nc)
	defer k.close()
	k.kept = nc
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go forward(ctx, k, &Command{Signals: cmd.Signals})
	w := newWindow()
	defer w.close()
	return k.follow(cmd, w)
}

// follow passes on what the program writes until it ends.
func (k *conn) follow(cmd *Command, w *window) (Status, error) {
	for {
		t, d, err := k.next()
		if err != nil {
			return Status{}, err
		}
		switch t {
		case outStdout:
			err = pass(cmd.Stdout, d.b)
		case outStderr:
			err = pass(cmd.Stderr, d.b)
		case outWindow:
			if !w.open(d.u32()) {
				err = fmt.Errorf("%w: more window than there is", errProtocol)
			}
		case outExit:
			s := Status{Code: int(d.u32()), Signal: int(d.u32())}
			if s.Code > 255 || s.Signal > 64 {
				d.bad = true
			}
			return s, d.err()
		default:
			err = unexpected(t)
		}
		if err = errors.Join(err, d.err()); err != nil {
			return Status{}, err
		}
		k.passed(cmd)
	}
}

func (k *conn) passed(cmd *Command) {
	if k.kept != nil {
		k.kept.Done()
	}
	if cmd.Passed != nil {
		cmd.Passed()
	}
}

func pass(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	if _, err := w.Write(p); err != nil {
		return fmt.Errorf("pass on the program's output: %w", err)
	}
	return nil
}

// feed sends standard input as far as the window allows.
func feed(ctx context.Context, cancel context.CancelCauseFunc, k *conn, in io.Reader, w *window) {
	buf := make([]byte, 16<<10)
	for in != nil {
		n := w.wait(len(buf))
		if n == 0 || ctx.Err() != nil {
			return
		}
		n, err := in.Read(buf[:n])
		if n > 0 {
			w.take(n)
			if k.send(inStdin, buf[:n]) != nil {
				return // follow sees it too
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			cancel(fmt.Errorf("read the program's input: %w", err))
			return
		}
	}
	_ = k.send(inStdinEnd, nil)
}

// forward sends signals and sizes.
func forward(ctx context.Context, k *conn, cmd *Command) {
	var b [4]byte
	var err error
	resize, signals := cmd.Resize, cmd.Signals
	for err == nil && (resize != nil || signals != nil) {
		select {
		case s, ok := <-resize:
			if !ok {
				resize = nil
				continue
			}
			binary.LittleEndian.PutUint16(b[:], s.Rows)
			binary.LittleEndian.PutUint16(b[2:], s.Cols)
			err = k.send(inResize, b[:])
		case s, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			binary.LittleEndian.PutUint32(b[:], s)
			err = k.send(inSignal, b[:])
		case <-ctx.Done():
			return
		}
	}
}

// stdinWindow is how much input may be on its way to a program that has not
// read it.
const stdinWindow = 64 << 10

// window counts what may still be sent.
type window struct {
	mu     sync.Mutex
	more   sync.Cond
	left   int
	closed bool
}

func newWindow() *window {
	w := &window{left: stdinWindow}
	w.more.L = &w.mu
	return w
}

// wait returns how much may be sent, at most most; 0 when nothing ever may.
func (w *window) wait(most int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.left == 0 && !w.closed {
		w.more.Wait()
	}
	if w.closed {
		return 0
	}
	return min(w.left, most)
}

func (w *window) take(n int) {
	w.mu.Lock()
	w.left -= n
	w.mu.Unlock()
}

// open adds n; false if that is more than was ever taken.
func (w *window) open(n uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if int64(n) > int64(stdinWindow-w.left) {
		return false
	}
	w.left += int(n)
	w.more.Broadcast()
	return true
}

func (w *window) close() {
	w.mu.Lock()
	w.closed = true
	w.more.Broadcast()
	w.mu.Unlock()
}
