package main

import (
	"context"
	"errors"
	"fmt"

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

func inProcess(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		h := interp.HandlerCtx(ctx)
		newCommand, ok := commands[args[0]]
		if !ok {
			return next(ctx, args)
		}
		c := newCommand()
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
}
