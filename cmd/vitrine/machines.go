package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// stateFlag is where machines are registered, for every command that deals
// with them.
func stateFlag() cli.Flag {
	return &cli.StringFlag{Name: "state", EnvVars: []string{"VITRINE_STATE"}, Usage: "`DIR` where running machines are found (default: vitrine in $XDG_RUNTIME_DIR, or /run/vitrine)"}
}

// openState opens the run directory that a command's flags name.
func openState(c *cli.Context) (*control.Dir, error) {
	path := c.String("state")
	if path == "" {
		path = control.DefaultPath()
	}
	return control.OpenDir(path)
}

// machineCommand is a command about machines that are named on its line.
func machineCommand(name, args, usage string, action func(*cli.Context, *control.Dir, []string) error, flags ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name: name, ArgsUsage: args, Usage: usage, OnUsageError: onUsageError,
		Flags:        append(flags, stateFlag()),
		BashComplete: completeNames,
		Action: func(c *cli.Context) error {
			names, err := machineNames(c)
			if err != nil {
				return err
			}
			dir, err := openState(c)
			if err != nil {
				return err
			}
			return action(c, dir, names)
		},
	}
}

// machineNames are a command's arguments, which must be names.
func machineNames(c *cli.Context) ([]string, error) {
	names := c.Args().Slice()
	for _, n := range names {
		switch {
		case strings.HasPrefix(n, "-"):
			return nil, usagef("write vitrine "+c.Command.Name+" "+n+" … NAME", "%s: flags go before the machine's name", n)
		case control.CheckName(n) != nil:
			return nil, usagef("vitrine ps -a lists them", "%q is no name of a machine", n)
		}
	}
	return names, nil
}

// atLeastOne refuses a command without names.
func atLeastOne(c *cli.Context, names []string) error {
	if len(names) == 0 {
		return usagef("vitrine ps lists them", "%s: want the name of a machine", c.Command.Name)
	}
	return nil
}

// exactlyOne is the only name, for commands about one machine.
func exactlyOne(c *cli.Context, names []string) (string, error) {
	if err := atLeastOne(c, names); err != nil {
		return "", err
	}
	if len(names) > 1 {
		return "", usagef("name one", "%s: %d machines", c.Command.Name, len(names))
	}
	return names[0], nil
}

// askTime is how long a machine may take to answer what it can answer at once.
const askTime = 5 * time.Second

// onEach does something to each machine, to all at the same time, and prints
// the names of those where that worked.
func onEach(c *cli.Context, names []string, do func(ctx context.Context, name string) error) error {
	if err := atLeastOne(c, names); err != nil {
		return err
	}
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = do(c.Context, name) })
	}
	wg.Wait()
	failed := 0
	for i, err := range errs {
		if err == nil {
			fmt.Fprintln(c.App.Writer, names[i])
			continue
		}
		failed++
		if len(names) > 1 {
			fmt.Fprintf(c.App.ErrWriter, "vitrine: %v\n", err)
		}
	}
	switch {
	case failed == 0:
		return nil
	case len(names) == 1:
		return errs[0]
	}
	return exitStatus(statusFailure)
}

// askEach is onEach for what a machine does at once.
func askEach(c *cli.Context, dir *control.Dir, names []string, ask func(context.Context, *control.Client) error) error {
	return onEach(c, names, func(ctx context.Context, name string) error {
		client, err := dir.Client(name)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		return ask(ctx, client)
	})
}

func pauseCommand() *cli.Command {
	return machineCommand("pause", "NAME…", "stop the CPUs and devices of machines, until resume",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			return askEach(c, dir, names, func(ctx context.Context, m *control.Client) error { return m.Pause(ctx) })
		})
}

func resumeCommand() *cli.Command {
	return machineCommand("resume", "NAME…", "go on after pause",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			return askEach(c, dir, names, func(ctx context.Context, m *control.Client) error { return m.Resume(ctx) })
		})
}

func stopCommand() *cli.Command {
	return machineCommand("stop", "NAME…", "ask guests to turn themselves off, and end those that do not",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			grace, err := parseWait(c.String("time"))
			if err != nil {
				return err
			}
			return onEach(c, names, func(ctx context.Context, name string) error { return stopMachine(ctx, dir, name, grace) })
		},
		&cli.StringFlag{Name: "time", Aliases: []string{"t"}, Usage: "`TIME` that a guest has for it", Value: graceful.String()})
}

