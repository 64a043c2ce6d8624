package export

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

type file struct{ bytes.Buffer }

func (f *file) Close() error { return nil }

func testMeta() *trace.Meta {
	return &trace.Meta{Machine: "test", Accel: "soft", CPUs: 1, Sources: []string{"vcpu0", "eth", "machine"}, Began: time.Unix(1000, 0),
		Devices: []trace.Device{{Name: "COM1", Type: "serial", Port: true, Base: 0x3f8, Size: 8, Source: -1},
			{Name: "eth", Type: "virtio-mmio", Virtio: uint32(virtio.IDNet), Source: 1}}}
}

func items() []trace.Item {
	frame := append(make([]byte, 12), bytes.Repeat([]byte{0xff}, 60)...)
	const none = trace.NoCPU
	return []trace.Item{
		{Event: trace.Event{Kind: trace.KindIO, Addr: 0x3f8, Value: 'H', Size: 1, Count: 1, Write: true, Time: 1000, Took: 700, RIP: 0x1000}},
		{Event: trace.Event{Kind: trace.KindPop, CPU: none, Source: 1, Addr: 1, Value: 3, Aux: 72 << 32, Time: 2000}, Data: frame},
		{Event: trace.Event{Kind: trace.KindPush, CPU: none, Source: 1, Addr: 1, Value: 3, Time: 5000}},
		{Event: trace.Event{Kind: trace.KindIRQ, CPU: none, Source: 1, Addr: 1, Time: 6000}},
		{Event: trace.Event{Kind: trace.KindPush, CPU: none, Source: 1, Addr: 0, Value: 1, Aux: 72, Time: 7000}, Data: frame},
	}
}

// The file obeys the format: a JSON object whose traceEvents have the fields
// that their phase demands, with begins and ends that match.
func TestPerfetto(t *testing.T) {
	var f file
	meta := testMeta()
	p := NewPerfetto(&f, meta)
	d := decode.New(meta, nil)
	for _, it := range items() {
		l := d.Line(&it)
		if err := p.Add(&it, &l); err != nil {
			t.Fatal(err)
		}
	}
	p.End(&trace.End{Lost: 2, Phases: []trace.Phase{{Name: "user space", At: 4000}}})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		TraceEvents []map[string]any `json:"traceEvents"`
	}
	if err := json.Unmarshal(f.Bytes(), &doc); err != nil {
		t.Fatalf("%v\n%s", err, f.String())
	}
	seen := make(map[string]int)
	open := make(map[any]int)
	for _, e := range doc.TraceEvents {
		validate(t, e)
		ph, _ := e["ph"].(string)
		seen[ph]++
		switch ph {
		case "b":
			open[e["id"]]++
		case "e":
			open[e["id"]]--
		}
	}
	if seen["X"] != 1 || seen["b"] != 1 || seen["e"] != 2 || seen["i"] != 3 || seen["M"] != 7 || open["1.1.3"] != 0 {
		t.Errorf("phases %v, open %v", seen, open)
	}
}

// validate holds an event against the table of the format's document.
func validate(t *testing.T, e map[string]any) {
	t.Helper()
	need := map[string][]string{"X": {"dur"}, "b": {"id", "cat"}, "e": {"id", "cat"}, "i": {"s"}, "M": {"args"}}
	ph, _ := e["ph"].(string)
	fields, known := need[ph]
	if !known {
		t.Errorf("phase %q", ph)
	}
	for _, f := range append(fields, "name", "ts", "pid", "tid") {
		if _, ok := e[f]; !ok {
			t.Errorf("%v has no %s", e, f)
		}
	}
	if ts, _ := e["ts"].(float64); ts < 0 {
		t.Errorf("%v is before the trace", e)
	}
	if s, ok := e["s"].(string); ok && !strings.Contains("gpt", s) {
		t.Errorf("scope %q", s)
	}
}

func TestPCAP(t *testing.T) {
	var f file
	meta := testMeta()
	p, err := NewPCAP(&f, meta)
	if err != nil {
		t.Fatal(err)
	}
	d := decode.New(meta, nil)
	for _, it := range items() {
		l := d.Line(&it)
		if err := p.Add(&it, &l); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil || p.Count != 2 {
		t.Fatalf("%v, %d frames", err, p.Count)
	}
	b := f.Bytes()
	le := binary.LittleEndian
	if len(b) != 24+2*(16+60) || le.Uint32(b) != pcapMagic || le.Uint32(b[20:]) != 1 || le.Uint32(b[24:]) != 1000 || le.Uint32(b[28:]) != 2000 || le.Uint32(b[32:]) != 60 {
		t.Fatalf("% x", b[:min(len(b), 48)])
	}
}

func TestSummary(t *testing.T) {
	meta := testMeta()
	s, d := NewSummary(meta), decode.New(meta, nil)
	for _, it := range items() {
		l := d.Line(&it)
		s.Add(&l)
	}
	var b bytes.Buffer
	s.Write(&b, &trace.End{At: 10 * time.Microsecond, Lost: 7, Reason: "power-off", Phases: []trace.Phase{{Name: "user space", At: 4000}},
		Usage: []trace.Usage{{CPU: 0, User: 5 * time.Microsecond}}})
	for _, want := range []string{"5 events in 10µs, and 7 more LOST", "write COM1 THR", "eth transmit0 pop", "user space", "power-off",
		"requests, from taken to done", "3µs", "vcpu0", "43.0%", "7.0%", "< 1.024µs"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
