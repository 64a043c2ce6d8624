// Command vitrine runs virtual machines that can be looked into.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
)

func main() {
	growAtFirst()
	os.Exit(run(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// growAtFirst keeps Go's collector from the first moments of a process: nearly
// all that is allocated then stays. It would run at 4 MiB, 8 MiB …, and cost a
// machine that is restored a fifth of its time. Later memory counts, with many
// machines beside each other, and the collector is as the Go runtime has it.
func growAtFirst() {
	if os.Getenv("GOGC") != "" {
		return
	}
	usual := debug.SetGCPercent(400) // of the 4 MiB that the runtime begins with
	time.AfterFunc(settled, func() { debug.SetGCPercent(usual) })
}

// Exit statuses of vitrine itself (sysexits.h where it has one). A command
// that runs in a guest passes its own on; signals give 128 and their number.
const (
	statusFailure = 1  // the host: a file, KVM, memory
	statusUsage   = 64 // EX_USAGE: flags and arguments
	statusCrash   = 70 // EX_SOFTWARE: the guest panicked or a CPU gave up
	statusSignal  = 128
)

// run is the whole program but for os.Exit, so that tests can call it.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	given := args
	args, command := cutCommand(args)
	stdout, stderr := newOutlet(out, endsByAll), newOutlet(errOut, endsByPipe)
	app := newApp(in, stdout, stderr)
	app.Metadata = map[string]any{commandKey: command, argsKey: given}
	err := app.RunContext(ctx, args)
	if err == nil {
		err = stdout.failure() // of what does not look whether its lines are written
	}
	return status(err, stderr)
}

// status is the exit status for what a command ended with. It says why, if
// that has not been said.
func status(err error, errOut io.Writer) int {
	var status exitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(errOut, "vitrine: %v\n", err)
	var usage *usageError
	var stop *vmm.StopError
	var killed *killedError
	switch {
	case errors.As(err, &usage):
		return statusUsage
	case errors.As(err, &killed):
		return statusKilled
	case errors.As(err, &stop) && crashed(stop.Cause):
		return statusCrash
	}
	return statusFailure
}

func crashed(c vmm.Cause) bool {
	return c == vmm.CausePanic || c == vmm.CauseTripleFault || c == vmm.CauseFault
}

// commandKey is where app.Metadata has what follows "--": nil without one.
const commandKey = "command"

// cutCommand cuts off what follows the first "--", the command for a guest. The
// library for flags drops the "--" itself, and with it the difference between
// a command and an argument that was never meant to be one.
func cutCommand(args []string) (before, command []string) {
	if i := slices.Index(args, "--"); i >= 0 {
		return args[:i], append([]string{}, args[i+1:]...)
	}
	return args, nil
}

// guestCommand is what followed "--", nil if there was none.
func guestCommand(c *cli.Context) []string {
	command, _ := c.App.Metadata[commandKey].([]string)
	return command
}

// exitStatus is an error that is nothing but a status: what there was to say
// has been said.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// usageError is a mistake in flags or arguments.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() + ": " + e.hint }
func (e *usageError) Unwrap() error { return e.err }

func newApp(in io.Reader, out, errOut io.Writer) *cli.App {
	return &cli.App{
		Name:                   "vitrine",
		Usage:                  "run virtual machines, and look inside",
		Description:            "A hypervisor for Linux KVM. `vitrine run` boots a guest to a shell; `vitrine run -- CMD` runs a command in one.",
		Version:                version(),
		Reader:                 in,
		Writer:                 out,
		ErrWriter:              errOut,
		HideHelpCommand:        true,
		UseShortOptionHandling: true,
		EnableBashCompletion:   true,
		Suggest:                true,
		// File names have commas.
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*cli.Context, error) {}, // run reports
		OnUsageError:              onUsageError,
		Action:                    unknownCommand,
		Commands: []*cli.Command{
			runCommand(),
			psCommand(),
			snapshotCommand(),
			restoreCommand(),
			forkCommand(),
			cacheCommand(),
			execCommand(),
			cpCommand(),
			logsCommand(),
			attachCommand(),
			stopCommand(),
			killCommand(),
			pauseCommand(),
			resumeCommand(),
			waitCommand(),
			rmCommand(),
			inspectCommand(),
			traceCommand(),
			symbolsCommand(),
			recordCommand(),
			replayCommand(),
			statsCommand(),
			topCommand(),
			viewCommand(),
			balloonCommand(),
			upCommand(),
			downCommand(),
			configCommand(),
			completionCommand(),
			compareCommand(),
			labCommand(),
			doctorCommand(),
		},
	}
}

func onUsageError(c *cli.Context, err error, isSubcommand bool) error {
	hint := "see vitrine --help"
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != "vitrine" {
		hint = fmt.Sprintf("see vitrine %s --help", c.Command.Name)
	}
	return &usageError{err, hint}
}

// unknownCommand is what vitrine does without a command that it knows.
func unknownCommand(c *cli.Context) error {
	if c.Args().Present() {
		return &usageError{fmt.Errorf("no command %q", c.Args().First()), "see vitrine --help for the list"}
	}
	return cli.ShowAppHelp(c)
}
