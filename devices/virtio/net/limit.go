package net

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// burstTime is how much traffic may pass at once after a silence, in time at
// the full rate.
const burstTime = 20 * time.Millisecond

// limit is a token bucket of bytes that all pairs share; nil lets everything
// pass.
type limit struct{ bucket *rate.Limiter }

func newLimit(bitsPerSecond uint64) *limit {
	if bitsPerSecond == 0 {
		return nil
	}
	perSecond := float64(bitsPerSecond) / 8
	// A frame must fit the bucket.
	burst := max(MaxFrame, int(perSecond*burstTime.Seconds()))
	return &limit{rate.NewLimiter(rate.Limit(perSecond), burst)}
}

// take reserves n bytes and returns how long to wait before they may pass.
func (l *limit) take(n int) time.Duration {
	if l == nil {
		return 0
	}
	return l.takeAt(time.Now(), n)
}

// takeAt is take at a time that may be a test's.
func (l *limit) takeAt(now time.Time, n int) time.Duration {
	return l.bucket.ReserveN(now, n).DelayFrom(now)
}

// pause waits for d, or less if ctx is done.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
