package compare

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// buildVitrine is the vitrine program and the kernel for machines, once.
var buildVitrine = sync.OnceValues(func() (Config, error) {
	dir, err := os.MkdirTemp("", "vitrine-compare-test-")
	if err != nil {
		return Config{}, err
	}
	bin := filepath.Join(dir, "vitrine")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/vitrine").CombinedOutput(); err != nil {
		return Config{}, fmt.Errorf("%w: %s", err, out)
	}
	return Config{Runs: 1, Timeout: 30 * time.Second, Budget: time.Minute, Memory: 128 << 20, Vitrine: bin, Kernel: os.Getenv("VITRINE_TEST_KERNEL")}, nil
})

// slow engines are tried where the user asks for it.
func skipSlow(t *testing.T, name string) {
	switch name {
	case "vitrine-kvm", "qemu", "firecracker", "cloud-hypervisor", "lkvm", "gokvm", "vitrine-warm", "vitrine-fork":
		if os.Getenv("VITRINE_SLOW") == "" {
			t.Skip("boots a machine under KVM: set VITRINE_SLOW=1")
		}
	}
}

// TestEngines is the conformance test that every engine passes where it works:
// it starts the program, passes on its output and status, can be killed while
// the program runs, and leaves nothing behind.
func TestEngines(t *testing.T) {
	cfg, err := buildVitrine()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(cfg.Vitrine)) })
	for _, e := range newEngines() {
		t.Run(e.Info().Name, func(t *testing.T) {
			skipSlow(t, e.Info().Name)
			if e.Info().Kind == KindMachine {
				cfg.Kernel = cfg.Vitrine // vitrine has its own, others are for VITRINE_SLOW
				if k := os.Getenv("VITRINE_TEST_KERNEL"); k != "" {
					cfg.Kernel = k
				}
			}
			testEngine(t, e, &cfg)
		})
	}
}

func testEngine(t *testing.T, e Engine, cfg *Config) {
	before := siteMounts(t)
	site, err := newSite(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Prepare(t.Context(), site); err != nil {
		e.Close()
		site.Close()
		t.Skipf("does not work here: %v", err)
	}
	c := newTestComparison(t, cfg, site, e)
	t.Run("success", func(t *testing.T) { testSuccess(t, c) })
	t.Run("cancelled", func(t *testing.T) { testCancelled(t, c) })
	if err := c.close(); err != nil {
		t.Errorf("clear up: %v", err)
	}
	checkNothingLeft(t, site, before)
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
	in, o, err := c.once(t.Context(), c.engines[0], Job{List: "files", Status: 7})
	if err != nil {
		t.Fatal(err)
	}
	if o.status != 7 {
		t.Errorf("status %d, want the program's 7", o.status)
	}
	if o.reached.Before(in.began) || in.ended.Before(o.reached) {
		t.Errorf("began %v, reached %v, ended %v: not in that order", in.began, o.reached, in.ended)
	}
	if len(o.begins) != 1 || len(o.ends) != 1 || o.own["files"] <= 0 {
		t.Errorf("the workload did not run: %+v", o)
	}
	if want := uint64(1 + 99*100/2); o.sum != want {
		t.Errorf("the workload came to %d, want %d", o.sum, want)
	}
}

// testCancelled ends an instance whose program would run for ever.
func testCancelled(t *testing.T, c *comparison) {
	ctx, cancel := context.WithCancelCause(t.Context())
	in, err := c.launch(c.engines[0], Job{List: "idle"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.reach(t.Context(), 1); err != nil {
		in.kill()
		t.Fatal(err)
	}
	pids := in.processes()
	if len(pids) == 0 {
		t.Error("a running instance has no process")
	}
	if m := memoryOf(pids, 0); m.Total() == 0 {
		t.Error("a running instance has no memory")
	}
	cancel(fmt.Errorf("the user has had enough"))
	if _, err := in.wait(ctx); err == nil || !strings.Contains(err.Error(), "had enough") {
		t.Errorf("got %v, want the reason of the end", err)
	}
}

// siteMounts are the mounts of comparisons.
func siteMounts(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && strings.Contains(f[1], "vitrine-compare-") {
			all = append(all, "mount "+f[1])
		}
	}
	return all
}

// checkNothingLeft looks for all that carries the site's name.
func checkNothingLeft(t *testing.T, s *Site, before []string) {
	t.Helper()
	name := filepath.Base(s.Dir)
	deadline := time.Now().Add(3 * time.Second) // init may still be reaping
	for commandLineHas(name) && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if commandLineHas(name) {
		t.Error("a process is left")
	}
	if _, err := os.Stat(s.Dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
	for _, m := range siteMounts(t) {
		if !slices.Contains(before, m) && strings.Contains(m, name) {
			t.Errorf("left: %s", m)
		}
	}
	mounts, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mounts {
		if left, _ := filepath.Glob(filepath.Join(m, name+"*")); len(left) > 0 {
			t.Errorf("cgroups are left: %v", left)
		}
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
		checkNothingLeft(t, site, nil)
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
