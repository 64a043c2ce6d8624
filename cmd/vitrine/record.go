package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

func recordCommand() *cli.Command {
	return &cli.Command{
		Name: "record", ArgsUsage: "--output FILE [NAME | RUN-FLAGS [-- COMMAND [ARGUMENT…]]]", OnUsageError: onUsageError,
		Usage: "write down everything that a machine's devices see, for vitrine replay",
		Description: "With NAME, of a machine that runs, until it ends or Ctrl-C. Otherwise of a machine\n" +
			"of its own, from the first instruction on; it takes the flags of run.\n" +
			"With --deterministic, replay can execute the machine again and go to any of its\n" +
			"instructions.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write"},
		}, runFlags()...),
		BashComplete: completeNames,
		Action: func(c *cli.Context) error {
			path := c.String("output")
			if path == "" {
				return usagef("vitrine record --output FILE", "where to? a recording needs a file")
			}
			if name, ok, err := machineArgument(c, "record"); err != nil || ok {
				if err != nil {
					return err
				}
				return recordMachine(c, name, path)
			}
			return recordNew(c, path)
		},
	}
}

// recordNew records a machine of the command's own.
func recordNew(c *cli.Context, path string) error {
	run, o, err := recordRun(c)
	if err != nil {
		return err
	}
	var m *memories
	if run != nil {
		run.keepInput(c)
		if m, err = run.remember(o); err != nil {
			return err
		}
		defer m.close()
	}
	return runOptionsWatched(c, o, following(vmm.TraceOptions{Record: true}, func(t *vmm.Tracing, sig *interrupts) (vmm.TraceSink, error) {
		r, err := newRecording(c, path, &t.Meta, sig)
		if err == nil {
			r.run, r.memories = run, m
		}
		return r, err
	}))
}

func recordMachine(c *cli.Context, name, path string) error {
	s, conn, sig, err := openTrace(c, name, url.Values{"record": {"1"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	r, err := newRecording(c, path, &s.Meta, sig)
	if err != nil {
		return err
	}
	return passOn(s, r)
}

// recording is a sink that writes a file.
type recording struct {
	w        *trace.Writer
	buf      *bufio.Writer
	path     string
	f        *outlet
	cli      *cli.Context
	count    uint64
	run      *recordedRun // of a deterministic machine, and what it wrote to
	memories *memories
}

func newRecording(c *cli.Context, path string, meta *trace.Meta, sig *interrupts) (*recording, error) {
	f, err := createOutlet(path, 0o600, sig) // it has what was typed
	if err != nil {
		return nil, fmt.Errorf("--output: %w", err)
	}
	r := &recording{path: path, f: f, buf: bufio.NewWriterSize(f, 1<<20), cli: c}
	if r.w, err = trace.NewWriter(r.buf, meta); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

// Events implements vmm.TraceSink.
func (r *recording) Events(events []trace.Event) error {
	r.count += uint64(len(events))
	return r.w.Events(events)
}

// End implements vmm.TraceSink.
func (r *recording) End(e *trace.End) error {
	if r.run != nil {
		if err := r.memories.finish(); err != nil {
			r.run.Cannot = err.Error()
		}
		b, err := json.Marshal(r.run)
		if err != nil {
			return err
		}
		e.Run = b
	}
	err := errors.Join(r.w.End(e), r.buf.Flush(), r.f.Close())
	if err == nil {
		fmt.Fprintf(r.cli.App.ErrWriter, "vitrine: %d events in %s", r.count, r.path)
		if e.Lost > 0 {
			fmt.Fprintf(r.cli.App.ErrWriter, ", and %d LOST: a replay of it goes wrong", e.Lost)
		}
		fmt.Fprintln(r.cli.App.ErrWriter)
	}
	return err
}
