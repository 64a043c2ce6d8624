package export

import (
	"cmp"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

// Summary counts a trace.
type Summary struct {
	meta    *trace.Meta
	kinds   map[string]*tally
	sources map[string]*tally
	rips    map[string]*tally
	took    [40]uint64 // by the number of bits of nanoseconds
	vmm     map[int]time.Duration
	lat     map[string]*latency
	total   uint64
	last    time.Duration
	profile profile
}

type tally struct {
	name string
	n    uint64
	took time.Duration
}

type latency struct {
	name     string
	n        uint64
	sum, max time.Duration
}

// NewSummary returns an empty one.
func NewSummary(meta *trace.Meta) *Summary {
	return &Summary{meta: meta, kinds: make(map[string]*tally), sources: make(map[string]*tally), rips: make(map[string]*tally),
		vmm: make(map[int]time.Duration), lat: make(map[string]*latency)}
}

// maxNames bounds how many names are counted apart: a guest may invent
// addresses for ever.
const maxNames = 1 << 16

func count(m map[string]*tally, name string, took time.Duration) {
	t := m[name]
	if t == nil {
		if len(m) >= maxNames {
			name = "others"
		}
		if t = m[name]; t == nil {
			t = &tally{name: name}
			m[name] = t
		}
	}
	t.n++
	t.took += took
}

// Executed counts an instruction that was executed at a time.
func (s *Summary) Executed(at time.Duration, e decode.Executed) {
	s.total++
	s.last = at
	s.profile.add(&e)
}

// Add counts an event.
func (s *Summary) Add(l *decode.Line) {
	if l.Instruction != nil {
		s.Executed(l.Time, l.Executed())
		return
	}
	s.total++
	s.last = l.Time
	count(s.kinds, l.Kind, l.Took)
	name := strings.TrimSpace(l.Device + " " + l.Queue)
	switch {
	case l.Kind == "io" || l.Kind == "mmio":
		verb := "read"
		if l.Write {
			verb = "write"
		}
		name = strings.TrimSpace(fmt.Sprintf("%s %s %s", verb, l.Device, l.What))
		if l.Device == "" {
			name = fmt.Sprintf("%s %s %#x (nothing there)", l.Kind, verb, l.Addr)
		}
	case l.Kind == "pop" || l.Kind == "push" || l.Kind == "irq" || l.Kind == "doorbell":
		name = strings.TrimSpace(name + " " + l.Kind)
		if l.Device == "" {
			name += " " + l.What
		}
	default:
		name = strings.TrimSpace(l.Kind + " " + l.What)
	}
	count(s.sources, name, l.Took)
	if l.Symbol != "" {
		function, _, _ := strings.Cut(l.Symbol, "+")
		count(s.rips, function, l.Took)
	}
	if l.CPU >= 0 {
		s.vmm[l.CPU] += l.Took
	}
	if l.Took > 0 {
		s.took[min(bits.Len64(uint64(l.Took)), len(s.took)-1)]++
	}
	if l.Latency > 0 {
		s.latency(l)
	}
}

func (s *Summary) latency(l *decode.Line) {
	key := l.Device + " " + l.Queue
	t := s.lat[key]
	if t == nil {
		t = &latency{name: key}
		s.lat[key] = t
	}
	t.n++
	t.sum += l.Latency
	t.max = max(t.max, l.Latency)
}

const topSources = 15

// Write prints the summary; e is the trace's end and may be nil.
func (s *Summary) Write(w io.Writer, e *trace.End) {
	span := s.last
	if e != nil {
		span = max(span, e.At)
	}
	fmt.Fprintf(w, "%d events in %s", s.total, span.Round(time.Microsecond))
	if e != nil && e.Lost > 0 {
		fmt.Fprintf(w, ", and %d more LOST (the reader was too slow)", e.Lost)
	}
	fmt.Fprintln(w)
	if e != nil && e.Reason != "" {
		reason, _, _ := strings.Cut(e.Reason, "\n")
		fmt.Fprintf(w, "the machine ended: %s\n", reason)
	}
	s.profile.write(w)
	if s.profile.total > 0 {
		s.kinds["instruction"] = &tally{name: "instruction", n: s.profile.total}
	}
	table(w, "events by kind", s.kinds, 100)
	table(w, "top sources", s.sources, topSources)
	table(w, "top functions of the guest", s.rips, topSources)
	s.histogram(w)
	s.latencies(w)
	s.shares(w, e, span)
	phases(w, e)
}

func table(w io.Writer, title string, m map[string]*tally, most int) {
	if len(m) == 0 {
		return
	}
	list := make([]*tally, 0, len(m))
	for _, t := range m {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *tally) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name)) })
	fmt.Fprintf(w, "\n%-48s %10s %12s %10s\n", title, "events", "in the VMM", "each")
	for i, t := range list {
		if i == most {
			fmt.Fprintf(w, "  … and %d more\n", len(list)-i)
			break
		}
		each := t.took / time.Duration(t.n)
		fmt.Fprintf(w, "  %-46s %10d %12s %10s\n", t.name, t.n, t.took.Round(time.Microsecond), each)
	}
}

