package trace

import "testing"

// busy is many accesses, with a request and its data among them.
func busy() []Event {
	var events []Event
	for i := range 10000 {
		switch i {
		case 100:
			events = append(events, Event{Kind: KindSegment, Aux: 7}, Event{Kind: KindData, Aux: 7}, Event{Kind: KindPop, RIP: 7, Time: 100})
		case 200:
			events = append(events, Event{Kind: KindIRQ, Time: 200})
		default:
			events = append(events, Event{Kind: KindIO, Count: 1, Value: uint64(i)})
		}
	}
	return events
}

func TestSampleKeepsWhatIsRare(t *testing.T) {
	events := busy()
	got, left := Sample(nil, events, 100)
	kinds := make(map[Kind]int)
	last := uint64(0)
	for _, i := range got {
		e := events[i]
		kinds[e.Kind]++
		if e.Kind == KindIO {
			if last != 0 && e.Value != last+1 {
				t.Fatalf("access %d follows %d", e.Value, last)
			}
			last = e.Value
		}
	}
	if kinds[KindPop] != 1 || kinds[KindIRQ] != 1 || kinds[KindSegment] != 1 || kinds[KindData] != 1 {
		t.Errorf("kept %v", kinds)
	}
	if kinds[KindIO] != 98 || last != 9999 {
		t.Errorf("%d accesses, the last %d: want the newest 98", kinds[KindIO], last)
	}
	if left != 10000-100 {
		t.Errorf("left out %d", left)
	}
	if it, ok := NewAssembler().Add(events[got[0]]); ok {
		t.Errorf("a request comes before its pieces: %+v", it)
	}
}

func TestSampleOfFewIsAll(t *testing.T) {
	events := busy()[50:300]
	got, left := Sample(nil, events, 1000)
	if left != 0 || len(got) != len(events) {
		t.Errorf("%d of %d, left out %d", len(got), len(events), left)
	}
}

func TestSampleOfManyKinds(t *testing.T) {
	var events []Event
	for range 100 {
		for k := KindIO; k < kindCount; k++ {
			events = append(events, Event{Kind: k})
		}
	}
	got, left := Sample(nil, events, 57)
	if len(got) > 57 || len(got) < 36 || left != 100*19-len(got) {
		t.Errorf("%d events, left out %d", len(got), left)
	}
}

func BenchmarkSample(b *testing.B) {
	events, dst := busy(), make([]int, 0, 2000)
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = Sample(dst[:0], events, 1000)
	}
}
