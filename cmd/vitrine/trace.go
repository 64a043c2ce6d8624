package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
	"github.com/vitrine-vmm/vitrine/vmm/trace/export"
)

func init() { liveExtras = append(liveExtras, traceExtra) }

// viewFlags say how a trace is shown.
func viewFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "filter", Usage: "`EXPRESSION` of the events to show, such as 'mmio device=blk0 took>10us' (docs/trace.md)"},
		&cli.StringFlag{Name: "symbols", Usage: "`FILE` that names the guest kernel's functions: its vmlinux or System.map (default: what the kernel says of itself)"},
		&cli.BoolFlag{Name: "why", Usage: "explain each kind of event when it is first seen"},
		&cli.BoolFlag{Name: "summary", Usage: "count instead of listing: kinds, sources, times, phases"},
		&cli.BoolFlag{Name: "json", Usage: "write an object a line"},
		&cli.StringFlag{Name: "perfetto", Usage: "`FILE` to open in ui.perfetto.dev or chrome://tracing"},
		&cli.StringFlag{Name: "pcap", Usage: "`FILE` with the network's frames, for Wireshark or tcpdump"},
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` for the events, or for the summary"},
	}
}

func traceCommand() *cli.Command {
	return &cli.Command{
		Name: "trace", ArgsUsage: "[NAME | RUN-FLAGS [-- COMMAND [ARGUMENT…]]]", OnUsageError: onUsageError,
		Usage: "show what happens in a machine: exits, device registers, requests, interrupts",
		Description: "With NAME, of a machine that runs, until it ends or Ctrl-C. Otherwise of a machine\n" +
			"of its own, from the first instruction on; it takes the flags of run.\n" +
			"The events of a machine of its own go to standard error, unless --output says otherwise.",
		Flags: append(append(viewFlags(),
			&cli.BoolFlag{Name: "instructions", Usage: "show each instruction with the registers and flags it changes; implies --accel soft"},
			&cli.BoolFlag{Name: "registers", Usage: "with --instructions: all registers before and after each"},
		), runFlags()...),
		BashComplete: completeNames,
		Action: func(c *cli.Context) error {
			v, err := parseView(c)
			if err == nil {
				err = v.parseInstructions(c)
			}
			if err != nil {
				return err
			}
			if name, ok, err := machineArgument(c, "trace"); err != nil || ok {
				if err != nil {
					return err
				}
				return traceMachine(c, name, v)
			}
			return runWatched(c, following(vmm.TraceOptions{Snap: v.snap(), Instructions: v.instructionTrace()}, func(t *vmm.Tracing, sig *interrupts) (vmm.TraceSink, error) {
				v.name(&t.Meta)
				return v.open(&t.Meta, c.App.ErrWriter, sig)
			}))
		},
	}
}

// machineArgument is the name of a running machine, where the line has one.
func machineArgument(c *cli.Context, command string) (name string, ok bool, err error) {
	switch {
	case c.NArg() == 0:
		return "", false, nil
	case c.NArg() > 1:
		return "", false, usagef("flags go before the name; a guest's command after --", "vitrine %s: unexpected argument %s", command, quote(c.Args().Get(1)))
	case guestCommand(c) != nil:
		return "", false, usagef("vitrine exec "+c.Args().First()+" runs one in a machine", "vitrine %s NAME takes no command", command)
	}
	return c.Args().First(), true, nil
}

// runWatched runs a machine of the command's own.
func runWatched(c *cli.Context, w ...watcher) error {
	o, err := parseRunOptions(c)
	if err != nil {
		return err
	}
	return runOptionsWatched(c, o, w...)
}

// runOptionsWatched is runWatched with the flags read.
func runOptionsWatched(c *cli.Context, o *runOptions, w ...watcher) error {
	if o.onReboot == "restart" || o.detach {
		return usagef("use vitrine run, and then vitrine "+c.Command.Name+" NAME", "--detach and --on-reboot restart: the command ends with its machine")
	}
	r := newRunner(o, c.App.Reader, c.App.Writer, c.App.ErrWriter)
	r.watchers = w
	return r.run(c.Context)
}

// traceMachine shows the events of a running machine.
func traceMachine(c *cli.Context, name string, v *view) error {
	s, conn, sig, err := openTrace(c, name, v.query(c))
	if err != nil {
		return err
	}
	defer conn.Close()
	v.name(&s.Meta)
	sink, err := v.open(&s.Meta, c.App.Writer, sig)
	if err != nil {
		return err
	}
	return passOn(s, sink)
}

// openTrace asks a running machine for its events. Ctrl-C ends the stream.
func openTrace(c *cli.Context, name string, query url.Values) (*trace.StreamReader, net.Conn, *interrupts, error) {
	dir, err := openState(c)
	if err != nil {
		return nil, nil, nil, err
	}
	client, err := dir.Client(name)
	if err != nil {
		return nil, nil, nil, err
	}
	sig := catchSignals(c.Context)
	heed(sig, c.App.Writer, c.App.ErrWriter)
	conn, err := client.Stream(c.Context, "trace", query)
	if err != nil {
		sig.stop()
		return nil, nil, nil, err
	}
	context.AfterFunc(sig.first, func() {
		if w, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = w.CloseWrite() // asks for the end of the stream
		}
		time.AfterFunc(endOfStream, func() { _ = conn.Close() })
	})
	s, err := trace.NewStreamReader(conn)
	if err != nil {
		return nil, nil, nil, errors.Join(err, conn.Close())
	}
	return s, conn, sig, nil
}

// endOfStream is how long a machine may take to end a stream.
const endOfStream = 3 * time.Second

// passOn hands a stream's events to a sink, and its end, if it has one.
func passOn(s *trace.StreamReader, sink vmm.TraceSink) error {
	var batch []trace.Event
	for {
		e, err := s.Next()
		if err == nil {
			if batch = append(batch, e); s.Ready() {
				continue
			}
		}
		if e := sink.Events(batch); e != nil {
			return e
		}
		batch = batch[:0]
		switch {
		case err == io.EOF:
			return sink.End(s.End())
		case err != nil: // the machine's process ended before it could say so
			return sink.End(&trace.End{Reason: "its process ended before the stream did"})
		}
	}
}

// traceExtra serves a machine's events: /v1/stream/trace, with snap=BYTES of
// each request, events=N that a source keeps for a slow reader, record=1 for the
// devices' states, and instructions=changes or all for single instructions, those
// that may match filter=EXPRESSION.
func traceExtra(m *vmm.Machine) control.Extra {
	stream := func(ctx context.Context, r *http.Request, conn net.Conn) error {
		o := vmm.TraceOptions{Record: r.URL.Query().Get("record") == "1"}
		if n, err := strconv.Atoi(r.URL.Query().Get("snap")); err == nil {
			o.Snap = max(0, min(n, export.SnapFrames))
		}
		if n, err := strconv.Atoi(r.URL.Query().Get("events")); err == nil {
			o.Events = max(1, min(n, vmm.DefaultTraceEvents))
		}
		var err error
		if o.Instructions, err = askedInstructions(r.URL.Query()); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { // the client closes its side when it has seen enough
			_, _ = io.Copy(io.Discard, conn)
			cancel()
		}()
		t, err := m.StartTrace(o)
		if err != nil {
			return err
		}
		w, err := trace.NewWriter(conn, &t.Meta)
		if err != nil {
			t.Cancel()
			return err
		}
		return t.Follow(ctx, nil, w)
	}
	return control.Extra{Stream: map[string]func(context.Context, *http.Request, net.Conn) error{"trace": stream}}
}

// view is how a trace is shown.
type view struct {
	filter   *decode.Filter
	symbols  *symbols.Table
	chosen   bool // the symbols are those of --symbols, not the kernel's own
	why      bool
	counts   bool
	json     bool
	perfetto string
	pcap     string
	output   string

	instructions bool
	registers    bool // all of them
}

func parseView(c *cli.Context) (*view, error) {
	v := &view{why: c.Bool("why"), counts: c.Bool("summary"), json: c.Bool("json"),
		perfetto: c.String("perfetto"), pcap: c.String("pcap"), output: c.String("output")}
	var err error
	if text := c.String("filter"); text != "" {
		if v.filter, err = decode.ParseFilter(text); err != nil {
			return nil, usagef("docs/trace.md describes the language", "--filter: %w", err)
		}
	}
	if path := c.String("symbols"); path != "" {
		if v.symbols, err = symbols.Open(path); err != nil {
			return nil, fmt.Errorf("--symbols: %w", err)
		}
		v.chosen = true
	}
	if v.json && v.why {
		return nil, usagef("leave out --why", "--json and --why: explanations are for people")
	}
	return v, nil
}

// name takes the names of functions from the kernel that runs, where it has any
// and --symbols does not say otherwise.
func (v *view) name(meta *trace.Meta) {
	if !v.chosen && meta.Kernel != "" {
		v.symbols, _ = kernelSymbols(meta.Kernel)
	}
}

// snap is how many bytes of requests the view needs.
func (v *view) snap() int {
	if v.pcap != "" {
		return export.SnapFrames
	}
	return trace.DefaultSnap
}

// lists says whether events are listed: by themselves when nothing else is
// asked for.
func (v *view) lists() bool {
	return v.json || v.why || !v.counts && v.perfetto == "" && v.pcap == ""
}

// open opens the view's files. out is where it is shown without --output. With
// sig, files are given up that nobody reads.
func (v *view) open(meta *trace.Meta, out io.Writer, sig *interrupts) (*viewer, error) {
	w := &viewer{view: v, decoder: decode.New(meta, v.symbols), pieces: trace.NewAssembler(), out: out}
	if v.output != "" {
		f, err := createOutlet(v.output, 0o666, sig)
		if err != nil {
			return nil, fmt.Errorf("--output: %w", err)
		}
		w.out, w.closers = f, append(w.closers, f)
	}
	if v.counts {
		w.summary = export.NewSummary(meta)
	}
	if v.perfetto != "" {
		f, err := createOutlet(v.perfetto, 0o666, sig)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--perfetto: %w", err), w.close())
		}
		w.perfetto = export.NewPerfetto(f, meta)
		w.closers = append(w.closers, w.perfetto)
	}
	if v.pcap != "" {
		f, err := createOutlet(v.pcap, 0o666, sig)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("--pcap: %w", err), w.close())
		}
		if w.pcap, err = export.NewPCAP(f, meta); err != nil {
			return nil, errors.Join(err, f.Close(), w.close())
		}
		w.closers = append(w.closers, w.pcap)
	}
	return w, nil
}
