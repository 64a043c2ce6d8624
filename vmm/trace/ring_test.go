package trace

import (
	"sync"
	"testing"
	"time"
)

func TestEventSurvivesTheRing(t *testing.T) {
	r := NewRing(4)
	rd := r.NewReader()
	want := Event{Time: 3 * time.Hour, Took: 1234, Kind: KindMMIO, CPU: 3, Size: 8, Write: true,
		Source: 7, Count: 9, Addr: 1 << 40, Value: ^uint64(0), Aux: 5, RIP: 0xffffffff81000000}
	r.Emit(&want)
	got, ok := rd.Next()
	if !ok || got != want {
		t.Fatalf("got %+v, %v; want %+v", got, ok, want)
	}
	if _, ok := rd.Next(); ok {
		t.Fatal("an event that nobody emitted")
	}
}

func TestSlowReaderIsToldWhatItLost(t *testing.T) {
	r := NewRing(8)
	rd := r.NewReader()
	for i := range uint64(20) {
		r.Emit(&Event{Kind: KindMark, Value: i})
	}
	for want := uint64(12); want < 20; want++ {
		e, ok := rd.Next()
		if !ok || e.Value != want {
			t.Fatalf("got %d, %v; want %d", e.Value, ok, want)
		}
	}
	if rd.Lost() != 12 {
		t.Fatalf("lost %d, want 12", rd.Lost())
	}
}

func TestReaderOfAllBeginsWithTheOldest(t *testing.T) {
	r := NewRing(4)
	for i := range uint64(6) {
		r.Emit(&Event{Kind: KindMark, Value: i})
	}
	e, ok := r.NewReaderAll().Next()
	if !ok || e.Value != 2 {
		t.Fatalf("got %d, %v; want 2", e.Value, ok)
	}
}

// Several writers and a reader at once: every event arrives whole, in order
// for each writer, and those that do not arrive are counted.
func TestWritersAndReaderAtOnce(t *testing.T) {
	const writers, each = 4, 5000
	r := NewRing(256)
	rd := r.NewReader()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range uint64(each) {
				r.Emit(&Event{Kind: KindMark, CPU: uint8(w), Value: i, Aux: ^i, Addr: i * 3})
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	last := [writers]int64{-1, -1, -1, -1}
	seen := uint64(0)
	for finished := false; ; {
		e, ok := rd.Next()
		if !ok {
			if finished {
				break
			}
			select {
			case <-done:
				finished = true
			default:
			}
			continue
		}
		seen++
		if e.Aux != ^e.Value || e.Addr != e.Value*3 {
			t.Fatalf("torn event %+v", e)
		}
		if int64(e.Value) <= last[e.CPU] {
			t.Fatalf("writer %d: %d after %d", e.CPU, e.Value, last[e.CPU])
		}
		last[e.CPU] = int64(e.Value)
	}
	if seen+rd.Lost() != writers*each {
		t.Fatalf("saw %d and lost %d of %d", seen, rd.Lost(), writers*each)
	}
}

func BenchmarkEmit(b *testing.B) {
	r := NewRing(1 << 12)
	e := Event{Kind: KindIO, Addr: 0x3f8}
	b.ReportAllocs()
	for b.Loop() {
		r.Emit(&e)
	}
}
