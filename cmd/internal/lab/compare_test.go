package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm/compare"
)

// rightAnswers are what a comparison says, for the form of the exercise.
func rightAnswers(data string, all []reading) string {
	plain, soft := find(all, enginePlain), find(all, engineSoft)
	sign := "<"
	if plain.start.High >= soft.start.Low {
		sign = "="
	}
	return fmt.Sprintf("data: %s\nmedian process: %g\nmedian vitrine-soft: %g\nboot: %g\norder: process %s vitrine-soft\ntenth process: %g\ntenth vitrine-soft: %g\n",
		data, plain.start.Median/1e6, soft.start.Median/1e6, (soft.start.Median-plain.start.Median)/1e6, sign, plain.tenth(), soft.tenth())
}

// The lab works where there is nothing but processes and the software CPU: a
// comparison is measured, and what it says is taken for right.
func TestLab10WithAComparisonOfThisHost(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("comparisons are measured on Linux only")
	}
	dir := t.TempDir()
	vitrine := filepath.Join(dir, "vitrine")
	if out, err := exec.Command("go", "build", "-o", vitrine, "../../vitrine").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	kernel, err := guestimages.Path(dir, guestimages.KernelLean)
	if err != nil {
		t.Fatal(err)
	}
	measure := func(ctx context.Context) (*compare.Result, error) {
		cfg := compare.Config{Engines: []string{enginePlain, engineSoft}, Workloads: []string{"cpu"}, Runs: 2, Scale: []int{1},
			Timeout: time.Minute, Budget: 10 * time.Second, Vitrine: vitrine, Kernel: kernel, KernelWords: strings.Fields(guestimages.FewerInstructions)}
		if err := cfg.Check(); err != nil {
			return nil, err
		}
		return compare.Run(ctx, cfg)
	}
	r, err := measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "mine.json")
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	right := rightAnswers(file, readings(r))
	if broken, err := judgeCompare(t.Context(), []byte(right), Options{}); err != nil || len(broken) > 0 {
		t.Errorf("%v, %q: %s", err, broken, right)
	}
	b.Reset()
	if err := runCompare(t.Context(), []byte(right), Options{}, &b); err != nil || !strings.Contains(b.String(), "times a process's") {
		t.Errorf("%v: %s", err, b.String())
	}
}

func TestAnswerFilesAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"data: recording\nspeed: 1\n":          `"speed: 1" is no answer`,
		"data: recording\nboot: 1\nboot: 2\n":  "boot is answered twice",
		"data: measure\n":                      "data: mine.json",
		"data: recording\norder\n":             `"order" is no answer`,
		"data: recording\nmedian  process: ?#": "median process is not answered",
	} {
		broken, err := judgeCompare(t.Context(), []byte(text), Options{})
		if err != nil || !strings.Contains(strings.Join(broken, "\n"), want) {
			t.Errorf("%q: %q, %v; want %q", text, broken, err, want)
		}
	}
	for text, want := range map[string]string{
		"boot: 1\n":                 "do not say what they are about",
		"data: /nonexistent/a.json": "no such file",
		"data: compare_test.go\n":   "not a comparison",
	} {
		if _, err := judgeCompare(t.Context(), []byte(text), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
	if err := runCompare(t.Context(), []byte("data: measure"), Options{}, new(bytes.Buffer)); err == nil {
		t.Error("measured without a way to")
	}
}
