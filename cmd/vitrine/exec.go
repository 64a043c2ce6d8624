package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/agent"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func execCommand() *cli.Command {
	return &cli.Command{
		Name: "exec", ArgsUsage: "NAME [COMMAND [ARGUMENT…]]", OnUsageError: onUsageError,
		Usage:       "run a command, or a shell, in a running machine with the embedded guest",
		Description: "The command's output, errors and exit status are vitrine's. Without a command there is a shell.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the command a terminal"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "`NAME=VALUE` in the command's environment; once for each"},
			&cli.StringFlag{Name: "dir", Aliases: []string{"w"}, Usage: "`DIR` in the guest, where the command begins", Value: "/root"},
			stateFlag(),
		},
		BashComplete: completeNames,
		Action:       execInMachine,
	}
}

func execInMachine(c *cli.Context) error {
	args := append(c.Args().Slice(), guestCommand(c)...)
	if len(args) == 0 {
		return usagef("vitrine ps lists them", "exec: want the name of a machine")
	}
	for _, e := range c.StringSlice("env") {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return usagef("such as --env LANG=C", "--env %s: want NAME=VALUE", quote(e))
		}
	}
	client, err := agentOf(c, args[0])
	if err != nil {
		return err
	}
	e := &execution{client: client, cli: c, cmd: &agent.Command{
		Args: args[1:], Env: append(agent.DefaultEnv(), c.StringSlice("env")...), Dir: c.String("dir"),
		Stdin: c.App.Reader, Stdout: c.App.Writer, Stderr: c.App.ErrWriter,
	}}
	f, terminal := asTerminal(c.App.Reader)
	terminal = terminal && isTerminal(c.App.Writer)
	if len(e.cmd.Args) == 0 {
		e.cmd.Args, e.cmd.TTY = shell, terminal
	}
	if c.Bool("tty") {
		e.cmd.TTY = true
	}
	if e.cmd.TTY && terminal {
		e.tty = newTerminal(f)
	}
	return e.run()
}

// agentOf is the agent of the machine called name.
func agentOf(c *cli.Context, name string) (*agent.Client, error) {
	dir, err := openState(c)
	if err != nil {
		return nil, err
	}
	client, err := dir.Client(name)
	if err != nil {
		return nil, err
	}
	if r, err := dir.Find(name); err == nil && r.State == control.StatePaused {
		return nil, fmt.Errorf("machine %q is paused: vitrine resume %s", name, name)
	}
	return agent.New(func(ctx context.Context) (net.Conn, error) { return client.Dial(ctx, agent.Port) }), nil
}

// execution is a command in a guest.
type execution struct {
	client *agent.Client
	cli    *cli.Context
	cmd    *agent.Command
	tty    *terminal // nil: none of ours is the guest's
}

func (e *execution) run() error {
	ctx, cancel := context.WithCancelCause(e.cli.Context)
	defer cancel(nil)
	if e.tty == nil {
		e.cmd.Size = usualSize
		signals, stop := passSignals(cancel)
		defer stop()
		e.cmd.Signals = signals
		return e.ended(e.client.Exec(ctx, e.cmd))
	}
	if err := e.tty.MakeRaw(); err != nil {
		return err
	}
	e.cmd.Size = e.tty.Size()
	if t := os.Getenv("TERM"); t != "" {
		e.cmd.Env = append(e.cmd.Env, "TERM="+t)
	}
	resize, stop := watchSize(e.tty)
	defer stop()
	e.cmd.Resize = resize
	status, err := e.client.Exec(ctx, e.cmd)
	e.tty.Close()
	return e.ended(status, err)
}

// ended turns the end of the command into vitrine's own.
func (e *execution) ended(status agent.Status, err error) error {
	var refused *agent.Error
	switch {
	case errors.As(err, &refused):
		fmt.Fprintf(e.cli.App.ErrWriter, "vitrine: %v\n", refused)
		return exitStatus(refused.ExitCode())
	case err != nil:
		return err
	case status.ExitCode() != 0:
		return exitStatus(status.ExitCode())
	}
	return nil
}

// passSignals passes Ctrl-C and the like on to a program in the guest. The
// third one ends the wait for it.
func passSignals(cancel context.CancelCauseFunc) (numbers <-chan uint32, stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	out := make(chan uint32, 4)
	done := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			select {
			case s := <-signals:
				number, _ := s.(syscall.Signal)
				if n == 3 {
					cancel(signalError{number})
					return
				}
				out <- uint32(number)
			case <-done:
				return
			}
		}
	}()
	return out, func() {
		signal.Stop(signals)
		close(done)
	}
}
