package compare

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// someResult is a comparison with one engine of each kind, and one that failed.
func someResult() *Result {
	times := func(ms ...float64) []float64 {
		for i := range ms {
			ms[i] *= 1e6
		}
		return ms
	}
	engine := func(name string, kind Kind, factor float64) EngineResult {
		e := EngineResult{Name: name, Title: name, Kind: kind, Version: "1", FS: "tmpfs", Work: make(map[string]Samples),
			Start: times(1*factor, 1.1*factor, 1.2*factor), Exit: times(2*factor, 2.1*factor, 2.2*factor), Carry: times(0.01, 0.01, 0.01),
			Disk: []DiskItem{{Kind: "engine", Path: "/bin/" + name, Bytes: 3 << 20}}}
		for _, w := range Workloads() {
			e.Work[w] = Samples{Own: times(5.00001, 5.1, 5.2), Host: times(5.1, 5.2, 5.3)}
		}
		for n := 1; n <= 4; n *= 2 {
			e.Scale = append(e.Scale, ScalePoint{Instances: n, Start: times(factor), Memory: Memory{Private: uint64(n) << 20, Daemons: 7 << 20}})
		}
		for i := range 20 {
			e.CPU = append(e.CPU, CPUPoint{At: float64(i) * 1e8, Host: 0.5, Guest: 0.25})
		}
		return e
	}
	return &Result{Format: resultFormat, When: time.Unix(1700000000, 0).UTC(), Took: time.Minute, Vitrine: "1",
		Host:     Host{CPU: "some <CPU>", CPUs: 2, Memory: 4 << 30, Kernel: "6.1", KVM: "none", Cgroups: "v2"},
		Options:  Options{Runs: 3, Workloads: Workloads(), Scale: []int{1, 2, 4}, Memory: 128 << 20, PageCache: "warm", Budget: time.Minute, Timeout: time.Minute},
		Engines:  []EngineResult{engine("process", KindProcess, 1), engine("runc", KindContainer, 20), engine("qemu", KindMachine, 300)},
		Skipped:  []Skipped{{Engine: "lkvm", Reason: "lkvm is not on PATH"}},
		Warnings: []string{"the host was <busy>"}}
}

func TestTable(t *testing.T) {
	for lang, words := range map[string][]string{
		"en": {"start to exit", "22.0 ms [20.0–24.0]", "5.10 ms [5.00–5.20]", "1.0 MiB (+ 7.0 MiB)", "3.0 MiB", "! the host was <busy>", "lkvm is not on PATH", "Medians"},
		"ko": {"시작 시간", "22.0 ms", "시스템 호출", "측정하지 못한 것", "중앙값"},
	} {
		var b bytes.Buffer
		if err := WriteTable(&b, someResult(), lang); err != nil {
			t.Fatal(err)
		}
		for _, w := range words {
			if !strings.Contains(b.String(), w) {
				t.Errorf("%s: no %q in\n%s", lang, w, b.String())
			}
		}
	}
}

// TestTableColumns: every row's cells begin in the same columns, also beside
// Hangul, which is twice as wide.
func TestTableColumns(t *testing.T) {
	var b bytes.Buffer
	if err := WriteTable(&b, someResult(), "ko"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	at := func(line, word string) int {
		before, _, found := strings.Cut(line, word)
		if !found {
			t.Fatalf("no %q in %q", word, line)
		}
		return cellWidth(before)
	}
	if head, row := at(lines[0], "시작부터"), at(lines[1], "2.10 ms"); head != row {
		t.Errorf("the heading is in column %d, its cell in %d", head, row)
	}
}

// TestWrongClock: where the program's clock is coarse, or disagrees, the
// host's counts.
func TestWrongClock(t *testing.T) {
	for _, c := range []struct {
		name      string
		own, host []float64
		good      bool
	}{
		{"coarse", []float64{10e6, 20e6}, []float64{14e6, 16e6}, false},
		{"slow", []float64{50.5e6, 51.5e6}, []float64{100.1e6, 101.1e6}, false},
		{"as good as the host's", []float64{5.1234e6, 5.2345e6}, []float64{5.3e6, 5.4e6}, true},
		{"stamped late", []float64{16.1e6, 15.9e6}, []float64{10e3, 30.5e6}, true},
		{"nothing", nil, nil, false},
	} {
		e := EngineResult{Work: map[string]Samples{"cpu": {Own: c.own, Host: c.host}}}
		if e.OwnClock() != c.good {
			t.Errorf("%s: OwnClock is %v, want %v", c.name, !c.good, c.good)
		}
		want := c.host
		if c.good {
			want = c.own
		}
		if got := e.Times("cpu"); len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%s: the times are %v, want %v", c.name, got, want)
		}
	}
	e := EngineResult{Work: map[string]Samples{"cpu": {Own: []float64{0, 0}, Host: []float64{0, 5e6}}}}
	if got := e.Times("cpu"); got[0] != leastBetweenMarks || got[1] != 5e6 {
		t.Errorf("marks that came in one piece: %v", got)
	}
}

