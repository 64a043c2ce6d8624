package disk

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// burstTime is how much of a limit may be used at once after a rest. It keeps
// the rate right within a few percent over any second.
const burstTime = 50 * time.Millisecond

// Limit returns b slowed down to iops requests and bps bytes a second (0 is no
// limit) over all its channels. A request over the limit waits before it is
// submitted, so that the guest's queue fills and not the host's memory.
func Limit(b blk.Backend, iops, bps int64) blk.Backend {
	return &limited{Backend: b, requests: newLimiter(iops), bytes: newLimiter(bps)}
}

func newLimiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	burst := int(max(1, perSecond*int64(burstTime)/int64(time.Second)))
	l := rate.NewLimiter(rate.Limit(perSecond), burst)
	return l
}

type limited struct {
	blk.Backend
	requests, bytes *rate.Limiter
}

func (b *limited) Open(ctx context.Context, depth int, done func([]*blk.Request)) (blk.Channel, error) {
	ch, err := b.Backend.Open(ctx, depth, done)
	if err != nil {
		return nil, err
	}
	return &limitedChannel{Channel: ch, b: b, ctx: ctx}, nil
}

type limitedChannel struct {
	blk.Channel
	b   *limited
	ctx context.Context
}

// Submit implements blk.Channel. While it waits nothing is kept back of what
// was submitted before.
func (c *limitedChannel) Submit(r *blk.Request) {
	if d := c.b.delay(r); d > 0 {
		c.Kick()
		c.sleep(d)
	}
	c.Channel.Submit(r)
}

func (c *limitedChannel) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.ctx.Done():
	}
}

// delay charges r and says how long it must wait. Flushes move no data, and
// what they cost belongs to the writes; they count as requests only.
func (b *limited) delay(r *blk.Request) time.Duration {
	now := time.Now()
	d := charge(b.requests, now, 1)
	if r.Op == blk.OpRead || r.Op == blk.OpWrite {
		d = max(d, charge(b.bytes, now, r.Length))
	}
	return d
}

// charge takes n tokens, in pieces where n is larger than a burst, and returns
// when the last of them will be there.
func charge(l *rate.Limiter, now time.Time, n int64) (d time.Duration) {
	if l == nil {
		return 0
	}
	for n > 0 {
		piece := min(n, int64(l.Burst()))
		d = l.ReserveN(now, int(piece)).DelayFrom(now)
		n -= piece
	}
	return d
}
