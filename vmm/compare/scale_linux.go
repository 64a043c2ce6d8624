package compare

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// sampling is how often CPU use is looked at; a tick of the kernel's accounts
// is 10 ms.
const sampling = 100 * time.Millisecond

// watched is how long an engine's CPU use is looked at, from the program's
// first act on: a second of idleness, one of load, and a bit.
const watched = 2500 * time.Millisecond

// watch measures each engine's CPU use over time, and then starts more and
// more idle instances beside that one.
func (c *comparison) watch(ctx context.Context) error {
	least := time.Duration(float64(c.cfg.Budget) * densityPart / float64(max(1, len(c.engines))))
	for i, s := range c.engines {
		c.say("CPU over time, density: %s", s.out.Name)
		if len(s.out.Start) == 0 && c.isSlow(s.warm) {
			continue // it has failed already, slowly
		}
		limit := max(c.left()/time.Duration(len(c.engines)-i), watched+least)
		if err := c.watchOne(ctx, s, limit); err != nil {
			s.fail(ctx, "CPU over time, density", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *comparison) watchOne(ctx context.Context, s *subject, limit time.Duration) (err error) {
	began := time.Now()
	var alive []*instance
	defer func() {
		for _, in := range alive {
			err = errors.Join(err, in.kill())
		}
	}()
	in, err := c.launch(s, Job{List: "load"})
	if err != nil {
		return err
	}
	alive = append(alive, in)
	reached, err := c.use(ctx, s, in)
	if err != nil {
		return err
	}
	took := reached.Sub(in.began)
	for _, n := range c.cfg.Scale {
		each := max(took, s.start())
		if need := time.Duration(n-len(alive))*each + settle; n > 1 && time.Since(began)+need > limit {
			return nil // finish says so
		}
		point := ScalePoint{Instances: n}
		if n == 1 {
			point.Start = []float64{float64(took)}
		}
		for len(alive) < n {
			in, took, err = c.addIdle(ctx, s)
			if in != nil {
				alive = append(alive, in)
			}
			if err != nil {
				return fmt.Errorf("instance %d: %w", len(alive), err)
			}
			point.Start = append(point.Start, float64(took))
		}
		time.Sleep(settle)
		point.Memory = c.memory(s, alive)
		s.out.Scale = append(s.out.Scale, point)
	}
	return nil
}

// use samples the CPU use of an instance with the job "load", which is idle in
// the end.
func (c *comparison) use(ctx context.Context, s *subject, in *instance) (reached time.Time, err error) {
	ctx, cancel := c.timed(ctx)
	defer cancel()
	sampled := make(chan []CPUPoint, 1)
	stop := make(chan struct{})
	go func() { sampled <- in.sample(stop) }()
	if reached, err = in.reach(ctx, 1); err == nil {
		select {
		case <-time.After(watched):
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	close(stop)
	for _, p := range <-sampled {
		p.At -= float64(reached.Sub(in.began))
		if err == nil {
			s.out.CPU = append(s.out.CPU, p)
		}
	}
	return reached, err
}

// sample records the instance's CPU use until it is stopped. At is since the
// instance began.
func (in *instance) sample(stop <-chan struct{}) []CPUPoint {
	var points []CPUPoint
	last := make(map[int]stat)
	before := in.began
	t := time.NewTicker(sampling)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return points
		case <-t.C:
		}
		now := time.Now()
		var busy, guest time.Duration
		for _, pid := range in.processes() {
			if s, ok := readStat(pid); ok {
				busy += s.busy - last[pid].busy
				guest += s.guest - last[pid].guest
				last[pid] = s
			}
		}
		span := float64(now.Sub(before))
		points = append(points, CPUPoint{At: float64(now.Sub(in.began)), Host: max(0, float64(busy-guest)/span), Guest: max(0, float64(guest)/span)})
		before = now
	}
}

// settle is how long instances get to come to rest before memory is counted.
const settle = 300 * time.Millisecond

// addIdle starts one more idle instance, which is returned also with an error
// where it must be killed.
func (c *comparison) addIdle(ctx context.Context, s *subject) (*instance, time.Duration, error) {
	ctx, cancel := c.timed(ctx)
	defer cancel()
	in, err := c.launch(s, Job{List: "idle"})
	if err != nil {
		return nil, 0, err
	}
	at, err := in.reach(ctx, 1)
	return in, at.Sub(in.began), err
}

func (c *comparison) memory(s *subject, alive []*instance) Memory {
	var pids []int
	var files []string
	b, _ := s.engine.(backed)
	for _, in := range alive {
		pids = append(pids, in.processes()...)
		if b != nil {
			files = append(files, b.RAMFiles(in.id)...)
		}
	}
	slices.Sort(pids)
	i := s.engine.Info()
	ram := guestRAM{i.RAM, c.cfg.Kernel}
	m := memoryOf(slices.Compact(pids), ram, files)
	m.Daemons = memoryOf(i.Daemons, ram, nil).Total()
	return m
}
