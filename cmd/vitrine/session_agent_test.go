package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// fakeAgent runs programs of the test's.
type fakeAgent struct {
	run func(ctx context.Context, p program) (int, error)
	off error
}

func (f fakeAgent) Run(ctx context.Context, p program) (int, error) { return f.run(ctx, p) }
func (f fakeAgent) PowerOff(context.Context) error                  { return f.off }

// agentRunner is a runner whose output and errors are kept.
func agentRunner(in io.Reader) (r *runner, out, errOut *syncBuffer) {
	out, errOut = new(syncBuffer), new(syncBuffer)
	return &runner{in: newInput(in), out: out, errOut: &messages{w: errOut}}, out, errOut
}

func TestCommandsStreamsAndStatusComeThrough(t *testing.T) {
	agent := fakeAgent{run: func(_ context.Context, p program) (int, error) {
		text, err := io.ReadAll(p.in)
		_, _ = p.out.Write(append([]byte(strings.Join(p.argv, "+")+" "), text...))
		_, _ = io.WriteString(p.errOut, "oops")
		return 3, err
	}}
	r, out, errOut := agentRunner(strings.NewReader("input"))
	s := newAgentSession(agent, mustParse(t, "--", "a", "b c"), r)
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
	agent := fakeAgent{run: func(_ context.Context, p program) (int, error) {
		if p.argv[0] != shell[0] || p.tty {
			t.Errorf("program %+v", p)
		}
		return 0, nil
	}}
	r, _, _ := agentRunner(strings.NewReader(""))
	s := newAgentSession(agent, mustParse(t), r)
	s.agentReady()
	if err := s.serve(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

func TestSessionEndsWithItsContext(t *testing.T) {
	reason := errors.New("enough")
	agent := fakeAgent{run: func(ctx context.Context, _ program) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}}
	for _, ready := range []bool{false, true} {
		r, _, _ := agentRunner(strings.NewReader(""))
		s := newAgentSession(agent, mustParse(t), r)
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
	agent := fakeAgent{run: func(ctx context.Context, p program) (int, error) {
		text, err := io.ReadAll(p.in)
		if string(text) != "ab" || err != nil {
			t.Errorf("the program read %q, %v", text, err)
		}
		<-ctx.Done()
		return 0, ctx.Err()
	}}
	r, _, _ := agentRunner(&keys{r: strings.NewReader("ab\x01x")})
	s := newAgentSession(agent, mustParse(t), r)
	s.agentReady()
	if err := s.serve(context.Background(), nil); err != errEnd {
		t.Errorf("ended with %v", err)
	}
}

func TestGuestsWithoutAnAnswer(t *testing.T) {
	for err, want := range map[error]bool{nil: true, errConnectionLost: true, errors.New("refused"): false} {
		r, _, _ := agentRunner(strings.NewReader(""))
		s := newAgentSession(fakeAgent{off: err}, mustParse(t), r)
		s.agentReady()
		if got := s.turnOff(context.Background()); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
