package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// A machine with --detach is run by a second process: the same command line
// again, in a session of its own. Its standard error is a pipe to the first
// process, which passes on what comes until the second one says that the
// machine is up: a NUL and the machine's name.

// detachedEnv tells the second process what it is.
const detachedEnv = "VITRINE_DETACHED"

// argsKey is where app.Metadata has the command line as it was given.
const argsKey = "args"

// isDetached says whether this is the second process.
func isDetached() bool { return os.Getenv(detachedEnv) != "" }

// detachAgain runs the command line of this process again, in the background.
func detachAgain(c *cli.Context) error {
	args, _ := c.App.Metadata[argsKey].([]string)
	name, err := detach(c.Context, args[1:], c.App.ErrWriter)
	if err == nil {
		fmt.Fprintln(c.App.Writer, name)
	}
	return err
}

// detach runs vitrine with args, which have --detach, in the background, and
// returns the machine's name when it is up.
func detach(ctx context.Context, args []string, errOut io.Writer) (name string, err error) {
	said, status, err := background(ctx, args)
	if err != nil {
		return "", fmt.Errorf("start a process for the machine: %w", err)
	}
	text, rest, up := bytes.Cut(said, []byte{0})
	_, _ = errOut.Write(text)
	if !up {
		if status == 0 {
			status = statusFailure
		}
		return "", exitStatus(status)
	}
	return strings.TrimSpace(string(rest)), nil
}

// newDetachedRunner is the runner of the second process: the console is for
// those who attach, and for the log.
func newDetachedRunner(o *runOptions, errOut io.Writer) *runner {
	parent := &parentWriter{w: errOut}
	r := &runner{opt: o, errOut: &messages{w: parent}, hub: control.NewHub()}
	r.out = r.hub
	r.in = newInput(r.hub.Input())
	if o.command != nil && !o.interactive && !o.tty {
		r.in = newInput(strings.NewReader(""))
	}
	r.announce = sync.OnceFunc(func() {
		parent.gone.Store(true)
		leaveParent(r.live, errOut)
	})
	return r
}

// parentWriter is standard error as long as the first process reads it. Later
// the machine's log has what there is to say.
type parentWriter struct {
	w    io.Writer
	gone atomic.Bool
}

func (p *parentWriter) Write(b []byte) (int, error) {
	if p.gone.Load() {
		return len(b), nil
	}
	return p.w.Write(b)
}

// leaveParent says that the machine is up, and lets go of the first process.
// What the Go runtime has to say from now on, should it ever die, goes into the
// machine's folder.
func leaveParent(v *live, errOut io.Writer) {
	fmt.Fprintf(errOut, "\x00%s\n", v.Record().Name)
	if err := redirectErrors(v.claim.Path(control.CrashFile)); err != nil {
		v.log.Warn("leave the terminal", "error", err)
	}
}

// tellWhenUp announces the machine as soon as its CPUs run.
func (r *runner) tellWhenUp(ctx context.Context, m *vmm.Machine) {
	for {
		if _, up := m.Timings().At(vmm.PhaseFirstRun); up {
			r.announce()
			return
		}
		if !pause(ctx, time.Millisecond) {
			return
		}
	}
}