func (s *Summary) histogram(w io.Writer) {
	var most uint64
	for _, n := range s.took {
		most = max(most, n)
	}
	if most == 0 {
		return
	}
	fmt.Fprintf(w, "\ntime in the VMM for an event\n")
	for i, n := range s.took {
		if n > 0 {
			bar := strings.Repeat("#", int((n*50+most-1)/most))
			fmt.Fprintf(w, "  < %-8s %10d %s\n", time.Duration(1)<<i, n, bar)
		}
	}
}

func (s *Summary) latencies(w io.Writer) {
	if len(s.lat) == 0 {
		return
	}
	list := make([]*latency, 0, len(s.lat))
	for _, t := range s.lat {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *latency) int { return cmp.Compare(a.name, b.name) })
	fmt.Fprintf(w, "\n%-48s %10s %12s %10s\n", "requests, from taken to done", "requests", "average", "longest")
	for _, t := range list {
		fmt.Fprintf(w, "  %-46s %10d %12s %10s\n", t.name, t.n, (t.sum / time.Duration(t.n)).Round(100), t.max.Round(100))
	}
}

// shares says where each vCPU's time went. The host's kernel accounts in
// ticks, so short runs come out rough.
func (s *Summary) shares(w io.Writer, e *trace.End, span time.Duration) {
	if span == 0 || len(s.vmm) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%-10s %12s %12s %12s %12s\n", "time of", "guest", "VMM", "KVM", "idle")
	for cpu := range s.meta.CPUs {
		vmm := s.vmm[cpu]
		var u trace.Usage
		if e != nil {
			for _, x := range e.Usage {
				if x.CPU == cpu {
					u = x
				}
			}
		}
		guest := max(0, u.User-vmm)
		kvm := u.Kernel
		idle := max(0, span-guest-vmm-kvm)
		if s.meta.Accel == "soft" {
			kvm = 0
		}
		fmt.Fprintf(w, "  vcpu%-4d", cpu)
		for _, d := range []time.Duration{guest, vmm, kvm, idle} {
			fmt.Fprintf(w, " %11.1f%%", 100*float64(d)/float64(span))
		}
		fmt.Fprintln(w)
	}
}

func phases(w io.Writer, e *trace.End) {
	if e == nil || len(e.Phases) == 0 {
		return
	}
	list := slices.Clone(e.Phases)
	slices.SortStableFunc(list, func(a, b trace.Phase) int { return cmp.Compare(a.At, b.At) })
	fmt.Fprintf(w, "\n%-20s %14s %14s\n", "phase", "reached at", "step")
	for i, p := range list {
		step := time.Duration(0)
		if i > 0 {
			step = p.At - list[i-1].At
		}
		fmt.Fprintf(w, "  %-18s %14s %14s\n", p.Name, p.At.Round(time.Microsecond), step.Round(time.Microsecond))
	}
}
