package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/agent"
)

// guestAgent is what a session needs of the agent in the embedded guest: an
// *agent.Client.
type guestAgent interface {
	Exec(ctx context.Context, c *agent.Command) (agent.Status, error)
	PowerOff(ctx context.Context) error
}

// shell is the embedded guest's.
var shell = []string{"/bin/sh"}

// agentSession runs a command or a shell in the embedded guest.
type agentSession struct {
	agent guestAgent
	argv  []string
	in    *userInput
	out   io.Writer
	errs  io.Writer // the program's standard error
	say   *messages
	tty   *terminal       // nil: plain streams, or a terminal that is not the user's
	size  chan agent.Size // of that terminal, as those who attach have it; nil: there is none
	brief bool            // the guest has nothing to lose: it need not turn itself off
	idle  bool            // nothing runs but what others ask for

	lasting *lasting // how the command goes on in later machines; nil: it does not

	listens atomic.Bool // the agent has said that it listens

	once  sync.Once
	ready chan struct{} // closed when others may speak to it
}

func newAgentSession(a guestAgent, o *runOptions, r *runner) *agentSession {
	s := &agentSession{
		agent: a, argv: o.command, in: newUserInput(r.in), out: r.out, errs: r.errOut.w, say: r.errOut, ready: make(chan struct{}),
	}
	if o.detach {
		s.errs = r.out // there is but the console
	}
	if o.detach && o.tty {
		s.size = make(chan agent.Size, 1)
	}
	// A terminal in the guest has one output. A command keeps its two apart
	// unless both arrive at the user's terminal anyway.
	if r.tty != nil && (s.argv == nil || isTerminal(s.say.w)) {
		s.tty = r.tty
	}
	s.idle = o.detach && s.argv == nil
	if s.argv == nil {
		s.argv = shell
	}
	return s
}

// agentReady is told that others may speak to the agent; it may be told again.
func (s *agentSession) agentReady() { s.once.Do(func() { close(s.ready) }) }

func (s *agentSession) serve(ctx context.Context, _ *vmm.Machine) error {
	if s.lasting == nil || s.lasting.from == nil { // else it runs already
		select {
		case <-s.ready:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if s.idle {
		<-ctx.Done()
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
	s.in.Close() // what is typed from now on is for whoever comes next
	var refused *agent.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &refused):
		s.say.say("%v", refused) // "in the guest: …"
		if s.errs != s.say.w {   // in the background nobody hears that
			fmt.Fprintf(s.errs, "vitrine: %v\n", refused)
		}
		return exitStatus(refused.ExitCode())
	case err != nil:
		return fmt.Errorf("run %s: %w", quote(s.argv[0]), err)
	case status.ExitCode() != 0:
		return exitStatus(status.ExitCode())
	}
	return nil
}

func (s *agentSession) run(ctx context.Context) (agent.Status, error) {
	c := &agent.Command{Args: s.argv, Env: agent.DefaultEnv(), Dir: "/root", Stdin: s.in, Stdout: s.out, Stderr: s.errs}
	if s.size != nil {
		c.TTY, c.Size, c.Resize = true, usualSize, s.size
	}
	if s.lasting != nil {
		return s.lasting.run(ctx, s.agent, c)
	}
	if s.tty == nil {
		return s.agent.Exec(ctx, c)
	}
	if err := s.tty.MakeRaw(); err != nil {
		return agent.Status{}, err
	}
	defer s.tty.Close()
	c.TTY = true
	c.Size = s.tty.Size()
	if t := os.Getenv("TERM"); t != "" {
		c.Env = append(c.Env, "TERM="+t)
	}
	resize, stop := watchSize(s.tty)
	defer stop()
	c.Resize = resize
	return s.agent.Exec(ctx, c)
}

// resize changes the size of the program's terminal, if it has one that is not
// the user's.
func (s *agentSession) resize(size agent.Size) {
	select {
	case <-s.size: // overtaken
	default:
	}
	select {
	case s.size <- size:
	default: // by somebody else's
	}
}

func (s *agentSession) turnOff(ctx context.Context) bool {
	select {
	case <-s.ready:
	default:
		return false
	}
	if s.brief {
		return false
	}
	// The connection may end before the answer comes: the guest was asked.
	err := s.agent.PowerOff(ctx)
	return err == nil || errors.Is(err, agent.ErrLost)
}
