package compare

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// comparison is one in progress.
type comparison struct {
	cfg     *Config
	site    *Site
	plain   *spawner
	hidden  *spawner // nil until an engine wants it
	engines []*subject
	res     *Result
	began   time.Time
	sum     uint64 // of all workloads: the same everywhere
	serial  int    // of instances
	parts   int
	part    int
}

// subject is an engine that is being measured.
type subject struct {
	engine Engine
	out    EngineResult
	cost   time.Duration // of a round
	runs   int
}

// Run measures. What fails is in the result; the error is for what leaves
// none. Whatever happens, nothing stays behind.
func Run(ctx context.Context, cfg Config) (_ *Result, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	c := &comparison{cfg: &cfg, began: time.Now(), res: &Result{Format: resultFormat, When: time.Now().Truncate(time.Second), Vitrine: cfg.Version}}
	c.res.Host = describeHost(cfg.KernelsEmulated)
	c.res.Options = Options{Runs: cfg.Runs, Workloads: cfg.Workloads, Scale: cfg.Scale, Memory: cfg.Memory, PageCache: "warm"}
	if c.site, err = newSite(&cfg); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if c.plain, err = newSpawner(""); err != nil {
		return nil, err
	}
	if cfg.ColdCache {
		if err := dropCaches(); err != nil {
			return nil, fmt.Errorf("drop the page cache: %w: run as root, or without --cold-cache", err)
		}
		c.res.Options.PageCache = "cold"
	}
	if err := c.measure(ctx); err != nil {
		return nil, err
	}
	c.finish()
	return c.res, nil
}

