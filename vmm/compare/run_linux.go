package compare

import (
	"context"
	"errors"
	"fmt"
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
	warm   time.Duration // of the run that warmed up
	cost   time.Duration // of a round
	runs   int
}

// Run measures. What fails is in the result; the error is for what leaves
// none. Whatever happens, nothing stays behind.
func Run(ctx context.Context, cfg Config) (_ *Result, err error) {
	c, err := newComparison(cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if left := c.close(); left != nil {
			err = errors.Join(err, &leftError{left})
		}
	}()
	if err := c.measure(ctx); err != nil {
		return nil, err
	}
	c.finish()
	return c.res, nil
}

// newComparison makes what a comparison works with; close removes it.
func newComparison(cfg Config) (_ *comparison, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	c := &comparison{cfg: &cfg, began: time.Now(), res: &Result{Format: resultFormat, When: time.Now().Truncate(time.Second), Vitrine: cfg.Version}}
	c.res.Host = describeHost(cfg.KernelsEmulated)
	c.res.Options = Options{Runs: cfg.Runs, Workloads: cfg.Workloads, Scale: cfg.Scale, Memory: cfg.Memory, PageCache: "warm",
		Budget: cfg.Budget, Timeout: cfg.Timeout}
	if cfg.ColdCache {
		if err := dropCaches(); err != nil {
			return nil, fmt.Errorf("drop the page cache: %w: run as root, or without --cold-cache", err)
		}
		c.res.Options.PageCache = "cold"
	}
	if c.site, err = newSite(&cfg); err != nil {
		return nil, err
	}
	if c.plain, err = newSpawner(""); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *comparison) measure(ctx context.Context) error {
	for _, step := range []func(context.Context) error{c.prepare, c.warmUp, c.rounds, c.watch} {
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
	c.part, c.parts = 0, len(c.engines)*(c.cfg.Runs+2)
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
		began := time.Now()
		o, err := c.firstRun(ctx, s)
		s.warm = time.Since(began)
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
		s.out.FS, s.out.Note = fsName(o.fs), s.engine.Info().Note
		s.runs = c.cfg.Runs
		good = append(good, s)
	}
	c.engines = good
	return nil
}

// firstRun runs the program in the first of the engine's ways that works.
func (c *comparison) firstRun(ctx context.Context, s *subject) (*outcome, error) {
	for {
		_, o, err := c.once(ctx, s, Job{List: "-"})
		if err == nil || ctx.Err() != nil {
			return o, err
		}
		if f, ok := s.engine.(fallback); !ok || !f.Next(err) {
			i := s.engine.Info()
			if i.Note != "" {
				err = fmt.Errorf("%w (%s)", err, i.Note)
			}
			if i.GaveUp != "" && c.cfg.KernelsEmulated {
				err = fmt.Errorf("%w: KVM here leaves instructions of guest kernels to the VMM, and this one does not take them", err)
			}
			return nil, err
		}
	}
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
	var noisy, few, slow []string
	for _, s := range c.engines {
		if Summarize(s.out.Start).Noisy {
			noisy = append(noisy, s.out.Name)
		}
		if s.runs < c.cfg.Runs {
			slow = append(slow, fmt.Sprintf("%s %d", s.out.Name, s.runs))
		}
		if n := len(c.cfg.Scale); n > 0 && len(s.out.Scale) > 0 && len(s.out.Scale) < n {
			few = append(few, fmt.Sprintf("%s %d", s.out.Name, s.out.Scale[len(s.out.Scale)-1].Instances))
		}
		if len(s.out.Work) > 0 && !s.out.OwnClock() {
			c.warn("%s: the program's clock is coarse or wrong there, so its execution times are by the host's clock", s.out.Name)
		}
		c.res.Engines = append(c.res.Engines, s.out)
	}
	if len(slow) > 0 {
		c.warn("slow here, so fewer runs than %d for the budget of %v: %s", c.cfg.Runs, c.cfg.Budget, strings.Join(slow, ", "))
	}
	if len(noisy) > 0 {
		c.warn("noisy start times, so look at the single runs: %s", strings.Join(noisy, ", "))
	}
	if len(few) > 0 {
		c.warn("fewer instances than were asked for, for the budget of %v: %s", c.cfg.Budget, strings.Join(few, ", "))
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
