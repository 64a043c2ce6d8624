package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// guestAgent is what a session needs of the agent in the embedded guest.
type guestAgent interface {
	// Run runs a program in the guest and returns its exit status, 128 and
	// the signal's number if one ended it.
	Run(ctx context.Context, p program) (status int, err error)
	// PowerOff asks the guest to turn itself off.
	PowerOff(ctx context.Context) error
}

// program is what an agent is to run.
type program struct {
	argv   []string
	env    []string // beyond the guest's own
	in     io.Reader
	out    io.Writer
	errOut io.Writer // not used with a terminal

	tty    bool
	size   winSize
	resize <-chan winSize
}

// winSize is a terminal's size in characters.
type winSize struct{ cols, rows int }

// shell is the embedded guest's.
var shell = []string{"/bin/sh"}

// agentSession runs a command or a shell in the embedded guest.
type agentSession struct {
	agent  guestAgent
	argv   []string
	in     *userInput
	out    io.Writer
	errOut io.Writer
	tty    *terminal // nil: plain streams

	once  sync.Once
	ready chan struct{} // closed when the agent listens
}

func newAgentSession(agent guestAgent, o *runOptions, r *runner) *agentSession {
	s := &agentSession{
		agent: agent, argv: o.command, in: newUserInput(r.in), out: r.out, errOut: r.errOut.w, ready: make(chan struct{}),
	}
	// A terminal in the guest has one output. A command keeps its two apart
	// unless both arrive at the user's terminal anyway.
	if r.tty != nil && (s.argv == nil || isTerminal(s.errOut)) {
		s.tty = r.tty
	}
	if s.argv == nil {
		s.argv = shell
	}
	return s
}

// agentReady is told that the agent listens; it may be told again.
func (s *agentSession) agentReady() { s.once.Do(func() { close(s.ready) }) }

func (s *agentSession) serve(ctx context.Context, _ *vmm.Machine) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-s.in.end:
			cancel(errEnd)
		case <-ctx.Done():
		}
	}()
	status, err := s.run(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	case status != 0:
		return exitStatus(status)
	}
	return nil
}

func (s *agentSession) run(ctx context.Context) (status int, err error) {
	p := program{argv: s.argv, in: s.in, out: s.out, errOut: s.errOut}
	if s.tty == nil {
		return s.agent.Run(ctx, p)
	}
	if err := s.tty.MakeRaw(); err != nil {
		return 0, err
	}
	defer s.tty.Close()
	p.tty = true
	p.size.cols, p.size.rows = s.tty.Size()
	if t := os.Getenv("TERM"); t != "" {
		p.env = append(p.env, "TERM="+t)
	}
	resize, stop := watchSize(s.tty)
	defer stop()
	p.resize = resize
	return s.agent.Run(ctx, p)
}

func (s *agentSession) turnOff(ctx context.Context) bool {
	select {
	case <-s.ready:
	default:
		return false
	}
	// The connection may end before the answer comes: the guest was asked.
	err := s.agent.PowerOff(ctx)
	return err == nil || errors.Is(err, errConnectionLost)
}

// commandError says why a command could not be run.
func commandError(argv []string, err error) error {
	return fmt.Errorf("run %s in the guest: %w", quote(argv[0]), err)
}