// TestReportAgain: what a report keeps draws the same report.
func TestReportAgain(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	if err := WriteReport(first, someResult(), "en"); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(first, "compare.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteReport(second, r, "en"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(first)
	if err != nil || len(entries) != 2+2*len(chartNames()) {
		t.Fatalf("%d files in the report (%v), want the page, the data, and two for each chart", len(entries), err)
	}
	for _, e := range entries {
		a, _ := os.ReadFile(filepath.Join(first, e.Name()))
		b, _ := os.ReadFile(filepath.Join(second, e.Name()))
		if !bytes.Equal(a, b) {
			t.Errorf("%s is not the same", e.Name())
		}
	}
	page, _ := os.ReadFile(filepath.Join(first, "index.html"))
	for _, w := range []string{"some &lt;CPU&gt;", "the host was &lt;busy&gt;", "lkvm is not on PATH", "textLength"} {
		if !bytes.Contains(page, []byte(w)) {
			t.Errorf("the page has no %q", w)
		}
	}
}

// TestEmptyReport: a comparison in which nothing worked has a report too.
func TestEmptyReport(t *testing.T) {
	r := someResult()
	r.Engines = nil
	if err := WriteReport(t.TempDir(), r, "en"); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := WriteTable(&b, r, "en"); err != nil || !strings.Contains(b.String(), "lkvm is not on PATH") {
		t.Errorf("%v: %s", err, b.String())
	}
}

func TestReadRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"no JSON", "hello", "not a comparison"},
		{"another format", `{"format": 99}`, "format 99"},
		{"a negative time", `{"format": 1, "engines": [{"name": "x", "kind": "process", "start": [-1]}]}`, "damaged"},
		{"no instances", `{"format": 1, "engines": [{"name": "x", "kind": "process", "scale": [{"instances": 0}]}]}`, "damaged"},
		{"another kind", `{"format": 1, "engines": [{"name": "x", "kind": "y"}]}`, "damaged"},
		{"too much memory", `{"format": 1, "engines": [{"name": "x", "kind": "process", "scale": [{"instances": 1, "memory": {"private": 18446744073709551615}}]}]}`, "damaged"},
		{"an endless time", `{"format": 1, "engines": [{"name": "x", "kind": "process", "start": [1e300]}]}`, "damaged"},
		{"a mad CPU", `{"format": 1, "engines": [{"name": "x", "kind": "process", "cpu": [{"at": 0, "host": -3}]}]}`, "damaged"},
		{"a file of less than nothing", `{"format": 1, "engines": [{"name": "x", "kind": "process", "disk": [{"bytes": -3}]}]}`, "damaged"},
	} {
		if _, err := Read(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// FuzzRead: whatever a file says, it is refused, or drawn without a panic.
func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := someResult().WriteJSON(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"format": 1, "options": {"workloads": ["cpu", "x"]}, "engines": [{"name": "x", "kind": "process", "start": [0], "work": {"x": {"own": [1]}}, "scale": [{"instances": 1}]}]}`))
	f.Add([]byte(`{"format":1,"options":{"workloads":["cpu"]},"engines":[{"name":"x","kind":"machine","start":[0],"work":{"cpu":{"own":[0],"host":[0]}},"scale":[{"instances":1}],"disk":[{"bytes":0}],"cpu":[{"at":1},{"at":9e14,"host":9e3}]}]}`))
	f.Add([]byte(`{"format":1,"engines":[{"name":"x","kind":"container","start":[9e15],"scale":[{"instances":900000,"start":[1],"memory":{"private":99999999999999}}],"disk":[{"kind":"engine","bytes":900000000000000}],"cpu":[{"at":-9e14},{"at":-9e14}]}]}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := Read(bytes.NewReader(p))
		if err != nil {
			return
		}
		if len(r.Engines) > 20 || len(p) > 100<<10 {
			return // slow, not wrong
		}
		if err := WriteTable(new(bytes.Buffer), r, "ko"); err != nil {
			t.Error(err)
		}
		figures, err := charts(r, wordsOf("en"))
		if err != nil {
			return
		}
		for name, c := range figures {
			if _, err := c.svg(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
