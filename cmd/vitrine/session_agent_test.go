package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/agent"
)

// fakeAgent runs programs of the test's.
type fakeAgent struct {
	run func(ctx context.Context, c *agent.Command) (agent.Status, error)
	off error
}

func (f fakeAgent) Exec(ctx context.Context, c *agent.Command) (agent.Status, error) {
	return f.run(ctx, c)
}
func (f fakeAgent) PowerOff(context.Context) error { return f.off }

var _ guestAgent = (*agent.Client)(nil)

// agentRunner is a runner whose output and errors are kept.
func agentRunner(in io.Reader) (r *runner, out, errOut *syncBuffer) {
	out, errOut = new(syncBuffer), new(syncBuffer)
	return &runner{in: newInput(in), out: out, errOut: &messages{w: errOut}}, out, errOut
}

func TestCommandsStreamsAndStatusComeThrough(t *testing.T) {
	a := fakeAgent{run: func(_ context.Context, c *agent.Command) (agent.Status, error) {
		text, err := io.ReadAll(c.Stdin)
		_, _ = c.Stdout.Write(append([]byte(strings.Join(c.Args, "+")+" "), text...))
		_, _ = io.WriteString(c.Stderr, "oops")
		return agent.Status{Code: 3}, err
	}}
	r, out, errOut := agentRunner(strings.NewReader("input"))
	s := newAgentSession(a, mustParse(t, "--", "a", "b c"), r)
	if s.turnOff(context.Background()) {
		t.Error("a guest without agent was asked to turn itself off")
	}
	s.agentReady()
	s.agentReady()
	if err := s.serve(context.Background(), nil); err != exitStatus(3) {
		t.Errorf("ended with %v", err)
	}
	if out.String() != "a+b c input" || errOut.String() != "oops" {
		t.Errorf("output %q, errors %q", out.String(), errOut.String())
	}
	if !s.turnOff(context.Background()) {
		t.Error("the guest was not asked")
	}
}

func TestShellWhereThereIsNoCommand(t *testing.T) {
	a := fakeAgent{run: func(_ context.Context, c *agent.Command) (agent.Status, error) {
		if c.Args[0] != shell[0] || c.TTY {
			t.Errorf("program %+v", c)
		}
		return agent.Status{}, nil
	}}
	r, _, _ := agentRunner(strings.NewReader(""))
	s := newAgentSession(a, mustParse(t), r)
	s.agentReady()
	if err := s.serve(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

func TestSessionEndsWithItsContext(t *testing.T) {
	reason := errors.New("enough")
	a := fakeAgent{run: func(ctx context.Context, _ *agent.Command) (agent.Status, error) {
		<-ctx.Done()
		return agent.Status{}, ctx.Err()
	}}
	for _, ready := range []bool{false, true} {
		r, _, _ := agentRunner(strings.NewReader(""))
		s := newAgentSession(a, mustParse(t), r)
		if ready {
			s.agentReady()
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(reason)
		if err := s.serve(ctx, nil); err != reason {
			t.Errorf("agent ready %v: ended with %v", ready, err)
		}
	}
}

func TestKeysEndTheSession(t *testing.T) {
	a := fakeAgent{run: func(ctx context.Context, c *agent.Command) (agent.Status, error) {
		text, err := io.ReadAll(c.Stdin)
		if string(text) != "ab" || err != nil {
			t.Errorf("the program read %q, %v", text, err)
		}
		<-ctx.Done()
		return agent.Status{}, ctx.Err()
	}}
	r, _, _ := agentRunner(&keys{r: strings.NewReader("ab\x01x")})
	s := newAgentSession(a, mustParse(t), r)
	s.agentReady()
	if err := s.serve(context.Background(), nil); err != errEnd {
		t.Errorf("ended with %v", err)
	}
}

func TestGuestsWithoutAnAnswer(t *testing.T) {
	for err, want := range map[error]bool{nil: true, agent.ErrLost: true, errors.New("refused"): false} {
		r, _, _ := agentRunner(strings.NewReader(""))
		s := newAgentSession(fakeAgent{off: err}, mustParse(t), r)
		s.agentReady()
		if got := s.turnOff(context.Background()); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

func TestProgramsThatCannotRun(t *testing.T) {
	for errno, want := range map[uint32]int{2: 127, 13: 126} {
		r, _, errOut := agentRunner(strings.NewReader(""))
		a := fakeAgent{run: func(context.Context, *agent.Command) (agent.Status, error) {
			return agent.Status{}, &agent.Error{Errno: errno, What: "frob"}
		}}
		s := newAgentSession(a, mustParse(t, "--", "frob"), r)
		s.agentReady()
		err := s.serve(context.Background(), nil)
		if err != exitStatus(want) || !strings.HasPrefix(errOut.String(), "vitrine: in the guest: \"frob\": ") {
			t.Errorf("error %d: ended with %v, said %q", errno, err, errOut.String())
		}
	}
}

func TestProgramsThatSignalsEnd(t *testing.T) {
	r, _, _ := agentRunner(strings.NewReader(""))
	a := fakeAgent{run: func(context.Context, *agent.Command) (agent.Status, error) { return agent.Status{Signal: 9}, nil }}
	s := newAgentSession(a, mustParse(t, "--", "suicide"), r)
	s.agentReady()
	if err := s.serve(context.Background(), nil); err != exitStatus(137) {
		t.Errorf("ended with %v", err)
	}
}

// A machine that is saved while it waits for its settings has an agent, which
// will not say again that it listens: the machine's clones must not wait for it.
func TestSavedBeforeItsSettings(t *testing.T) {
	s := &agentSession{ready: make(chan struct{})}
	l := &launch{opt: new(runOptions), session: s}
	if l.describe().Agent {
		t.Error("an agent that has not said anything listens")
	}
	s.listens.Store(true)
	if !l.describe().Agent {
		t.Error("the agent is forgotten")
	}
}
