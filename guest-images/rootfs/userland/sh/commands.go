package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/core"
	"github.com/u-root/u-root/pkg/core/cat"
	"github.com/u-root/u-root/pkg/core/chmod"
	"github.com/u-root/u-root/pkg/core/cp"
	"github.com/u-root/u-root/pkg/core/ls"
	"github.com/u-root/u-root/pkg/core/mkdir"
	"github.com/u-root/u-root/pkg/core/mktemp"
	"github.com/u-root/u-root/pkg/core/mv"
	"github.com/u-root/u-root/pkg/core/rm"
	"github.com/u-root/u-root/pkg/core/touch"
	"mvdan.cc/sh/v3/interp"
)

// commands run in the shell's process: the same code that the programs of
// these names run.
var commands = map[string]func() core.Command{
	"cat": cat.New, "chmod": chmod.New, "cp": cp.New, "ls": ls.New, "mkdir": mkdir.New,
	"mktemp": mktemp.New, "mv": mv.New, "rm": rm.New, "touch": touch.New,
}

// long are those that may run for long: where somebody may interrupt them,
// they are programs, which a signal ends.
var long = map[string]bool{"cp": true, "mv": true, "rm": true}

// readsInput says whether a command reads standard input, and so may wait for
// ever.
func readsInput(args []string) bool {
	return args[0] == "cat" && (len(args) == 1 || slices.Contains(args[1:], "-"))
}

func inProcess(interactive bool) func(interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
		return func(ctx context.Context, args []string) error {
			newCommand, ok := commands[args[0]]
			if !ok || interactive && (long[args[0]] || readsInput(args)) {
				return next(ctx, args)
			}
			return call(ctx, newCommand(), args)
		}
	}
}

func call(ctx context.Context, c core.Command, args []string) error {
	h := interp.HandlerCtx(ctx)
	c.SetIO(h.Stdin, h.Stdout, h.Stderr)
	c.SetWorkingDir(h.Dir)
	c.SetLookupEnv(func(name string) (string, bool) {
		v := h.Env.Get(name)
		return v.Str, v.IsSet()
	})
	err := c.RunContext(ctx, args[1:]...)
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	fmt.Fprintf(h.Stderr, "%s: %v\n", args[0], err)
	return interp.NewExitStatus(1)
}

var (
	number  = regexp.MustCompile(`^-[0-9]+$`)
	letters = regexp.MustCompile(`^-[a-zA-Z]*E[a-zA-Z]*$`)
)

// shortOptions makes head -3, tail -3 and grep -E what u-root's programs
// understand; its grep takes extended expressions anyway.
func shortOptions(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		if (args[0] == "head" || args[0] == "tail") && len(args) > 1 && number.MatchString(args[1]) {
			args = append([]string{args[0], "-n", args[1][1:]}, args[2:]...)
		}
		if args[0] == "grep" && len(args) > 1 && letters.MatchString(args[1]) {
			args = slices.Clone(args)
			if args[1] = strings.ReplaceAll(args[1], "E", ""); args[1] == "-" {
				args = slices.Delete(args, 1, 2)
			}
		}
		return next(ctx, args)
	}
}
