package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// measured is a comparison of a few engines, run once for all tests of reports.
var measured = sync.OnceValues(func() (*Result, error) {
	cfg, err := buildVitrine()
	if err != nil {
		return nil, err
	}
	cfg.Engines, cfg.Runs, cfg.Scale = []string{"process", "namespaces", "runc", "vitrine-soft", "lkvm"}, 2, []int{1, 2}
	return Run(context.Background(), cfg)
})

// TestGuestComparison: a whole comparison has all of each engine that works.
func TestGuestComparison(t *testing.T) {
	r, err := measured()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"process", "namespaces", "vitrine-soft"} {
		i := slices.IndexFunc(r.Engines, func(e EngineResult) bool { return e.Name == name })
		if i < 0 {
			t.Errorf("%s is missing; skipped are %v", name, r.Skipped)
			continue
		}
		e := r.Engines[i]
		if len(e.Start) != 2 || len(e.Exit) != 2 || len(e.Carry) != 2 || len(e.Failures) > 0 {
			t.Errorf("%s: %d starts, %d exits, failures %v, want 2, 2 and none", name, len(e.Start), len(e.Exit), e.Failures)
		}
		for _, w := range Workloads() {
			if v := e.Times(w); len(v) != 2 || v[0] <= 0 {
				t.Errorf("%s: workload %s took %v", name, w, v)
			}
		}
		if len(e.Scale) != 2 || e.Scale[1].Instances != 2 || e.Scale[1].Memory.Total() <= e.Scale[0].Memory.Total() {
			t.Errorf("%s: two instances do not take more than one: %+v", name, e.Scale)
		}
		if !slices.ContainsFunc(e.CPU, func(p CPUPoint) bool { return p.Host+p.Guest > 0.02 }) {
			t.Errorf("%s was never busy", name)
		}
		if e.Kind == KindMachine && e.Scale[0].Memory.GuestRAM == 0 {
			t.Errorf("%s has no guest RAM", name)
		}
	}
	for _, name := range r.unaccounted("process", "namespaces", "runc", "vitrine-soft", "lkvm") {
		t.Errorf("%s is neither measured nor skipped with a reason", name)
	}
}

// unaccounted are the names of which the result says nothing.
func (r *Result) unaccounted(names ...string) []string {
	return slices.DeleteFunc(names, func(n string) bool {
		return slices.ContainsFunc(r.Engines, func(e EngineResult) bool { return e.Name == n }) ||
			slices.ContainsFunc(r.Skipped, func(s Skipped) bool { return s.Engine == n && s.Reason != "" })
	})
}

// inspector is a script that writes into the page what a reader would see of
// each chart.
const inspector = `<script>
const seen = {};
for (const s of document.querySelectorAll("section[id]")) {
  const svg = s.querySelector("svg"), box = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll("path, circle, rect, line, polygon")].filter(m => { const b = m.getBoundingClientRect(); return b.width + b.height > 0; });
  const outside = [...svg.querySelectorAll("text")].filter(t => { const b = t.getBoundingClientRect(); return b.left < box.left - 1 || b.right > box.right + 1 || b.top < box.top - 1 || b.bottom > box.bottom + 1; });
  seen[s.id] = { width: box.width, height: box.height, marks: marks.length, texts: svg.querySelectorAll("text").length,
    outside: outside.map(t => t.textContent), caption: s.querySelector("figcaption").textContent.length };
}
const v = document.createElement("pre"); v.id = "verdict"; v.textContent = JSON.stringify(seen); document.body.append(v);
</script>`

// seenChart is what inspector saw.
type seenChart struct {
	Width, Height float64
	Marks, Texts  int
	Outside       []string
	Caption       int
}

func chromium(t *testing.T, args ...string) (out, console string) {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not on PATH")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, path, append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
		"--no-first-run", "--user-data-dir=" + t.TempDir(), "--enable-logging=stderr"}, args...)...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	if err := c.Run(); err != nil {
		t.Fatalf("chromium: %v: %s", err, lastWords(stderr.Bytes()))
	}
	for line := range strings.Lines(stderr.String()) {
		if strings.Contains(line, "CONSOLE") {
			console += line
		}
	}
	return stdout.String(), console
}

