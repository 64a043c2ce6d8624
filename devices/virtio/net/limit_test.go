package net

import (
	"testing"
	"time"
)

// TestLimitIsExact: in simulated time a limit is met within 1 %, for frames of
// any size, once the burst at the beginning is used up.
func TestLimitIsExact(t *testing.T) {
	for _, rate := range []uint64{1_000_000, 80_000_000, 10_000_000_000} {
		for _, size := range []int{60, 1514, MaxFrame} {
			l := newLimit(rate)
			begin := time.Unix(1e9, 0)
			now, passed := begin.Add(l.takeAt(begin, l.bucket.Burst())), 0
			for range 10_000 {
				now = now.Add(l.takeAt(now, size))
				passed += size
			}
			got := 8 * float64(passed) / now.Sub(begin).Seconds()
			if got < 0.99*float64(rate) || got > 1.01*float64(rate) {
				t.Errorf("frames of %d bytes: %.0f bits a second with a limit of %d", size, got, rate)
			}
		}
	}
	if d := newLimit(0).take(MaxFrame); d != 0 {
		t.Errorf("without a limit: %v", d)
	}
}
