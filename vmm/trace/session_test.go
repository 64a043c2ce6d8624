package trace

import (
	"testing"
	"time"
)

func TestMergerPutsSourcesInOrder(t *testing.T) {
	s := NewSession(16, "vcpu0", "blk0")
	for _, at := range []time.Duration{1, 4, 5} {
		s.Sources[0].Ring.Emit(&Event{Kind: KindMark, Time: at})
	}
	for _, at := range []time.Duration{2, 3, 6} {
		s.Sources[1].Ring.Emit(&Event{Kind: KindPop, Time: at})
	}
	m := s.NewMerger()
	got := m.Drain(nil, 4)
	got = m.Drain(got, 100)
	if len(got) != 6 {
		t.Fatalf("%d events, want 6", len(got))
	}
	for i, e := range got {
		if e.Time != time.Duration(i+1) {
			t.Fatalf("event %d has time %d", i, e.Time)
		}
	}
}

func TestMergerWaitsForWhatMayStillCome(t *testing.T) {
	s := NewSession(16, "vcpu0")
	m := s.NewMerger()
	s.Sources[0].Ring.Emit(&Event{Kind: KindMark, Time: time.Hour})
	if got := m.Read(nil, 10); len(got) != 0 {
		t.Fatalf("read %v from the future", got)
	}
	if got := m.Drain(nil, 10); len(got) != 1 {
		t.Fatalf("drained %d events, want 1", len(got))
	}
}
