package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/agent"
)

// warmPoint is the moment in which a machine is kept, if not before its command
// begins: the zero value.
type warmPoint struct {
	text string // as given
	port uint16 // it listens there
	line string // it prints a line with this
}

// readyFile is what a program makes in the guest when it is ready.
const readyFile = "/run/vitrine-ready"

func parseWarmPoint(s string) (p warmPoint, err error) {
	const hint = "use ready, listen:PORT or line:TEXT"
	kind, value, _ := strings.Cut(s, ":")
	p.text = s
	switch {
	case s == "" || s == "ready":
	case kind == "listen":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return p, usagef("use listen:PORT, a number from 1 to 65535", "--warm-at %s: %s is no port", quote(s), quote(value))
		}
		p.port = uint16(n)
	case kind == "line" && value != "" && !strings.ContainsAny(value, "\r\n"):
		p.line = value
	default:
		return p, usagef(hint, "--warm-at %s: there is no such moment", quote(s))
	}
	return p, nil
}

// lasting is a program that goes on in the machines that begin where this one
// was kept.
type lasting struct {
	point warmPoint
	keep  func(port uint32)                                         // keeps the machine; port is the connection's
	get   func(ctx context.Context, path string, w io.Writer) error // reads a file of the guest's
	from  agent.KeptConn                                            // where the machine was kept before: the program's connection
	seen  chan struct{}                                             // closed when the line was passed on
	busy  sync.WaitGroup
}

// resumer goes on with a program: an *agent.Client.
type resumer interface {
	Resume(ctx context.Context, c agent.KeptConn, cmd *agent.Command) (agent.Status, error)
}

// run runs the program, or goes on with it. It has no input: that would be one
// life's alone.
func (p *lasting) run(ctx context.Context, a guestAgent, c *agent.Command) (agent.Status, error) {
	c.Stdin = nil
	if r, ok := a.(resumer); ok && p.from != nil {
		return r.Resume(ctx, p.from, c)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer p.busy.Wait()
	defer cancel()
	p.seen = make(chan struct{})
	if p.point.line != "" {
		out, errOut := &lineWatch{w: c.Stdout, text: p.point.line}, &lineWatch{w: c.Stderr, text: p.point.line}
		c.Stdout, c.Stderr = out, errOut
		seen := sync.OnceFunc(func() { close(p.seen) })
		c.Passed = func() {
			if out.found || errOut.found {
				seen()
			}
		}
	}
	c.Kept = func(k agent.KeptConn) {
		p.busy.Go(func() {
			if p.await(ctx) {
				p.keep(k.HostPort())
			}
		})
	}
	return a.Exec(ctx, c)
}

// await waits for the moment; false if the program ended before.
func (p *lasting) await(ctx context.Context) bool {
	if p.point.line != "" {
		select {
		case <-p.seen:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for ctx.Err() == nil {
		if p.reached(ctx) {
			return true
		}
		pause(ctx, lookEvery)
	}
	return false
}

// lookEvery is how often the guest is asked whether its program is ready.
const lookEvery = 10 * time.Millisecond

// reached looks into the guest.
func (p *lasting) reached(ctx context.Context) bool {
	if p.point.port == 0 {
		return p.get(ctx, readyFile, io.Discard) == nil
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		var b bytes.Buffer
		if p.get(ctx, table, &b) == nil && listens(b.String(), p.point.port) {
			return true
		}
	}
	return false
}

// listens looks for a listening socket in one of Linux's tables of sockets
// (proc_pid_net(5)): number, local address:port in hexadecimal, remote one, state.
func listens(table string, port uint16) bool {
	const listening = "0A" // TCP_LISTEN of linux/tcp_states.h
	want := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 3 && f[3] == listening && strings.HasSuffix(f[1], want) {
			return true
		}
	}
	return false
}

// lineWatch passes on what is written and looks for a text within a line.
type lineWatch struct {
	w     io.Writer
	text  string
	line  []byte // the end of what was written without a line's end
	found bool
}

// maxWatched bounds the line that is remembered: of a longer one, its end.
const maxWatched = 64 << 10

func (l *lineWatch) Write(p []byte) (int, error) {
	n, err := l.w.Write(p)
	if l.found || err != nil {
		return n, err
	}
	l.line = append(l.line, p...)
	if end := bytes.LastIndexByte(l.line, '\n'); end >= 0 {
		l.found = bytes.Contains(l.line[:end], []byte(l.text))
		l.line = append(l.line[:0], l.line[end+1:]...)
	}
	if over := len(l.line) - maxWatched; over > 0 {
		l.line = append(l.line[:0], l.line[over:]...)
	}
	return n, err
}

// getter reads files of the guest's.
func getter(c *agent.Client) func(context.Context, string, io.Writer) error {
	return func(ctx context.Context, path string, w io.Writer) error {
		if path == readyFile {
			f, err := c.Stat(ctx, path, true)
			if err == nil && f.Mode.IsDir() {
				err = fs.ErrInvalid
			}
			return err
		}
		_, err := c.Get(ctx, path, w)
		return err
	}
}

var errNotKept = errors.New("the machine was kept without its program")
