package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm/doctor"
)

// built is where what tests share lies.
var built string

func TestMain(m *testing.M) {
	var err error
	if built, err = os.MkdirTemp("", "vitrine-compare-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(built)
	os.Exit(code)
}

// buildVitrine is a comparison with the vitrine program and a kernel.
var buildVitrine = sync.OnceValues(func() (Config, error) {
	cfg := Config{Runs: 1, Timeout: 2 * time.Minute, Budget: 5 * time.Minute, Memory: 128 << 20, Version: "test",
		Vitrine: filepath.Join(built, "vitrine"), KernelWords: strings.Fields(guestimages.FewerInstructions)}
	if out, err := exec.Command("go", "build", "-o", cfg.Vitrine, "../../cmd/vitrine").CombinedOutput(); err != nil {
		return Config{}, fmt.Errorf("%w: %s", err, out)
	}
	var err error
	cfg.Kernel, err = guestimages.Path(built, guestimages.KernelLean)
	// Restored machines then take the software CPU, which needs nothing of the host.
	cfg.KernelsEmulated = true
	return cfg, err
})

func testConfig(t *testing.T) *Config {
	t.Helper()
	cfg, err := buildVitrine()
	if err != nil {
		t.Fatal(err)
	}
	return &cfg
}

// TestEngines is the conformance test that every engine passes where it works:
// it starts the program, passes on its output and status, can be killed while
// the program runs, and leaves nothing behind. Those that boot a machine under
// KVM are tried where that is quick, or the user asks for it.
func TestEngines(t *testing.T) {
	for _, e := range newEngines() {
		if strings.HasPrefix(e.Info().Name, "vitrine-") && e.Info().Name != "vitrine-kvm" {
			continue // TestGuestEngines
		}
		t.Run(e.Info().Name, func(t *testing.T) {
			if m, ok := e.(*machine); ok && m.needsKVM && os.Getenv("VITRINE_SLOW") == "" {
				if slow, err := doctor.KernelEmulated(); err != nil || slow {
					t.Skip("boots a machine under KVM, which is slow here: set VITRINE_SLOW=1")
				}
			}
			testEngine(t, e, testConfig(t))
		})
	}
}

// TestGuestEngines is TestEngines for those that need nothing but vitrine.
func TestGuestEngines(t *testing.T) {
	for _, e := range []Engine{vitrine("soft"), newWarm(), newFork()} {
		t.Run(e.Info().Name, func(t *testing.T) { testEngine(t, e, testConfig(t)) })
	}
}

func testEngine(t *testing.T, e Engine, cfg *Config) {
	site, err := newSite(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Prepare(t.Context(), site); err != nil {
		closed := errors.Join(e.Close(), site.Close())
		checkNothingLeft(t, site)
		if e.Info().Name == "process" || strings.HasPrefix(e.Info().Name, "vitrine-") || closed != nil {
			t.Fatal(err, closed)
		}
		t.Skipf("does not work here: %v", err)
	}
	c := newTestComparison(t, cfg, site, e)
	t.Run("success", func(t *testing.T) { testSuccess(t, c) })
	t.Run("cancelled", func(t *testing.T) { testCancelled(t, c) })
	t.Run("killed", func(t *testing.T) { testKilled(t, c) })
	if err := c.close(); err != nil {
		t.Errorf("clear up: %v", err)
	}
	checkNothingLeft(t, site)
}

func newTestComparison(t *testing.T, cfg *Config, site *Site, e Engine) *comparison {
	c := &comparison{cfg: cfg, site: site, res: &Result{}, engines: []*subject{{engine: e, out: EngineResult{Name: e.Info().Name, Work: map[string]Samples{}}}}}
	var err error
	if c.plain, err = newSpawner(""); err != nil {
		t.Fatal(err)
	}
	if e.Info().HideUnified {
		if c.hidden, err = newSpawner(hiddenUnified()); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func testSuccess(t *testing.T, c *comparison) {
	s := c.engines[0]
	if _, err := c.firstRun(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	in, o, err := c.once(t.Context(), s, Job{List: "files", Status: 7})
	if err != nil {
		t.Fatal(err)
	}
	if o.status != 7 {
		t.Errorf("status %d, want the program's 7", o.status)
	}
	if o.reached.Before(in.began) || in.ended.Before(o.reached) {
		t.Errorf("began %v, reached %v, ended %v: not in that order", in.began, o.reached, in.ended)
	}
	if _, timed := o.own["files"]; len(o.begins) != 1 || len(o.ends) != 1 || !timed { // a coarse clock may say 0
		t.Errorf("the workload did not run: %+v", o)
	}
	if want := uint64(1 + 99*100/2); o.sum != want {
		t.Errorf("the workload came to %d, want %d", o.sum, want)
	}
}

// testCancelled ends an instance whose program would run for ever.
func testCancelled(t *testing.T, c *comparison) {
	ctx, cancel := context.WithCancelCause(t.Context())
	in := startIdle(t, c)
	pids := in.processes()
	if len(pids) == 0 {
		t.Error("a running instance has no process")
	}
	if m := memoryOf(pids, guestRAM{}, nil); m.Total() == 0 {
		t.Error("a running instance has no memory")
	}
	cancel(fmt.Errorf("the user has had enough"))
	if _, err := in.wait(ctx); err == nil || !strings.Contains(err.Error(), "had enough") {
		t.Errorf("got %v, want the reason of the end", err)
	}
	checkInstanceGone(t, c, in)
}

// testKilled: the engine's command dies by itself while the program runs, and
// leaves whatever it had started.
func testKilled(t *testing.T, c *comparison) {
	in := startIdle(t, c)
	if err := in.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := c.timed(t.Context())
	defer cancel()
	if _, err := in.wait(ctx); !errors.Is(err, errNoResult) {
		t.Errorf("got %v, want errNoResult", err)
	}
	checkInstanceGone(t, c, in)
}

// startIdle starts a program that would run for ever.
func startIdle(t *testing.T, c *comparison) *instance {
	t.Helper()
	ctx, cancel := c.timed(t.Context())
	defer cancel()
	in, err := c.launch(c.engines[0], Job{List: "idle"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.reach(ctx, 1); err != nil {
		in.kill()
		t.Fatal(err)
	}
	return in
}

// checkInstanceGone: nothing is left of an instance that has ended. Processes
// may still be waiting for who reaps them.
func checkInstanceGone(t *testing.T, c *comparison, in *instance) {
	t.Helper()
	gone := func() bool {
		return !commandLineHas(in.id) && !slices.ContainsFunc(mountsWith(t, in.id), func(string) bool { return true }) && len(cgroupsWith(t, c.site.Cgroup, in.id)) == 0
	}
	for deadline := time.Now().Add(10 * time.Second); !gone(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("left of %s: process %v, mounts %q, cgroups %q", in.id, commandLineHas(in.id), mountsWith(t, in.id), cgroupsWith(t, c.site.Cgroup, in.id))
			return
		}
	}
}

// mountsWith are the mount points with a word in their path.
func mountsWith(t *testing.T, word string) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && strings.Contains(f[1], word) {
			all = append(all, f[1])
		}
	}
	return all
}

// cgroupsWith are the cgroups below those called parent with a word in their
// name, in all hierarchies.
func cgroupsWith(t *testing.T, parent, word string) []string {
	t.Helper()
	mounts, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range mounts {
		found, err := filepath.Glob(filepath.Join(m, parent, "*"+word+"*"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

// checkNothingLeft looks for all that carries the site's name, and for network
// interfaces and clones' memory that were not there before.
func checkNothingLeft(t *testing.T, s *Site) {
	t.Helper()
	name := filepath.Base(s.Dir)
	deadline := time.Now().Add(10 * time.Second) // init may still be reaping
	for commandLineHas(name) && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if commandLineHas(name) {
		t.Error("a process is left")
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
	if left := mountsWith(t, name); len(left) > 0 {
		t.Errorf("mounts are left: %v", left)
	}
	if left := cgroupsWith(t, "", name); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}

// TestTimeOut: an engine that hangs is killed, and the error says so.
func TestTimeOut(t *testing.T) {
	cfg := Config{Runs: 1, Timeout: 100 * time.Millisecond, Budget: time.Minute}
	site, err := newSite(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	e := &process{}
	if err := e.Prepare(t.Context(), site); err != nil {
		t.Fatal(err)
	}
	c := newTestComparison(t, &cfg, site, e)
	defer func() {
		if err := c.close(); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, site)
	}()
	if _, _, err := c.once(t.Context(), c.engines[0], Job{List: "idle"}); err == nil || !strings.Contains(err.Error(), "time-out") {
		t.Errorf("got %v, want the time-out", err)
	}
}

// TestSameProgram: the committed program is what its source makes, where the
// compiler is the one that made it.
func TestSameProgram(t *testing.T) {
	want, err := os.ReadFile("probe/COMPILER")
	if err != nil {
		t.Fatal(err)
	}
	have, err := exec.Command("gcc", "--version").Output()
	if line, _, _ := strings.Cut(string(have), "\n"); err != nil || line != strings.TrimSpace(string(want)) {
		t.Skipf("the program was made by %q", strings.TrimSpace(string(want)))
	}
	out := filepath.Join(t.TempDir(), "probe")
	if b, err := exec.Command("sh", "probe/build.sh", out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	made, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(made, probe) {
		t.Error("probe/probe is not what probe/build.sh makes of probe/probe.c")
	}
}