// parseWait reads a time to wait, such as 10s, 2m or, in seconds, 10.
func parseWait(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if n, e := strconv.ParseUint(s, 10, 31); e == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d < 0 {
		return 0, usagef("such as 10s", "--time %s: not a time to wait", quote(s))
	}
	return d, nil
}

// stopMachine returns when the machine's process has ended.
func stopMachine(ctx context.Context, dir *control.Dir, name string, grace time.Duration) error {
	r, err := dir.Find(name)
	if err != nil {
		return err
	}
	client, err := dir.Client(name)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, grace+askTime)
	defer cancel()
	if err := client.Stop(asking, grace); err != nil {
		if !errors.Is(err, control.ErrNoAnswer) {
			return err
		}
		return killProcess(ctx, dir, name)
	}
	return gone(ctx, dir, name, r.PID)
}

// gone waits for the end of a machine's process, which is about to come.
func gone(ctx context.Context, dir *control.Dir, name string, pid int) error {
	waiting, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, _ = dir.Wait(waiting, name)
	// Another machine may have the name by now.
	if r, err := dir.Find(name); waiting.Err() != nil && err == nil && r.PID == pid {
		return killProcess(ctx, dir, name)
	}
	return ctx.Err()
}

func killCommand() *cli.Command {
	return machineCommand("kill", "NAME…", "end machines at once",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			return onEach(c, names, func(ctx context.Context, name string) error { return killMachine(ctx, dir, name) })
		})
}

func killMachine(ctx context.Context, dir *control.Dir, name string) error {
	r, err := dir.Find(name)
	if err != nil {
		return err
	}
	client, err := dir.Client(name)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := client.Kill(asking); err != nil {
		return killProcess(ctx, dir, name)
	}
	return gone(ctx, dir, name, r.PID)
}

// killProcess ends the process of a machine that does not answer.
func killProcess(ctx context.Context, dir *control.Dir, name string) error {
	r, err := dir.Find(name)
	if err != nil || !r.Alive() && !dir.Held(name) {
		return err
	}
	if err := endProcess(r.PID); err != nil {
		return fmt.Errorf("machine %q: end process %d: %w", name, r.PID, err)
	}
	if _, err := dir.Wait(ctx, name); err != nil && ctx.Err() != nil {
		return err
	}
	return dir.Bury(name, "its process did not answer and was killed")
}

func waitCommand() *cli.Command {
	return machineCommand("wait", "NAME…", "wait for the end of machines, and exit as they did",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			if err := atLeastOne(c, names); err != nil {
				return err
			}
			worst := 0
			for _, name := range names {
				r, err := dir.Wait(c.Context, name)
				if err != nil {
					return err
				}
				if r.ExitStatus == nil {
					return fmt.Errorf("machine %q has no exit status: %s", name, r.Ending())
				}
				if *r.ExitStatus != 0 {
					worst = *r.ExitStatus
				}
			}
			if worst != 0 {
				return exitStatus(worst)
			}
			return nil
		})
}

func rmCommand() *cli.Command {
	return machineCommand("rm", "NAME…", "forget machines that have ended, with their logs",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			return onEach(c, names, func(ctx context.Context, name string) error {
				if r, err := dir.Find(name); c.Bool("force") && err == nil && r.Alive() {
					if err := killMachine(ctx, dir, name); err != nil {
						return err
					}
				}
				err := dir.Remove(name)
				if errors.Is(err, control.ErrNoMachine) && c.Bool("force") {
					return nil // it took its record with it
				}
				if inUse := (*control.InUseError)(nil); errors.As(err, &inUse) {
					return fmt.Errorf("machine %q is running (process %d): vitrine stop %s first, or vitrine rm -f %s", name, inUse.PID, name, name)
				}
				return err
			})
		},
		&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "kill those that run"})
}

// completeNames suggests the names of machines to a shell.
func completeNames(c *cli.Context) {
	names := suggestions(c)
	for _, n := range names {
		fmt.Fprintln(c.App.Writer, n)
	}
}

func suggestions(c *cli.Context) []string {
	dir, err := openState(c)
	if err != nil {
		return nil
	}
	list, err := dir.List()
	if err != nil {
		return nil
	}
	var names []string
	for _, r := range list {
		if r.Alive() || endedToo[c.Command.Name] {
			names = append(names, r.Name)
		}
	}
	return names
}

// endedToo are the commands that deal with machines that do not run any more.
var endedToo = map[string]bool{"rm": true, "logs": true, "inspect": true, "wait": true}

// writeLines writes what a command has to show.
func writeLines(w io.Writer, lines []string) error {
	_, err := io.WriteString(w, strings.Join(lines, "\n")+"\n")
	return err
}
