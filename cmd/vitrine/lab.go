package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/cmd/internal/lab"
	"github.com/vitrine-vmm/vitrine/vmm/compare"
)

func labCommand() *cli.Command {
	lang := &cli.StringFlag{Name: "lang", Value: "en", Usage: "en or ko"}
	accel := &cli.StringFlag{Name: "accel", Value: "auto", Usage: "what executes the guest: auto, kvm or soft"}
	limit := &cli.DurationFlag{Name: "limit", Value: 5 * time.Second, Usage: "how long a program may take to halt"}
	sub := func(name, usage, args string, flags []cli.Flag, f func(*cli.Context, lab.Lab) error) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, ArgsUsage: args, Flags: flags, OnUsageError: onUsageError,
			Action: func(c *cli.Context) error {
				l, err := lab.Find(c.Args().First())
				if err != nil {
					return &usageError{err, "vitrine lab ls lists them; flags stand before the number"}
				}
				return f(c, l)
			}}
	}
	return &cli.Command{
		Name:         "lab",
		Usage:        "a course from an empty VM on, with exercises that are checked",
		OnUsageError: onUsageError,
		Action:       unknownCommand,
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "list the labs", Action: listLabs},
			sub("show", "print a lab's page, a hint, or the exercise to begin with", "N", []cli.Flag{lang,
				&cli.IntFlag{Name: "hint", Usage: "print hint `K` instead"},
				&cli.BoolFlag{Name: "exercise", Usage: "print the exercise's source instead"},
				&cli.StringFlag{Name: "file", Usage: "print the lab's file `NAME` instead, such as demo.s or picture.svg"}}, showLab),
			sub("run", "run the demonstration, or your program", "N [FILE]", []cli.Flag{accel, limit,
				&cli.StringFlag{Name: "on-crash", Usage: "`WHAT` to do when the CPU gives up: core[=FILE] writes one"}}, runLab),
			sub("check", "check your program, or the exercise as it is given", "N [FILE]", []cli.Flag{accel, limit}, checkLab),
			sub("solution", "print the solution", "N", nil, func(c *cli.Context, l lab.Lab) error {
				return printLabFile(c, l, "solution"+l.Source())
			}),
		},
	}
}

func listLabs(c *cli.Context) error {
	for _, l := range lab.All() {
		fmt.Fprintf(c.App.Writer, "%2d  %s\n", l.Number, l.Title)
	}
	return nil
}

func printLabFile(c *cli.Context, l lab.Lab, name string) error {
	b, err := l.File(name)
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(b)
	return err
}

func showLab(c *cli.Context, l lab.Lab) error {
	lang := c.String("lang")
	if lang != "en" && lang != "ko" {
		return &usageError{fmt.Errorf("no language %q", lang), "want en or ko"}
	}
	if c.IsSet("hint") {
		hints, err := l.Hints(lang)
		if err != nil {
			return err
		}
		k := c.Int("hint")
		if k < 1 || k > len(hints) {
			return &usageError{fmt.Errorf("no hint %d", k), fmt.Sprintf("lab %d has hints 1 to %d", l.Number, len(hints))}
		}
		fmt.Fprintf(c.App.Writer, "%d/%d  %s\n", k, len(hints), hints[k-1])
		return nil
	}
	if c.Bool("exercise") {
		return printLabFile(c, l, "exercise"+l.Source())
	}
	if name := c.String("file"); name != "" {
		names, err := l.Files()
		if err != nil {
			return err
		}
		if !slices.Contains(names, name) {
			return &usageError{fmt.Errorf("no file %q", name), fmt.Sprintf("lab %d has %s", l.Number, strings.Join(names, " "))}
		}
		return printLabFile(c, l, name)
	}
	if lang == "ko" {
		return printLabFile(c, l, "README.ko.md")
	}
	return printLabFile(c, l, "README.md")
}

// labProgram is the program of the file that was named, or of the lab itself.
func labProgram(c *cli.Context, l lab.Lab, own string) ([]byte, lab.Options, error) {
	var debug debugOptions
	if err := debug.parseDebug(c); err != nil {
		return nil, lab.Options{}, err
	}
	o := lab.Options{Accel: c.String("accel"), Limit: c.Duration("limit"), Core: debug.core,
		Compare: func(ctx context.Context) (*compare.Result, error) { return labComparison(ctx, c) }}
	if o.Limit <= 0 {
		return nil, o, &usageError{errors.New("--limit must be positive"), "the default is 5s"}
	}
	if dir, err := cacheDir(); err == nil {
		o.CacheDir = dir
	}
	if c.NArg() > 2 {
		return nil, o, &usageError{fmt.Errorf("unexpected argument %q", c.Args().Get(2)), "flags stand before the number"}
	}
	if file := c.Args().Get(1); file != "" {
		if ext := filepath.Ext(file); (ext == ".s" || ext == ".go") && ext != l.Source() {
			return nil, o, &usageError{fmt.Errorf("%s: lab %d takes a %s file", file, l.Number, l.Source()),
				fmt.Sprintf("begin with: vitrine lab show --exercise %d", l.Number)}
		}
		p, err := lab.Program(c.Context, file)
		return p, o, err
	}
	p, err := l.File(own)
	return p, o, err
}

func runLab(c *cli.Context, l lab.Lab) error {
	program, o, err := labProgram(c, l, "demo"+l.Made())
	if err != nil {
		return err
	}
	if run := l.Runner(); run != nil {
		return run(c.Context, program, o, c.App.Writer)
	}
	r, err := lab.Run(c.Context, program, l.Demo, o)
	if err != nil {
		return err
	}
	defer r.Close()
	fmt.Fprint(c.App.Writer, r.Output)
	if !r.Halted {
		fmt.Fprintln(c.App.ErrWriter, r.Why)
		return exitStatus(statusCrash)
	}
	fmt.Fprintf(c.App.ErrWriter, "halted at rip %#x after %d exits to devices: rax %#x rbx %#x rcx %#x rdx %#x\n",
		r.Regs.RIP, r.Exits(), r.Regs.RAX, r.Regs.RBX, r.Regs.RCX, r.Regs.RDX)
	return nil
}

func checkLab(c *cli.Context, l lab.Lab) error {
	program, o, err := labProgram(c, l, "exercise"+l.Made())
	if err != nil {
		return err
	}
	broken, err := l.Check(c.Context, program, o)
	if err != nil {
		return err
	}
	if len(broken) == 0 {
		fmt.Fprintf(c.App.Writer, "lab %d is solved\n", l.Number)
		return nil
	}
	for _, b := range broken {
		fmt.Fprintf(c.App.Writer, "not yet: %s\n", b)
	}
	if c.NArg() < 2 {
		fmt.Fprintf(c.App.Writer, "This was the exercise as it is given. Yours: vitrine lab show --exercise %[1]d > my%[2]s; edit it; vitrine lab check %[1]d my%[2]s\n", l.Number, l.Source())
	}
	fmt.Fprintf(c.App.Writer, "A hint: vitrine lab show --hint 1 %d\n", l.Number)
	return exitStatus(statusFailure)
}