func (c *comparison) measure(ctx context.Context) error {
	for _, step := range []func(context.Context) error{c.prepare, c.warmUp, c.rounds, c.use, c.scale} {
		if err := step(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *comparison) close() error {
	var errs []error
	for _, s := range c.engines {
		errs = append(errs, s.engine.Close())
	}
	if c.plain != nil {
		c.plain.close()
	}
	if c.hidden != nil {
		c.hidden.close()
	}
	return errors.Join(append(errs, c.site.Close())...)
}

func (c *comparison) say(format string, args ...any) {
	c.part++
	if c.cfg.Progress != nil {
		c.cfg.Progress(Progress{Part: min(c.part, c.parts), Parts: c.parts, What: fmt.Sprintf(format, args...)})
	}
}

func (c *comparison) skip(name string, reason error) {
	text := strings.Join(strings.Fields(reason.Error()), " ")
	c.res.Skipped = append(c.res.Skipped, Skipped{Engine: name, Reason: text})
}

// prepare finds the engines that work here.
func (c *comparison) prepare(ctx context.Context) error {
	c.parts = len(EngineNames())
	for _, e := range newEngines() {
		name := e.Info().Name
		if !c.cfg.wanted(name) {
			continue
		}
		c.say("looking for %s", name)
		if err := e.Prepare(ctx, c.site); err != nil {
			c.skip(name, err)
			if err := e.Close(); err != nil {
				c.warn("%s: clear up: %v", name, err)
			}
			continue
		}
		i := e.Info()
		if i.HideUnified && c.hidden == nil {
			var err error
			if c.hidden, err = newSpawner(hiddenUnified()); err != nil {
				c.hidden = nil
				c.skip(name, fmt.Errorf("hide cgroup v2 from it: %w", err))
				continue
			}
		}
		c.engines = append(c.engines, &subject{engine: e, out: EngineResult{Name: i.Name, Title: i.Title, Kind: i.Kind,
			Version: i.Version, Note: i.Note, Disk: i.Disk, Work: make(map[string]Samples)}})
	}
	c.part, c.parts = 0, len(c.engines)*(c.cfg.Runs+3)
	return nil
}

func (c *comparison) warn(format string, args ...any) {
	c.res.Warnings = append(c.res.Warnings, fmt.Sprintf(format, args...))
}

// launch starts an instance of the subject.
func (c *comparison) launch(s *subject, j Job) (*instance, error) {
	if c.cfg.ColdCache {
		if err := dropCaches(); err != nil {
			return nil, err
		}
	}
	c.serial++
	i := s.engine.Info()
	sp := c.plain
	if i.HideUnified {
		sp = c.hidden
	}
	return launch(s.engine, sp, c.site.id(i.Name, c.serial), j)
}

func (c *comparison) timed(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.cfg.Timeout, fmt.Errorf("killed after the time-out of %v", c.cfg.Timeout))
}

// once runs a job to its end.
func (c *comparison) once(ctx context.Context, s *subject, j Job) (*instance, *outcome, error) {
	ctx, cancel := c.timed(ctx)
	defer cancel()
	in, err := c.launch(s, j)
	if err != nil {
		return nil, nil, err
	}
	o, err := in.wait(ctx)
	return in, o, err
}

// warmUp runs each engine once, unmeasured. Those that fail are left out.
func (c *comparison) warmUp(ctx context.Context) error {
	var good []*subject
	for i, s := range c.engines {
		c.say("warming up: %s", s.out.Name)
		_, o, err := c.once(ctx, s, Job{List: "-"})
		if ctx.Err() != nil {
			c.engines = append(good, c.engines[i:]...)
			return context.Cause(ctx)
		}
		if err != nil {
			c.skip(s.out.Name, err)
			if err := s.engine.Close(); err != nil {
				c.warn("%s: clear up: %v", s.out.Name, err)
			}
			continue
		}
		s.out.FS = fsName(o.fs)
		s.runs = c.cfg.Runs
		good = append(good, s)
	}
	c.engines = good
	return nil
}

// rounds measures all engines in turn, as often as there are runs.
func (c *comparison) rounds(ctx context.Context) error {
	for r := range c.cfg.Runs {
		for _, s := range c.engines {
			c.say("round %d of %d: %s", r+1, c.cfg.Runs, s.out.Name)
			if r >= s.runs {
				continue
			}
			began := time.Now()
			c.round(ctx, s)
			s.cost = max(s.cost, time.Since(began))
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if r == 0 {
			c.share()
		}
	}
	return nil
}

// roundsPart and scalePart are the parts of the budget that the rounds and the
// density may take.
const (
	roundsPart = 0.55
	scalePart  = 0.3
)

// share gives each engine the number of runs for which the budget suffices:
// the same time to all that need more than they can get, at least two runs.
func (c *comparison) share() {
	budget := time.Duration(float64(c.cfg.Budget) * roundsPart)
	total := func(limit time.Duration) (t time.Duration) {
		for _, s := range c.engines {
			t += min(time.Duration(c.cfg.Runs)*s.cost, limit)
		}
		return t
	}
	low, high := time.Duration(0), budget
	for range 40 {
		if mid := (low + high) / 2; total(mid) <= budget {
			low = mid
		} else {
			high = mid
		}
	}
	for _, s := range c.engines {
		if can := int(low / max(s.cost, 1)); can < c.cfg.Runs {
			if s.runs = min(max(can, 2), c.cfg.Runs); s.runs < c.cfg.Runs {
				c.warn("%s is slow here: %d runs instead of %d", s.out.Name, s.runs, c.cfg.Runs)
			}
		}
	}
}

// round is one start of the program that does nothing, and one with work.
func (c *comparison) round(ctx context.Context, s *subject) {
	in, o, err := c.once(ctx, s, Job{List: "-"})
	if err != nil {
		s.fail(ctx, "start", err)
		return
	}
	s.out.Start = append(s.out.Start, float64(o.reached.Sub(in.began)))
	s.out.Exit = append(s.out.Exit, float64(in.ended.Sub(in.began)))
	s.out.Carry = append(s.out.Carry, float64(o.carry))
	if _, o, err = c.once(ctx, s, Job{List: strings.Join(c.cfg.Workloads, ",")}); err != nil {
		s.fail(ctx, "work", err)
		return
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

func (s *subject) fail(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return // the user's wish, not the engine's failure
	}
	s.out.Failures = append(s.out.Failures, what+": "+strings.Join(strings.Fields(err.Error()), " "))
}

// sampling is how often CPU use is looked at; a tick of the kernel's accounts
// is 10 ms.
const sampling = 100 * time.Millisecond

// use measures each engine's CPU use over time: its start, a second of idleness
// and one of load.
func (c *comparison) use(ctx context.Context) error {
	for _, s := range c.engines {
		c.say("CPU over time: %s", s.out.Name)
		if err := c.useOf(ctx, s); err != nil {
			s.fail(ctx, "CPU over time", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *comparison) useOf(ctx context.Context, s *subject) (err error) {
	ctx, cancel := c.timed(ctx)
	defer cancel()
	in, err := c.launch(s, Job{List: "load"})
	if err != nil {
		return err
	}
	sampled := make(chan []CPUPoint, 1)
	stop := make(chan struct{})
	go func() { sampled <- in.sample(stop) }()
	reached, err := in.reach(ctx, 1)
	if err == nil {
		select {
		case <-time.After(2500 * time.Millisecond):
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	close(stop)
	points := <-sampled
	if err := errors.Join(err, in.kill()); err != nil {
		return err
	}
	for _, p := range points {
		p.At -= float64(reached.Sub(in.began))
		s.out.CPU = append(s.out.CPU, p)
	}
	return nil
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

// scale starts more and more idle instances of each engine, and counts memory.
func (c *comparison) scale(ctx context.Context) error {
	limit := time.Duration(float64(c.cfg.Budget) * scalePart / float64(max(1, len(c.engines))))
	for _, s := range c.engines {
		c.say("density: %s", s.out.Name)
		if err := c.scaleOf(ctx, s, limit); err != nil {
			s.fail(ctx, "density", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *comparison) scaleOf(ctx context.Context, s *subject, limit time.Duration) (err error) {
	var alive []*instance
	defer func() {
		for _, in := range alive {
			err = errors.Join(err, in.kill())
		}
	}()
	began := time.Now()
	each := time.Duration(Summarize(s.out.Start).Median)
	for _, n := range c.cfg.Scale {
		if need := time.Duration(n-len(alive)) * each; n > 1 && time.Since(began)+need > limit {
			c.warn("%s: density measured up to %d instances: more would take longer than its share of the time", s.out.Name, len(alive))
			return nil
		}
		point := ScalePoint{Instances: n}
		for len(alive) < n {
			in, took, err := c.addIdle(ctx, s)
			if in != nil {
				alive = append(alive, in)
			}
			if err != nil {
				return fmt.Errorf("instance %d: %w", len(alive), err)
			}
			point.Start = append(point.Start, float64(took))
			each = max(each, took)
		}
		time.Sleep(settle)
		point.Memory = c.memory(s, alive)
		s.out.Scale = append(s.out.Scale, point)
	}
	return nil
}

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
	for _, in := range alive {
		pids = append(pids, in.processes()...)
	}
	slices.Sort(pids)
	var ram uint64
	i := s.engine.Info()
	if i.Kind == KindMachine {
		ram = c.cfg.Memory
	}
	m := memoryOf(slices.Compact(pids), ram)
	m.Daemons = memoryOf(i.Daemons, 0).Total()
	return m
}

// finish sums up, and says what a reader should mistrust.
func (c *comparison) finish() {
	c.res.Took = time.Since(c.began)
	h := c.res.Host
	if h.KernelsEmulated {
		c.warn("KVM on this host emulates guest kernels, some hundred nanoseconds an instruction: machines under KVM start and make system calls about a thousand times slower than on ordinary hosts, so compare them with nothing else here")
	}
	if h.LoadBefore > 0.5*float64(h.CPUs) {
		c.warn("the host was busy before the comparison: load %.1f on %d CPUs", h.LoadBefore, h.CPUs)
	}
	for _, s := range c.engines {
		if Summarize(s.out.Start).Noisy {
			c.warn("%s: the start times are noisy: look at the single runs", s.out.Name)
		}
		for _, w := range c.cfg.Workloads {
			v := s.out.Work[w]
			if own, host := Summarize(v.Own).Median, Summarize(v.Host).Median; math.Abs(own-host) > 0.1*host+10e6 {
				c.warn("%s, %s: the program's clock says %.1f ms, the host's %.1f ms", s.out.Name, w, own/1e6, host/1e6)
			}
		}
		c.res.Engines = append(c.res.Engines, s.out)
	}
}

// fsName is the name of a file system from statfs(2).
func fsName(magic uint64) string {
	switch magic {
	case 0x01021994:
		return "tmpfs"
	case 0x858458f6:
		return "ramfs"
	case 0xef53:
		return "ext4"
	case 0x794c7630:
		return "overlayfs"
	case 0x9123683e:
		return "btrfs"
	case 0x58465342:
		return "xfs"
	}
	return fmt.Sprintf("file system %#x", magic)
}
