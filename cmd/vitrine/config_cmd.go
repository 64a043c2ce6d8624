package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/config"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func configCommand() *cli.Command {
	return &cli.Command{
		Name: "config", Usage: "check machine files", OnUsageError: onUsageError,
		Action: func(c *cli.Context) error {
			return usagef("vitrine config check FILE, or vitrine config schema", "config: want a command")
		},
		Subcommands: []*cli.Command{
			{
				Name: "check", ArgsUsage: "FILE…", Usage: "name line and field of each mistake", OnUsageError: onUsageError,
				Action: func(c *cli.Context) error {
					if !c.Args().Present() {
						return usagef("vitrine config check FILE", "config check: want a file")
					}
					failed := false
					for _, path := range c.Args().Slice() {
						if _, err := loadConfig(c, path); err != nil {
							failed = true
							fmt.Fprintln(c.App.ErrWriter, err)
						}
					}
					if failed {
						return exitStatus(statusFailure)
					}
					return nil
				},
			},
			{
				Name: "schema", Usage: "print the JSON Schema of machine files", OnUsageError: onUsageError,
				Action: func(c *cli.Context) error { return writeJSON(c.App.Writer, config.Schema(configFields())) },
			},
		},
	}
}

func upCommand() *cli.Command {
	return &cli.Command{
		Name: "up", ArgsUsage: "FILE", OnUsageError: onUsageError,
		Usage:       "start all machines of a file that do not run yet",
		Description: "If one cannot be started, those that were started with it are stopped again.",
		Flags:       []cli.Flag{stateFlag()},
		Action:      func(c *cli.Context) error { return withFile(c, up) },
	}
}

func downCommand() *cli.Command {
	return &cli.Command{
		Name: "down", ArgsUsage: "FILE", OnUsageError: onUsageError,
		Usage: "stop all machines of a file, and forget them",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "time", Aliases: []string{"t"}, Usage: "`TIME` that guests have to turn themselves off", Value: graceful.String()},
			stateFlag(),
		},
		Action: func(c *cli.Context) error { return withFile(c, down) },
	}
}

// withFile reads the file of up and down.
func withFile(c *cli.Context, do func(*cli.Context, *control.Dir, *config.File) error) error {
	if c.NArg() != 1 {
		return usagef("vitrine "+c.Command.Name+" FILE", "%s: want one file", c.Command.Name)
	}
	f, err := loadConfig(c, c.Args().First())
	if err != nil {
		return err
	}
	for _, m := range f.Machines {
		if m.Name == "" {
			return fmt.Errorf("%s: the machine has no name: add name: NAME", c.Args().First())
		}
	}
	dir, err := openState(c)
	if err != nil {
		return err
	}
	return do(c, dir, f)
}

func up(c *cli.Context, dir *control.Dir, f *config.File) error {
	path, err := filepath.Abs(c.Args().First())
	if err != nil {
		return err
	}
	errs := make([]error, len(f.Machines))
	var started []string
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, m := range f.Machines {
		if r, err := dir.Find(m.Name); err == nil && r.Alive() {
			fmt.Fprintf(c.App.ErrWriter, "vitrine: machine %q runs already\n", m.Name)
			continue
		}
		wg.Go(func() {
			args := []string{"run", "--detach", "--state", dir.Path(), "--config", path, "--machine", m.Name}
			if _, err := detach(c.Context, args, c.App.ErrWriter); err != nil {
				errs[i] = fmt.Errorf("machine %q: %w", m.Name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			started = append(started, m.Name)
			fmt.Fprintln(c.App.Writer, m.Name)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, name := range started {
			err = errors.Join(err, downOne(context.WithoutCancel(c.Context), dir, name, graceful))
		}
		var status exitStatus
		if errors.As(err, &status) { // the machine has said why
			return status
		}
		return err
	}
	return nil
}

func down(c *cli.Context, dir *control.Dir, f *config.File) error {
	var names []string
	for _, m := range f.Machines {
		if _, err := dir.Find(m.Name); err == nil {
			names = append(names, m.Name)
		}
	}
	grace, err := parseWait(c.String("time"))
	if len(names) == 0 || err != nil {
		return err
	}
	return onEach(c, names, func(ctx context.Context, name string) error {
		return downOne(ctx, dir, name, grace)
	})
}
