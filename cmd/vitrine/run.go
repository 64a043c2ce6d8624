package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/agent"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "run a machine: the embedded guest's shell, a command in it, or a kernel of yours",
		ArgsUsage: "[-- COMMAND [ARGUMENT…]]",
		Description: "Without a kernel, the embedded guest boots and gives you a shell; Ctrl-A x ends it.\n" +
			"Without a terminal, it takes the shell's commands from standard input.\n" +
			"With a command after --, it runs that alone and passes on its output and exit status.\n" +
			"docs/cli.md describes every flag and exit status.",
		OnUsageError: onUsageError,
		Flags:        runFlags(),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				first := c.Args().First()
				return usagef("a command for the guest goes after --: vitrine run -- "+shellWord(first), "unexpected argument %s", quote(first))
			}
			if err := readConfig(c); err != nil {
				return err
			}
			o, err := parseRunOptions(c)
			if err != nil {
				return err
			}
			switch {
			case c.Bool("print-config"):
				return printConfig(c)
			case o.detach && !isDetached():
				return detachAgain(c)
			case o.detach:
				return newDetachedRunner(o, c.App.ErrWriter).run(c.Context)
			}
			return newRunner(o, c.App.Reader, c.App.Writer, c.App.ErrWriter).run(c.Context)
		},
	}
}

// runner runs one machine, or one after the other while its guest reboots and
// is to be restarted.
type runner struct {
	opt    *runOptions
	in     *input
	out    io.Writer
	errOut *messages
	tty    *terminal // nil where input or output is none
	sig    *interrupts
	hub    *control.Hub // the console, for others
	live   *live        // what others see

	watchers []watcher // beside those that the flags of run ask for
	announce func()    // says that the machine is up; nil where nobody waits for it
}

func newRunner(o *runOptions, in io.Reader, out, errOut io.Writer) *runner {
	r := &runner{opt: o, out: out, errOut: &messages{w: errOut}, hub: control.NewHub()}
	if f, ok := asTerminal(in); ok && isTerminal(out) {
		r.tty = newTerminal(f)
		in = &keys{r: in, help: out}
	}
	r.in = newInput(in)
	return r
}

// run runs the machine and says how it ended.
func (r *runner) run(ctx context.Context) (err error) {
	r.sig = catchSignals(ctx)
	defer r.sig.stop()
	heed(r.sig, r.out, r.errOut.w)
	if r.live, err = r.register(); err != nil {
		return err
	}
	defer func() { r.live.finish(err) }()
	if r.tty != nil {
		defer r.tty.Close()
		r.errOut.raw = r.tty.Raw
	}
	for {
		err := r.once()
		var end *vmm.StopError
		if !errors.As(err, &end) || end.Cause != vmm.CauseReboot {
			return err
		}
		if r.opt.onReboot != "restart" {
			return nil
		}
		r.live.log.Info("the guest reboots")
		r.errOut.say("the guest reboots")
	}
}

// once runs the machine from New to its end.
func (r *runner) once() (err error) {
	l, err := r.opt.open(r)
	if err != nil {
		return err
	}
	defer l.close()
	m, err := r.newMachine(l)
	if err != nil {
		return hostError(err)
	}
	defer m.Close()
	if l.beforeClose != nil {
		defer l.beforeClose()
	}

	finish, err := r.watch(m)
	if err != nil {
		return err
	}
	defer func() {
		if e := finish(err); err == nil {
			err = e
		}
	}()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(context.Background()) }()
	defer r.live.hide()
	if err := r.live.show(m, l); err != nil {
		m.Stop(err)
		<-ended
		return err
	}
	if r.announce != nil {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go r.tellWhenUp(ctx, m)
	}
	err = r.attend(m, l, ended)
	if _, up := m.Timings().At(vmm.PhaseFirstRun); up && r.announce != nil {
		r.announce() // it was quick
	}
	if r.tty != nil {
		r.tty.Close()
	}
	if r.opt.timings {
		printTimings(r.errOut.w, m.Timings())
		printInstructions(r.errOut.w, m)
	}
	return err
}

