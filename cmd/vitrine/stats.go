package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func statsCommand() *cli.Command {
	return machineCommand("stats", "[NAME…]", "show what machines use: processor, memory, disks, network",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			w := &watch{dir: dir, names: names, out: c.App.Writer}
			switch {
			case c.Bool("json"):
				return w.printJSON(c.Context, c.Bool("watch"))
			case c.Bool("watch"):
				return w.run(c.Context, func(rows []statsRow) error { return printStats(w.out, rows) })
			}
			return w.once(c.Context)
		},
		&cli.BoolFlag{Name: "json", Usage: "print every counter, as one JSON object a line"},
		&cli.BoolFlag{Name: "watch", Usage: "go on, once a second"})
}

func topCommand() *cli.Command {
	return machineCommand("top", "[NAME…]", "show what machines use, live; Ctrl-C ends it",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			w := &watch{dir: dir, names: names, out: c.App.Writer}
			if !isTerminal(c.App.Writer) {
				return w.once(c.Context)
			}
			const home, clearLine, clearRest = "\x1b[H", "\x1b[K", "\x1b[J"
			fmt.Fprint(w.out, "\x1b[2J")
			return w.run(c.Context, func(rows []statsRow) error {
				var b strings.Builder
				fmt.Fprintf(&b, "vitrine top · %s · %d machines\n\n", time.Now().Format(time.TimeOnly), len(rows))
				if err := printStats(&b, rows); err != nil {
					return err
				}
				text := strings.ReplaceAll(b.String(), "\n", clearLine+"\n")
				_, err := io.WriteString(w.out, home+text+clearRest)
				return err
			})
		})
}

// watch asks machines for their counters.
type watch struct {
	dir   *control.Dir
	names []string // empty: all that run
	out   io.Writer
}

// statsRow is one machine's counters, and those of the time before.
type statsRow struct {
	name         string
	now, before  control.Stats
	sinceTheLast bool // before is there
	err          error
}

// sampleTime is the span over which a single look measures rates.
const sampleTime = 300 * time.Millisecond

// statsTime is how long a machine may take to answer: one that hangs holds the
// others up no longer.
const statsTime = time.Second

// ask asks all machines at the same time.
func (w *watch) ask(ctx context.Context) ([]statsRow, error) {
	names := w.names
	if len(names) == 0 {
		list, err := w.dir.List()
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if r.Alive() {
				names = append(names, r.Name)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, statsTime)
	defer cancel()
	rows := make([]statsRow, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			rows[i].name = name
			client, err := w.dir.Client(name)
			if err == nil {
				rows[i].now, err = client.Stats(ctx)
			}
			rows[i].err = err
		})
	}
	wg.Wait()
	return rows, nil
}

// named is the error of machines that the user asked for by name.
func (w *watch) named(rows []statsRow) error {
	var errs []error
	if len(w.names) > 0 {
		for _, r := range rows {
			errs = append(errs, r.err)
		}
	}
	return errors.Join(errs...)
}

func (w *watch) once(ctx context.Context) error {
	before, err := w.ask(ctx)
	if err = errors.Join(err, w.named(before)); err != nil {
		return err
	}
	if len(before) > 0 && !pause(ctx, sampleTime) {
		return nil
	}
	rows, err := w.ask(ctx)
	if err != nil {
		return err
	}
	return printStats(w.out, compared(rows, before))
}

// run shows rows once a second until ctx is done.
func (w *watch) run(ctx context.Context, show func([]statsRow) error) error {
	var before []statsRow
	for {
		rows, err := w.ask(ctx)
		if err = errors.Join(err, w.named(rows)); err != nil {
			return err
		}
		if err := show(compared(rows, before)); err != nil {
			return err
		}
		before = rows
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

func (w *watch) printJSON(ctx context.Context, goOn bool) error {
	enc := json.NewEncoder(w.out)
	for {
		rows, err := w.ask(ctx)
		if err = errors.Join(err, w.named(rows)); err != nil {
			return err
		}
		for _, r := range rows {
			if r.err != nil {
				continue // it has ended since it was listed, or hangs
			}
			line := struct {
				Name string `json:"name"`
				control.Stats
			}{r.name, r.now}
			if err := enc.Encode(line); err != nil {
				return err
			}
		}
		if !goOn || !pause(ctx, time.Second) {
			return nil
		}
	}
}

// pause waits for d; false if ctx was done before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func compared(rows, before []statsRow) []statsRow {
	old := make(map[string]statsRow, len(before))
	for _, r := range before {
		old[r.name] = r
	}
	for i := range rows {
		b, ok := old[rows[i].name]
		// Counters that have shrunk are those of a new machine of this name.
		if ok && b.err == nil && rows[i].err == nil && rows[i].now.CPUTime >= b.now.CPUTime {
			rows[i].before, rows[i].sinceTheLast = b.now, true
		}
	}
	return rows
}

func printStats(w io.Writer, rows []statsRow) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tCPU\tMEMORY\tGUEST\tOWN\tSHARED\tEXITS/s\tDISK READ\tWRITTEN\tNET IN\tOUT")
	for _, r := range rows {
		if r.err != nil {
			fmt.Fprintf(t, "%s\t%s\n", r.name, "no answer")
			continue
		}
		m := r.now.Memory
		var read, written, in, out uint64
		for _, d := range r.now.Disks {
			read, written = read+d.ReadBytes, written+d.WrittenBytes
		}
		for _, n := range r.now.Networks {
			in, out = in+n.RxBytes, out+n.TxBytes
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.name, r.cpu(), formatSize(m.PSS), formatSize(m.GuestPSS),
			formatSize(m.Own), formatSize(m.Shared), r.exits(), formatSize(read), formatSize(written), formatSize(in), formatSize(out))
	}
	return t.Flush()
}

// cpu is the share of one host CPU that the process took since the last look.
func (r *statsRow) cpu() string {
	span := r.now.Time.Sub(r.before.Time)
	if !r.sinceTheLast || span <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(r.now.CPUTime-r.before.CPUTime)/float64(span))
}

func (r *statsRow) exits() string {
	span := r.now.Time.Sub(r.before.Time)
	now, before := countExits(&r.now), countExits(&r.before)
	if !r.sinceTheLast || span <= 0 || now < before {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(now-before)/span.Seconds())
}

func countExits(s *control.Stats) (n uint64) {
	for _, c := range s.VCPUs {
		for _, k := range c.Exits {
			n += k
		}
	}
	return n
}
