package trace

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func stream(t testing.TB, events []Event, end bool) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, &Meta{Sources: []string{"vcpu0"}, Devices: []Device{{Name: "COM1", Type: "serial"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Events(events); err != nil {
		t.Fatal(err)
	}
	if end {
		if err := w.End(&End{Lost: 3}); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestStream(t *testing.T) {
	var events []Event
	for i := range uint64(3000) {
		events = append(events, Event{Kind: KindIO, Addr: i, Value: ^i, Write: i%2 == 0})
	}
	r, err := NewStreamReader(bytes.NewReader(stream(t, events, true)))
	if err != nil || r.Meta.Devices[0].Name != "COM1" {
		t.Fatal(err, r)
	}
	for i := range events {
		e, err := r.Next()
		if err != nil || e != events[i] {
			t.Fatalf("%d: %+v, %v", i, e, err)
		}
	}
	if _, err := r.Next(); err != io.EOF || r.End().Lost != 3 {
		t.Fatalf("%v, %+v", err, r.End())
	}
}

func TestStreamThatIsCutOff(t *testing.T) {
	b := stream(t, []Event{{Kind: KindIO}}, false)
	r, err := NewStreamReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("end: %v", err)
	}
	if _, err := NewStreamReader(strings.NewReader("something else entirely")); !errors.Is(err, ErrNotStream) {
		t.Fatalf("another file: %v", err)
	}
}

func FuzzStream(f *testing.F) {
	b := stream(f, []Event{{Kind: KindPop, RIP: 1}, {Kind: KindData, Aux: 1, Size: 200}, {Kind: KindPop, RIP: 1}}, true)
	f.Add(b)
	f.Add(b[:len(b)-9])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewStreamReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		a := NewAssembler()
		for {
			e, err := r.Next()
			if err != nil {
				return
			}
			a.Add(e)
		}
	})
}

func TestPiecesComeTogether(t *testing.T) {
	s := NewSession(64, "blk0")
	data := []byte("the quick brown fox jumps over the lazy dog")
	n := EmitData(s.Sources[0].Ring, Event{}, 7, [][]byte{data[:5], nil, data[5:]}, 40)
	s.Sources[0].Ring.Emit(&Event{Kind: KindSegment, Addr: 0x1000, Value: 43, Aux: 7})
	s.Sources[0].Ring.Emit(&Event{Kind: KindPop, RIP: 7})
	s.Sources[0].Ring.Emit(&Event{Kind: KindPop, RIP: 8})
	items := s.Last(10)
	if n != 40 || len(items) != 2 || string(items[0].Data) != string(data[:40]) || items[1].Data != nil {
		t.Fatalf("%d, %+v", n, items)
	}
	if len(items[0].Segments) != 1 || items[0].Segments[0] != (Segment{Addr: 0x1000, Len: 43}) {
		t.Fatalf("segments: %+v", items[0].Segments)
	}
	if last := s.Last(1); len(last) != 1 || last[0].RIP != 8 {
		t.Fatalf("the last: %+v", last)
	}
}