// graceful is how long a guest that was asked to turn itself off may take. On
// hosts that emulate guest kernels it needs seconds.
const graceful = 10 * time.Second

// attend keeps the user and the guest in touch until the machine ends, or ends
// it when the user is done with it.
func (r *runner) attend(m *vmm.Machine, l *launch, ended <-chan error) error {
	ctx, cancel := context.WithCancelCause(r.sig.first)
	defer cancel(nil)
	done := make(chan error, 1)
	go func() { done <- l.session.serve(ctx, m) }()

	var said error // what the session ended with
	select {
	case err := <-ended:
		cancel(errGuestEnded)
		<-done
		if s, ok := l.session.(*recordedSession); ok && err == nil {
			return s.result()
		}
		return ending(err)
	case said = <-done:
	case <-r.sig.first.Done():
		said = context.Cause(r.sig.first)
		cancel(said)
	}
	err := r.turnOff(m, l, said, ended)
	var stop *vmm.StopError
	switch {
	case errors.As(err, &stop) && stop.Cause != vmm.CauseStopped:
		return err // it crashed, or rebooted, before it could be turned off
	case errors.Is(said, agent.ErrLost) && err == nil:
		return nil // it turned itself off, and took the connection with it
	}
	return ending(said)
}

// turnOff asks the guest to turn itself off and ends the machine if it does
// not do so in time, or if the user asks a second time.
func (r *runner) turnOff(m *vmm.Machine, l *launch, why error, ended <-chan error) error {
	ctx, cancel := context.WithTimeout(r.sig.second, graceful)
	defer cancel()
	asked := make(chan bool, 1)
	go func() { asked <- l.session.turnOff(ctx) }()
	select {
	case err := <-ended: // it was about to, and may not have heard the question
		return err
	case heard := <-asked:
		if !heard {
			m.Stop(why)
			return <-ended
		}
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		m.Stop(why)
		return <-ended
	}
}

var errGuestEnded = errors.New("the guest has ended")

// ending turns what a machine or a session ended with into what the user is to
// hear: nothing where it was the user's own wish.
func ending(err error) error {
	var s signalError
	switch {
	case err == nil, errors.Is(err, errEnd):
		return nil
	case errors.As(err, &s):
		return exitStatus(statusSignal + int(s.number))
	}
	return hostError(err)
}

// printTimings prints when each phase was reached, counted from the start of
// the process. Some overlap, so they stand in the order of time.
func printTimings(w io.Writer, t *vmm.Timings) {
	type row struct {
		phase string
		at    time.Time
	}
	rows := []row{{"main", mainStarted}}
	for _, p := range vmm.Phases() {
		if at, ok := t.At(p); ok {
			rows = append(rows, row{p.String(), at})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return a.at.Compare(b.at) })
	start := processStart()
	last := start
	fmt.Fprintf(w, "%-18s %13s %13s\n", "phase", "since exec", "step")
	for _, r := range rows {
		fmt.Fprintf(w, "%-18s %13s %13s\n", r.phase, milliseconds(r.at.Sub(start)), milliseconds(r.at.Sub(last)))
		last = r.at
	}
}

// printInstructions prints how many instructions a software CPU has executed,
// and how many a second from its first on, sleep included.
func printInstructions(w io.Writer, m *vmm.Machine) {
	n, ok := m.Instructions()
	first, began := m.Timings().At(vmm.PhaseFirstRun)
	exit, ended := m.Timings().At(vmm.PhaseExit)
	if !ok || !began || !ended {
		return
	}
	fmt.Fprintf(w, "%-18s %13d %10.1f M/s\n", "instructions", n, float64(n)/exit.Sub(first).Seconds()/1e6)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
