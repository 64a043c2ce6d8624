package view

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/symbols"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

// Bounds of what is put into words, which costs a microsecond or two an event:
// of a busy machine only a sample is.
const (
	tickLines   = 48    // lines that a page gets at a time
	tickDecoded = 1000  // events that are looked at for a filter at a time
	tickCopied  = 32768 // events that the sample of a time is taken from
	pageScanned = 20000 // events that are looked at for a page of the past
	warmUp      = 512   // events before, so that the decoder knows what selectors say
	maxLines    = 500   // of a page of the past
)

// line is an event in words, for the page.
type line struct {
	N       uint64        `json:"n"` // its number
	Time    time.Duration `json:"t"`
	Source  string        `json:"s"`
	CPU     int           `json:"c"`
	Kind    string        `json:"k"`
	Device  string        `json:"d,omitempty"`
	Text    string        `json:"x"`
	RIP     string        `json:"r,omitempty"`
	Symbol  string        `json:"y,omitempty"`
	Took    time.Duration `json:"o,omitempty"`
	Latency time.Duration `json:"l,omitempty"`
	Why     int           `json:"w"` // an index into the sentences; -1: none
}

// lines are events in words and the sentences that explain them.
type lines struct {
	Lines []line   `json:"lines"`
	Whys  []string `json:"whys"`
}

// noLines is none, as JSON has it: [] and not null.
func noLines() lines { return lines{Lines: []line{}, Whys: []string{}} }

func (l *lines) add(n uint64, d *decode.Line) {
	out := line{N: n, Time: d.Time, Source: d.Source, CPU: d.CPU, Kind: d.Kind, Device: d.Device, Text: d.Text,
		Symbol: d.Symbol, Took: d.Took, Latency: d.Latency, Why: l.why(d.Why())}
	if d.RIP != 0 {
		out.RIP = fmt.Sprintf("%#x", d.RIP)
	}
	l.Lines = append(l.Lines, out)
}

func (l *lines) why(s string) int {
	if s == "" {
		return -1
	}
	for i, w := range l.Whys {
		if w == s {
			return i
		}
	}
	l.Whys = append(l.Whys, s)
	return len(l.Whys) - 1
}

// follower puts the events into words that a page has not seen, a sample of
// them where they are many.
type follower struct {
	store   *store
	decoder *decode.Decoder
	pieces  *trace.Assembler
	filter  *decode.Filter
	next    uint64 // the first event that it has not looked at
	copied  []trace.Event
	sample  []int
	decoded uint64 // events put into words so far: the cost of this page
}

func newFollower(s *store, table *symbols.Table, filter *decode.Filter) *follower {
	_, next, _, _ := s.held()
	return &follower{store: s, decoder: decode.New(&s.meta, table), pieces: trace.NewAssembler(), filter: filter,
		next: next - min(next, tickLines)}
}

// tick is what a page gets each time. Shown counts against seen: the rest was
// left out.
type tick struct {
	lines
	Seen   uint64 `json:"seen"`   // events since the last time
	Looked uint64 `json:"looked"` // that the filter was asked about
}

func (f *follower) tick() tick {
	_, next, _, _ := f.store.held()
	first := max(f.next, next-min(next, tickCopied))
	t := tick{lines: noLines()}
	f.copied, first = f.store.copyOf(f.copied[:0], first, next)
	skipped := first - f.next
	f.next = next
	budget := tickLines
	if f.filter != nil {
		budget = tickDecoded
	}
	var left int
	f.sample, left = trace.Sample(f.sample[:0], f.copied, budget)
	for _, i := range f.sample {
		it, ok := f.pieces.Add(f.copied[i])
		if !ok {
			continue
		}
		f.decoded++
		t.Looked++
		if l := f.decoder.Line(&it); f.filter.Match(&l) {
			t.add(first+uint64(i), &l)
		}
	}
	if n := len(t.Lines); n > tickLines {
		t.Lines = t.Lines[n-tickLines:]
	}
	t.Seen = t.Looked + uint64(left) + skipped
	return t
}

// past is a page of the past.
type past struct {
	lines
	First uint64 `json:"first"` // the oldest event that is kept
	Next  uint64 `json:"next"`  // the next to come
	From  uint64 `json:"from"`  // the events that were looked at
	To    uint64 `json:"to"`
}

// pastQuery asks for lines of the past: from an event on, or before one.
type pastQuery struct {
	from, before uint64
	time         time.Duration
	byTime, back bool
	count        int
	filter       *decode.Filter
}

func parsePast(v url.Values) (q pastQuery, err error) {
	number := func(name string) (n uint64, given bool) {
		s := v.Get(name)
		if s == "" {
			return 0, false
		}
		n, e := strconv.ParseUint(s, 10, 63)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s: want a number", name))
		}
		return n, true
	}
	q.from, _ = number("from")
	q.before, q.back = number("before")
	t, byTime := number("time")
	q.time, q.byTime = time.Duration(t), byTime
	n, given := number("count")
	if q.count = int(min(n, maxLines)); !given {
		q.count = 100
	}
	if text := v.Get("filter"); text != "" && err == nil {
		if q.filter, err = decode.ParseFilter(text); err != nil {
			err = fmt.Errorf("filter: %w", err)
		}
	}
	return q, err
}

// look puts a page of the past into words.
func (s *store) look(q pastQuery, table *symbols.Table) past {
	first, next, _, _ := s.held()
	p := past{lines: noLines(), First: first, Next: next}
	from, to := q.from, next
	switch {
	case q.byTime:
		from = s.find(q.time)
	case q.back:
		to = min(max(q.before, first), next)
		span := uint64(pageScanned)
		if q.filter == nil {
			span = uint64(4*q.count) + 64 // events have pieces
		}
		from = to - min(to, span)
	}
	from = min(max(from, first), next)
	to = min(to, from+pageScanned)
	var events []trace.Event
	events, begin := s.copyOf(nil, from-min(from, warmUp), to)
	p.From, p.To = from, to
	d, pieces := decode.New(&s.meta, table), trace.NewAssembler()
	for i := range events {
		it, ok := pieces.Add(events[i])
		if !ok {
			continue
		}
		l, n := d.Line(&it), begin+uint64(i)
		if n < from || !q.filter.Match(&l) {
			continue
		}
		p.add(n, &l)
		if !q.back && len(p.Lines) >= q.count {
			p.To = n + 1
			break
		}
	}
	if n := len(p.Lines); q.back && n > q.count {
		p.Lines = p.Lines[n-q.count:]
		p.From = p.Lines[0].N
	}
	return p
}