// TestReportInABrowser: the page shows every chart, with something in it,
// without an error, and nothing of it comes from elsewhere.
func TestReportInABrowser(t *testing.T) {
	r, err := measured()
	if err != nil {
		t.Fatal(err)
	}
	for _, lang := range Languages() {
		t.Run(lang, func(t *testing.T) {
			dir := t.TempDir()
			if err := WriteReport(dir, r, lang); err != nil {
				t.Fatal(err)
			}
			page, err := os.ReadFile(filepath.Join(dir, "index.html"))
			if err != nil {
				t.Fatal(err)
			}
			checkSelfContained(t, string(page))
			checkCharts(t, dir, page)
		})
	}
}

func checkSelfContained(t *testing.T, page string) {
	t.Helper()
	for _, word := range []string{`src="`, `href="http`, `url(`, `@import`} {
		if strings.Contains(page, word) {
			t.Errorf("the page has %s, so it needs more than itself", word)
		}
	}
}

func checkCharts(t *testing.T, dir string, page []byte) {
	t.Helper()
	watched := filepath.Join(dir, "watched.html")
	if err := os.WriteFile(watched, append(page, inspector...), 0o600); err != nil {
		t.Fatal(err)
	}
	dom, console := chromium(t, "--window-size=1100,1500", "--dump-dom", "file://"+watched)
	if console != "" {
		t.Errorf("the browser's console has: %s", console)
	}
	_, rest, found := strings.Cut(dom, `<pre id="verdict">`)
	verdict, _, _ := strings.Cut(rest, "</pre>")
	var charts map[string]seenChart
	if err := json.Unmarshal([]byte(verdict), &charts); err != nil || !found {
		t.Fatalf("no verdict in the page: %v", err)
	}
	for _, name := range chartNames() {
		c := charts[name]
		if c.Width < 300 || c.Height < 100 || c.Marks < 8 || c.Texts < 4 || c.Caption < 50 {
			t.Errorf("chart %s: %+v: too little to be seen", name, c)
		}
		if len(c.Outside) > 0 {
			t.Errorf("chart %s: texts are cut off: %q", name, c.Outside)
		}
		for _, ext := range []string{".svg", ".png"} {
			if info, err := os.Stat(filepath.Join(dir, name+ext)); err != nil || info.Size() < 1000 {
				t.Errorf("chart %s%s: %v", name, ext, err)
			}
		}
	}
}

// TestBrowserSeesErrors: the test above would notice one.
func TestBrowserSeesErrors(t *testing.T) {
	page := filepath.Join(t.TempDir(), "bad.html")
	if err := os.WriteFile(page, []byte(`<body><script>nothing.here()</script>`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, console := chromium(t, "--dump-dom", "file://"+page); !strings.Contains(console, "nothing is not defined") {
		t.Errorf("the console is %q, want the error of the script", console)
	}
}

// TestReportScreenshot takes the picture of a report; VITRINE_ARTEFACTS says
// where it is kept.
func TestReportScreenshot(t *testing.T) {
	r, err := measured()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := WriteReport(dir, r, "en"); err != nil {
		t.Fatal(err)
	}
	shot := filepath.Join(dir, "compare.png")
	if keep := os.Getenv("VITRINE_ARTEFACTS"); keep != "" {
		if err := os.MkdirAll(keep, 0o755); err != nil {
			t.Fatal(err)
		}
		shot = filepath.Join(keep, "compare.png")
	}
	chromium(t, "--window-size=1000,3200", "--screenshot="+shot, "file://"+filepath.Join(dir, "index.html"))
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	colours := make(map[any]bool)
	for y := 0; y < img.Bounds().Dy(); y += 3 {
		for x := 0; x < img.Bounds().Dx(); x += 3 {
			colours[img.At(x, y)] = true
		}
	}
	if img.Bounds().Dx() != 1000 || len(colours) < 20 {
		t.Errorf("a picture of %v with %d colours: not a report", img.Bounds(), len(colours))
	}
}
