package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// These benchmarks are of machines that do not boot, beside a plain process and,
// where it is on PATH and this user may run it, runc; in turns.

// starter is a way to start the program testdata/server.
type starter struct {
	name string
	args func(words ...string) []string // its command line with the program's arguments
}

// starters are a plain process, and runc with a container that has the host's
// network.
func starters(b *testing.B, binary string) []starter {
	b.Helper()
	all := []starter{{"process", func(words ...string) []string { return append([]string{binary}, words...) }}}
	if _, err := exec.LookPath("runc"); err != nil {
		b.Log("runc is left out: it is not on PATH")
		return all
	}
	dir := b.TempDir()
	n := 0
	runc := starter{"runc", func(words ...string) []string {
		writeBundle(b, dir, binary, words)
		n++
		return []string{"runc", "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, fmt.Sprintf("bench-%d-%d", os.Getpid(), n)}
	}}
	args := runc.args("exit")
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		b.Logf("runc is left out: %v: %s", err, out)
		return all
	}
	return append(all, runc)
}

// writeBundle makes dir a container's bundle with the program.
func writeBundle(b *testing.B, dir, binary string, words []string) {
	b.Helper()
	root := filepath.Join(dir, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		b.Fatal(err)
	}
	_ = os.Link(binary, filepath.Join(root, "server"))
	config := filepath.Join(dir, "config.json")
	_ = os.Remove(config)
	if out, err := exec.Command("runc", "spec", "--bundle", dir).CombinedOutput(); err != nil {
		b.Fatalf("runc spec: %v: %s", err, out)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		b.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(text, &c); err != nil {
		b.Fatal(err)
	}
	process, linux := c["process"].(map[string]any), c["linux"].(map[string]any)
	process["args"], process["terminal"] = append([]string{"/server"}, words...), false
	var kept []any
	for _, n := range linux["namespaces"].([]any) {
		if n.(map[string]any)["type"] != "network" {
			kept = append(kept, n)
		}
	}
	linux["namespaces"] = kept
	if text, err = json.Marshal(c); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(config, text, 0o600); err != nil {
		b.Fatal(err)
	}
}

// benchProgram builds vitrine as it is released.
func benchProgram(b *testing.B) string {
	b.Helper()
	b.Setenv("VITRINE_CACHE", b.TempDir())
	b.Setenv("VITRINE_STATE", filepath.Join(b.TempDir(), "run"))
	path := filepath.Join(b.TempDir(), "vitrine")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Skipf("build vitrine: %v\n%s", err, out)
	}
	return path
}

// BenchmarkWarm is a command that ends at once: from exec to exit, and where
// the time goes of a machine of 256 MiB that is restored for it.
func BenchmarkWarm(b *testing.B) {
	program, binary := benchProgram(b), buildServer(b)
	others := starters(b, binary)
	warm := func() (out []byte, took time.Duration) {
		began := time.Now()
		out, err := exec.Command(program, "run", "--accel", "soft", "--warm", "--timings", "--", "true").CombinedOutput()
		if err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		return out, time.Since(began)
	}
	warm() // boots
	values := make(map[string][]float64)
	add := func(name string, ms float64) { values[name] = append(values[name], ms) }
	for b.Loop() {
		for _, s := range others {
			args := s.args("exit")
			began := time.Now()
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				b.Fatalf("%q: %v\n%s", args, err, out)
			}
			add(s.name+"-ms", inMS(time.Since(began)))
		}
		out, took := warm()
		add("warm-ms", inMS(took))
		for phase, name := range map[string]string{"main": "warm-main-ms", "snapshot read": "warm-read-ms", "first KVM_RUN": "warm-runs-ms", "new settings": "warm-settings-ms"} {
			add(name, timing(b, out, phase))
		}
	}
	for name, v := range values {
		b.ReportMetric(median(v), name)
	}
}

func inMS(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// BenchmarkServer is from exec to the first answer of a web server.
func BenchmarkServer(b *testing.B) {
	program, binary := benchProgram(b), buildServer(b)
	disk := serverDisk(b, binary)
	others := starters(b, binary)
	warm := starter{"warm", func(words ...string) []string {
		return append([]string{program, "run", "--accel", "soft"}, serverArgs(disk, words[0])...)
	}}
	for first := true; keptMachines(b) == 0; first = false { // boots
		if !first {
			b.Fatal("the machine is not kept")
		}
		firstAnswer(b, warm, func() bool { return keptMachines(b) > 0 })
	}
	values := make(map[string][]float64)
	for b.Loop() {
		for _, s := range append(others, warm) {
			values[s.name] = append(values[s.name], inMS(firstAnswer(b, s, nil)))
		}
	}
	for name, v := range values {
		b.ReportMetric(median(v), name+"-ms")
	}
}

// firstAnswer starts a server, waits for an answer, and then until it may end.
func firstAnswer(b *testing.B, s starter, until func() bool) time.Duration {
	b.Helper()
	address := freeAddress(b)
	args := s.args(address)
	cmd := exec.Command(args[0], args[1:]...)
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ask(b, address)
	took := time.Since(began)
	for limit := time.Now().Add(time.Minute); until != nil && !until() && time.Now().Before(limit); {
		time.Sleep(5 * time.Millisecond)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	return took
}

// forks is how many clones BenchmarkForks makes.
const forks = 100

// BenchmarkForks is a hundred clones of a machine of 256 MiB: the time for
// each, and its share of the host's memory after a command in each.
func BenchmarkForks(b *testing.B) {
	program := benchProgram(b)
	do := func(args ...string) string {
		out, err := exec.Command(program, args...).Output()
		if err != nil {
			b.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	do("run", "-d", "--accel", "soft", "--name", "m")
	defer do("kill", "m")
	do("exec", "m", "true")
	var each, own []float64
	for b.Loop() {
		began := time.Now()
		names := strings.Fields(do("fork", "m", "-n", fmt.Sprint(forks)))
		each = append(each, inMS(time.Since(began))/forks)
		for _, n := range names {
			do("exec", n, "true")
		}
		var sum uint64
		for line := range strings.Lines(do("stats", "--json")) {
			var s struct {
				Name   string
				Memory struct{ PSS uint64 }
			}
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				b.Fatal(err)
			}
			if s.Name != "m" {
				sum += s.Memory.PSS
			}
		}
		own = append(own, float64(sum)/forks/(1<<20))
		for _, n := range names {
			do("kill", n)
		}
	}
	b.ReportMetric(median(each), "ms/fork")
	b.ReportMetric(median(own), "MiB/fork")
}
