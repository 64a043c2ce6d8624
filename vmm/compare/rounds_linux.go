package compare

import (
	"context"
	"errors"
	"strings"
	"time"
)

// rounds measures all engines in turn, as often as there are runs.
func (c *comparison) rounds(ctx context.Context) error {
	for r := range c.cfg.Runs {
		for _, s := range c.engines {
			c.say("round %d of %d: %s", r+1, c.cfg.Runs, s.out.Name)
			if r >= s.runs {
				continue
			}
			if r > 0 && s.cost > time.Second && c.left() < c.reserve() {
				s.runs = r // it went worse than the first round let hope
				continue
			}
			began, failures := time.Now(), len(s.out.Failures)
			c.round(ctx, s)
			s.cost = max(s.cost, time.Since(began))
			if len(s.out.Failures) > failures && c.isSlow(s.cost) {
				s.runs = r + 1 // it would fail again for as long
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if r == 0 && c.cfg.Runs > 1 {
			c.share()
		}
	}
	return nil
}

// densityPart is the part of the budget that is kept for density, and leastPart
// that which the rounds after the first have in any case.
const (
	densityPart = 0.15
	leastPart   = 0.1
)

// share gives each engine the number of runs for which the time suffices that
// the budget leaves after the first round: the same time to all that need more
// than they can get. It is at least two runs, except for engines that are so
// slow that the others would have to pay for that.
func (c *comparison) share() {
	// Quick engines do not go short because a slow one took all.
	left := max(c.left()-c.reserve(), time.Duration(float64(c.cfg.Budget)*leastPart))
	more := float64(c.cfg.Runs - 1)
	costs := make([]float64, len(c.engines))
	for i, s := range c.engines {
		costs[i] = float64(s.cost)
	}
	limit := waterLevel(costs, more, float64(left))
	for i, s := range c.engines {
		least := 1
		if c.isSlow(s.warm) {
			least = 0
		}
		if can := limit / max(costs[i], 1); can < more && s.runs > 1 {
			s.runs = 1 + max(int(can), least)
		}
	}
}

// reserve is what of the budget is kept for the watch over CPU use and density.
func (c *comparison) reserve() time.Duration {
	t := time.Duration(float64(c.cfg.Budget) * densityPart)
	for _, s := range c.engines {
		t += s.start() + watched + settle
	}
	return t
}

// isSlow says whether a start that takes so long is a burden to the budget.
func (c *comparison) isSlow(start time.Duration) bool { return start > c.cfg.Budget/40 }

// left is what is left of the budget.
func (c *comparison) left() time.Duration { return c.cfg.Budget - time.Since(c.began) }

// start is how long the engine needs to start the program.
func (s *subject) start() time.Duration { return time.Duration(Summarize(s.out.Start).Median) }

// waterLevel is the largest limit for each so that all together, times costs
// each but not above the limit, take no more than budget.
func waterLevel(costs []float64, times, budget float64) float64 {
	low, high := 0.0, budget
	for range 40 {
		middle, total := (low+high)/2, 0.0
		for _, c := range costs {
			total += min(times*c, middle)
		}
		if total <= budget {
			low = middle
		} else {
			high = middle
		}
	}
	return high
}

// round is one start of the program that does nothing, and one with work. Slow
// engines have the latter only.
func (c *comparison) round(ctx context.Context, s *subject) {
	slow := c.isSlow(s.warm)
	if !slow {
		in, o, err := c.once(ctx, s, Job{List: "-"})
		if err != nil {
			s.fail(ctx, "start", err)
			return
		}
		s.started(in, o)
	}
	in, o, err := c.once(ctx, s, Job{List: strings.Join(c.cfg.Workloads, ",")})
	if err != nil {
		s.fail(ctx, "work", err)
		return
	}
	if slow {
		s.started(in, o)
	}
	if c.sum == 0 {
		c.sum = o.sum
	}
	if o.sum != c.sum || len(o.ends) != len(c.cfg.Workloads) {
		s.fail(ctx, "work", errors.New("the program computed something else than elsewhere: its times are not used"))
		return
	}
	for i, w := range c.cfg.Workloads {
		v := s.out.Work[w]
		v.Own = append(v.Own, float64(o.own[w]))
		v.Host = append(v.Host, float64(o.ends[i].Sub(o.begins[i])))
		s.out.Work[w] = v
	}
}

// started notes the times of a run that are no work.
func (s *subject) started(in *instance, o *outcome) {
	exit := in.ended.Sub(in.began)
	if n := len(o.ends); n > 0 {
		exit -= o.ends[n-1].Sub(o.begins[0])
	}
	s.out.Start = append(s.out.Start, float64(o.reached.Sub(in.began)))
	s.out.Exit = append(s.out.Exit, float64(exit))
	s.out.Carry = append(s.out.Carry, float64(o.carry))
}

func (s *subject) fail(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return // the user's wish, not the engine's failure
	}
	s.out.Failures = append(s.out.Failures, what+": "+strings.Join(strings.Fields(err.Error()), " "))
}
