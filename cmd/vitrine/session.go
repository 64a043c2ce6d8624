package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// session is how the user and the guest are in touch.
type session interface {
	// serve returns when the user is done with the guest: nil, errEnd, an
	// exitStatus to pass on, or what failed. It returns soon after ctx is
	// done.
	serve(ctx context.Context, m *vmm.Machine) error
	// turnOff asks the guest to turn itself off and says whether it could
	// be asked.
	turnOff(ctx context.Context) bool
}

func (unattended) serve(ctx context.Context, _ *vmm.Machine) error {
	<-ctx.Done()
	return nil
}

func (unattended) turnOff(context.Context) bool { return false }

// userInput is what the user types, until Ctrl-A x: the guest then sees the end
// of its input, and end is closed.
type userInput struct {
	*inputReader
	once sync.Once
	end  chan struct{}
}

func newUserInput(in *input) *userInput {
	return &userInput{inputReader: in.attach(), end: make(chan struct{})}
}

func (u *userInput) Read(p []byte) (int, error) {
	n, err := u.inputReader.Read(p)
	if errors.Is(err, errEnd) {
		u.once.Do(func() { close(u.end) })
		err = io.EOF
	}
	return n, err
}

// consoleSession has the guest's serial port on standard input and output.
type consoleSession struct {
	opt *runOptions
	in  *userInput
	tty *terminal
	say *messages
}

func newConsoleSession(o *runOptions, r *runner) *consoleSession {
	return &consoleSession{opt: o, in: newUserInput(r.in), tty: r.tty, say: r.errOut}
}

func (s *consoleSession) serve(ctx context.Context, m *vmm.Machine) error {
	if s.tty != nil {
		if err := s.tty.MakeRaw(); err != nil {
			return err
		}
	}
	silence := time.AfterFunc(silentFor, func() {
		if _, spoken := m.Timings().At(vmm.PhaseFirstByte); spoken {
			return
		}
		slow := ""
		if m.Accelerator() == vmm.AccelKVM && vmm.KernelsEmulated() {
			slow = " (here KVM emulates it, and a distribution's kernel needs a minute before it has a console)"
		}
		s.say.say("the guest has not said anything for %.0f s%s: %s", silentFor.Seconds(), slow, silenceHint(s.opt))
	})
	defer silence.Stop()
	select {
	case <-s.in.end:
		return errEnd
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *consoleSession) turnOff(context.Context) bool { return false }

// silentFor is how long a kernel may say nothing before there is a hint.
const silentFor = 10 * time.Second

// silenceHint says what a user can try whose kernel says nothing.
func silenceHint(o *runOptions) string {
	switch {
	case o.appendSet && !hasParameter(o.append, "console"):
		return "add console=ttyS0 to --append, so that its kernel uses the serial port"
	case !strings.Contains(o.append, "earlyprintk"):
		return "try --append 'console=ttyS0 earlyprintk=ttyS0', and see that its kernel has CONFIG_SERIAL_8250_CONSOLE"
	case o.protocol == 0:
		return "its kernel may stop before it has a console: try --boot linux, --boot pvh, or more --memory"
	}
	return "its kernel may stop before it has a console: try --boot auto, or more --memory"
}
