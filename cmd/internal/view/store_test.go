package view

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

// busy is n events from number first on, 20 µs apart: accesses to the serial
// port, and a request with its pieces and an interrupt now and then.
func busy(first, n int) []trace.Event {
	events := make([]trace.Event, 0, n)
	for i := first; len(events) < n; i++ {
		e := trace.Event{Time: time.Duration(i) * 20 * time.Microsecond, Kind: trace.KindIO, Size: 1, Count: 1, Write: true, Addr: 0x3f8, Value: 'x', RIP: 0x1000, Took: 100}
		switch i % 100 {
		case 50:
			e = trace.Event{Time: e.Time, Kind: trace.KindSegment, CPU: trace.NoCPU, Source: 1, Aux: uint64(i + 1), Addr: 0x2000, Value: 60}
		case 51:
			e = trace.Event{Time: e.Time, Kind: trace.KindPop, CPU: trace.NoCPU, Source: 1, Addr: 1, RIP: uint64(i), Aux: 60 << 32}
		case 52:
			e = trace.Event{Time: e.Time, Kind: trace.KindIRQ, CPU: trace.NoCPU, Source: 1}
		case 53:
			e = trace.Event{Time: e.Time, Kind: trace.KindIRQ, CPU: trace.NoCPU, Source: 2, Addr: 4}
		}
		events = append(events, e)
	}
	return events
}

// perTick is what comes between two messages to a page when a guest makes
// 50,000 exits a second.
const perTick = 50_000 * int(glanceEvery) / int(time.Second)

// What a page costs does not grow with what happens: the work is counted, in
// events put into words and bytes sent.
func TestABusyMachineIsSampled(t *testing.T) {
	for _, text := range []string{"", "irq", "kind=irq device=net0"} {
		st := newStore(testMeta())
		var filter *decode.Filter
		if text != "" {
			var err error
			if filter, err = decode.ParseFilter(text); err != nil {
				t.Fatal(err)
			}
		}
		f := newFollower(st, nil, filter)
		budget := uint64(tickLines)
		if filter != nil {
			budget = tickDecoded
		}
		for i := range 40 { // ten seconds of it
			st.add(busy(i*perTick, perTick))
			before := f.decoded
			tk := f.tick()
			if did := f.decoded - before; did > budget {
				t.Fatalf("filter %q: %d events put into words of %d", text, did, perTick)
			}
			if len(tk.Lines) == 0 || len(tk.Lines) > tickLines {
				t.Fatalf("filter %q: %d lines", text, len(tk.Lines))
			}
			if want := uint64(perTick - perTick/100); tk.Seen != want || tk.Looked >= tk.Seen {
				t.Fatalf("filter %q: the page is told of %d of %d events, and there were %d", text, tk.Looked, tk.Seen, want)
			}
			b, err := json.Marshal(tk)
			if err != nil || len(b) > 32<<10 {
				t.Fatalf("filter %q: %d bytes, %v", text, len(b), err)
			}
			for _, l := range tk.Lines {
				if text != "" && l.Kind != "irq" {
					t.Fatalf("filter %q shows %+v", text, l)
				}
			}
		}
	}
}

// What is done for every event, sampled or not, allocates nothing.
func TestAnEventThatIsNotShownDoesNotAllocate(t *testing.T) {
	st := newStore(testMeta())
	events := busy(0, perTick)
	st.add(events)
	if n := testing.AllocsPerRun(20, func() { st.add(events) }); n != 0 {
		t.Errorf("%v allocations for %d events", n, len(events))
	}
}

func TestEventsAreCounted(t *testing.T) {
	st := newStore(testMeta())
	st.add(busy(0, 1000))
	c := st.counted()
	if c.Kinds["io"] != 960 || c.Kinds["irq"] != 20 || c.Kinds["pop"] != 10 || c.Devices["COM1"].Writes != 960 ||
		c.Lines["net0"] != 10 || c.Lines["COM1"] != 10 || c.Devices["COM1"].Took != 96000 {
		t.Errorf("%+v", c)
	}
}

func TestTheTimelineHasEveryEventOnce(t *testing.T) {
	st := newStore(testMeta())
	for i := range 4 { // more than is kept
		st.add(busy(i*storeSize/2, storeSize/2))
	}
	l := st.timeline(timelineBuckets)
	var sum [classes]int
	for _, b := range l.Buckets {
		for k, n := range b {
			sum[k] += int(n)
		}
	}
	pieces := storeSize / 100
	if total := sum[0] + sum[1] + sum[2] + sum[3]; total > storeSize-pieces+2 || total < storeSize-pieces-2 {
		t.Errorf("%d events of %d", total, storeSize)
	}
	if sum[classQueue] == 0 || sum[classSignal] == 0 || sum[classAccess] < storeSize*9/10 {
		t.Errorf("classes %v", sum)
	}
	if first, next, from, to := st.held(); next-first != storeSize || l.From != from || l.To != to || from != time.Duration(storeSize)*20*time.Microsecond {
		t.Errorf("held %d to %d, %v to %v", first, next, from, to)
	}
}

// Pages of the past follow each other without a gap, both ways.
func TestThePastIsReadPageByPage(t *testing.T) {
	st := newStore(testMeta())
	st.add(busy(0, 5000))
	for _, filter := range []string{"", "irq"} {
		ask := func(v url.Values) past {
			v.Set("filter", filter)
			v.Set("count", "40")
			q, err := parsePast(v)
			if err != nil {
				t.Fatal(err)
			}
			return st.look(q, nil)
		}
		num := func(n uint64) []string { b, _ := json.Marshal(n); return []string{string(b)} }
		var forth []uint64
		p := ask(url.Values{"from": {"0"}})
		for len(p.Lines) > 0 {
			for _, l := range p.Lines {
				forth = append(forth, l.N)
			}
			p = ask(url.Values{"from": num(forth[len(forth)-1] + 1)})
		}
		var back []uint64
		p = ask(url.Values{"before": {"5000"}})
		for len(p.Lines) > 0 {
			for i := len(p.Lines) - 1; i >= 0; i-- {
				back = append(back, p.Lines[i].N)
			}
			p = ask(url.Values{"before": num(back[len(back)-1])})
		}
		want := 5000 - 50
		if filter != "" {
			want = 100
		}
		if len(forth) != want || len(back) != want {
			t.Errorf("filter %q: %d forth, %d back, want %d", filter, len(forth), len(back), want)
			continue
		}
		for i := range forth {
			if forth[i] != back[len(back)-1-i] {
				t.Fatalf("filter %q: event %d forth, %d back", filter, forth[i], back[len(back)-1-i])
			}
		}
	}
	q, err := parsePast(url.Values{"time": {"50000000"}, "count": {"1"}})
	if err != nil {
		t.Fatal(err)
	}
	if p := st.look(q, nil); len(p.Lines) != 1 || p.Lines[0].Time != 50*time.Millisecond {
		t.Errorf("at 50 ms: %+v", p.Lines)
	}
}

// BenchmarkBusySecond is what a guest with 50,000 exits a second costs the view
// in a second, with one page: ns/op ÷ 10⁹ is the share of a CPU.
func BenchmarkBusySecond(b *testing.B) {
	st := newStore(testMeta())
	f := newFollower(st, nil, nil)
	events := busy(0, perTick)
	b.ReportAllocs()
	for b.Loop() {
		for range int(time.Second / glanceEvery) {
			st.add(events)
			t := f.tick()
			_, _ = json.Marshal(&t)
		}
		_ = st.timeline(timelineBuckets)
	}
}
