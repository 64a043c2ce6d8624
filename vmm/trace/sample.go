package trace

import "slices"

// Sample appends to dst the indices of at most budget of events and of the
// pieces that belong to them, in order: of kinds that are rare among events
// all, of the others the newest. It returns how many events, pieces apart, it
// left out.
func Sample(dst []int, events []Event, budget int) (sample []int, left int) {
	var counts, keep [kindCount]int
	total := 0
	for i := range events {
		if k := events[i].Kind; k < kindCount && !k.piece() {
			counts[k]++
			total++
		}
	}
	share(&counts, &keep, budget)
	// From the newest back, so that what is kept of a kind is one stretch.
	marked := make(map[uint64]bool) // owners whose pieces are wanted
	begin := len(dst)
	for at := len(events) - 1; at >= 0; at-- {
		e := &events[at]
		switch k := e.Kind; {
		case k >= kindCount:
		case k.piece():
			if marked[e.Aux] {
				dst = append(dst, at)
			}
		case keep[k] > 0:
			keep[k]--
			total--
			dst = append(dst, at)
			if id := e.id(); id != 0 {
				marked[id] = true
			}
		}
	}
	slices.Reverse(dst[begin:])
	return dst, total
}

// piece says whether such an event is part of another.
func (k Kind) piece() bool { return k == KindData || k == KindSegment || k == KindRegisters }

// share divides budget among kinds: those that want less than their equal part
// get it all, and the rest divide what is left.
func share(counts, keep *[kindCount]int, budget int) {
	open := 0
	for _, n := range counts {
		if n > 0 {
			open++
		}
	}
	for open > 0 {
		part, settled := budget/open, false
		for k, n := range counts {
			if n > 0 && keep[k] == 0 && n <= part {
				keep[k], settled = n, true
				budget -= n
				open--
			}
		}
		if settled {
			continue
		}
		for k, n := range counts {
			if n > 0 && keep[k] == 0 {
				keep[k] = part
			}
		}
		return
	}
}

// Piece says whether the event is a part of another one.
func (e *Event) Piece() bool { return e.Kind.piece() }
