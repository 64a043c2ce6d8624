// Package export turns a trace into files for other programs, and into a
// summary.
package export

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

// Perfetto writes a trace in the Trace Event Format that ui.perfetto.dev and
// chrome://tracing open ("Trace Event Format", Google, JSON Object Format). A
// vCPU is a thread with what the VMM did for it as slices; a device is a thread
// with its requests as asynchronous slices and its interrupts as instants.
type Perfetto struct {
	w     *bufio.Writer
	c     io.Closer
	first bool
	err   error
}

// pid is the number of the only process in the trace.
const pid = 1

// traceEvent is an event of the format; times are in microseconds.
type traceEvent struct {
	Name  string         `json:"name"`
	Cat   string         `json:"cat,omitempty"`
	Phase string         `json:"ph"`
	TS    float64        `json:"ts"`
	Dur   *float64       `json:"dur,omitempty"`
	PID   int            `json:"pid"`
	TID   int            `json:"tid"`
	ID    string         `json:"id,omitempty"`
	Scope string         `json:"s,omitempty"`
	Args  map[string]any `json:"args,omitempty"`
}

// NewPerfetto begins a file; Close ends it and closes w.
func NewPerfetto(w io.WriteCloser, meta *trace.Meta) *Perfetto {
	p := &Perfetto{w: bufio.NewWriterSize(w, 64<<10), c: w, first: true}
	_, p.err = p.w.WriteString(`{"displayTimeUnit":"ns","otherData":{"accelerator":"` + meta.Accel + `"},"traceEvents":[`)
	name := meta.Machine
	if name == "" {
		name = "machine"
	}
	p.put(&traceEvent{Name: "process_name", Phase: "M", PID: pid, Args: map[string]any{"name": name}})
	for i, s := range meta.Sources {
		p.put(&traceEvent{Name: "thread_name", Phase: "M", PID: pid, TID: i + 1, Args: map[string]any{"name": s}})
		p.put(&traceEvent{Name: "thread_sort_index", Phase: "M", PID: pid, TID: i + 1, Args: map[string]any{"sort_index": i}})
	}
	return p
}

func (p *Perfetto) put(e *traceEvent) {
	if p.err != nil {
		return
	}
	b, err := json.Marshal(e)
	if err != nil {
		p.err = err
		return
	}
	if !p.first {
		_ = p.w.WriteByte(',')
	}
	p.first = false
	_ = p.w.WriteByte('\n')
	_, p.err = p.w.Write(b)
}

func micros(d time.Duration) float64 { return float64(d) / 1e3 }

// Add writes an event.
func (p *Perfetto) Add(it *trace.Item, l *decode.Line) error {
	e := traceEvent{Name: l.Text, Cat: l.Kind, TS: micros(l.Time), PID: pid, TID: int(it.Source) + 1, Args: args(l)}
	switch it.Kind {
	case trace.KindPop, trace.KindPush:
		e.Phase, e.Name = "b", l.Device+" "+l.Queue
		e.ID = fmt.Sprintf("%d.%d.%d", it.Source, it.Addr, it.Value)
		if it.Kind == trace.KindPush {
			e.Phase = "e"
		}
		e.Cat = "request"
	case trace.KindIO, trace.KindMMIO, trace.KindComplete, trace.KindExit:
		e.Phase = "X"
		d := micros(l.Took)
		e.Dur, e.Name = &d, sliceName(l)
	default:
		e.Phase, e.Scope = "i", "t"
	}
	p.put(&e)
	return p.err
}

// sliceName groups accesses to a register under one name.
func sliceName(l *decode.Line) string {
	switch {
	case l.Device != "":
		return l.Device + " " + l.What
	case l.What != "":
		return l.Kind + " " + l.What
	}
	return fmt.Sprintf("%s %#x", l.Kind, l.Addr)
}

func args(l *decode.Line) map[string]any {
	a := map[string]any{"text": l.Text}
	if l.RIP != 0 {
		a["rip"] = fmt.Sprintf("%#x", l.RIP)
	}
	if l.Symbol != "" {
		a["symbol"] = l.Symbol
	}
	if l.What != "" {
		a["what"] = l.What
	}
	return a
}

// End notes the machine's phases and how many events were lost.
func (p *Perfetto) End(e *trace.End) {
	for _, ph := range e.Phases {
		p.put(&traceEvent{Name: ph.Name, Cat: "phase", Phase: "i", Scope: "g", TS: micros(ph.At), PID: pid})
	}
	if e.Lost > 0 {
		p.put(&traceEvent{Name: fmt.Sprintf("%d events lost", e.Lost), Cat: "lost", Phase: "i", Scope: "g", TS: micros(e.At), PID: pid})
	}
}

// Close ends the file.
func (p *Perfetto) Close() error {
	if p.err == nil {
		_, p.err = p.w.WriteString("\n]}\n")
	}
	if err := p.w.Flush(); p.err == nil {
		p.err = err
	}
	if err := p.c.Close(); p.err == nil {
		p.err = err
	}
	return p.err
}
