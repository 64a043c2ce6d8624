package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func TestEveryFlagOfAMachineIsAField(t *testing.T) {
	var out bytes.Buffer
	if got := run(context.Background(), []string{"vitrine", "config", "schema"}, nil, &out, io.Discard); got != 0 {
		t.Fatalf("status %d", got)
	}
	var schema struct {
		Defs map[string]struct{ Properties map[string]any } `json:"$defs"`
	}
	if err := json.Unmarshal(out.Bytes(), &schema); err != nil {
		t.Fatal(err)
	}
	fields := schema.Defs["machine"].Properties
	for _, f := range runFlags() {
		name := f.Names()[0]
		if _, ok := fields[name]; ok == slices.Contains(notFields, name) {
			t.Errorf("--%s: a field: %v", name, ok)
		}
	}
	for name := range fieldNotes {
		if _, ok := fields[name]; !ok {
			t.Errorf("note about %s, which is no flag", name)
		}
	}
}

func TestFlagsBecomeAFileAndBack(t *testing.T) {
	dir := t.TempDir()
	disk := filepath.Join(dir, "a,b.img")
	if err := os.WriteFile(disk, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--name", "x", "--memory", "96M", "--cpus", "2", "--balloon", "--disk", strings.ReplaceAll(disk, ",", ",,") + ",ro",
		"--net", "user,group=g", "--net", "user", "--append", "a=$x", "--publish", "8080:80"}
	print := func(args ...string) string {
		var out, errOut bytes.Buffer
		args = append(append([]string{"vitrine", "run", "--print-config"}, args...), "--", "echo", "${HOME}")
		if got := run(context.Background(), args, nil, &out, &errOut); got != 0 {
			t.Fatalf("status %d, %s", got, errOut.String())
		}
		return out.String()
	}
	first := print(flags...)
	file := filepath.Join(dir, "machine.yaml")
	if err := os.WriteFile(file, []byte(first), 0o600); err != nil {
		t.Fatal(err)
	}
	if second := print("--config", file); second != first {
		t.Errorf("\n%s\nbecame\n%s", first, second)
	}
	if got := print("--config", file, "--memory", "1G"); !strings.Contains(got, "memory: 1G") || strings.Contains(got, "96M") {
		t.Errorf("the flag does not win: %s", got)
	}
}

func TestMistakesInMachineFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bad.yaml")
	text := "machines:\n  web:\n    cpus: 99\n    memory: lots\n    disk: [{file: a.img, format: vmdk}]\n  db:\n    root: id=missing\n  cache:\n    vsock: x\n    transport: pci\n    kernel: lean\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	if got := run(context.Background(), []string{"vitrine", "config", "check", file}, nil, io.Discard, &errOut); got == 0 {
		t.Error("status 0")
	}
	lines := strings.Split(strings.TrimSpace(errOut.String()), "\n")
	for i, want := range []string{
		"line 3: machines.web.cpus: ", "line 4: machines.web.memory: ", "line 5: machines.web.disk[0]: ", "line 7: machines.db.root: ", "line 10: machines.cache.transport: ",
	} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], file+": "+want) {
			t.Errorf("want %s\n%s", want, errOut.String())
			break
		}
	}
}

func TestLogsOfAFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skipf("no disk that is full: %v", err)
	}
	f := newLogFile("/dev/full", 1<<20)
	for range 3 {
		if n, err := f.Write([]byte("guest output\n")); n != 13 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	_ = f.w.Close()
	path := filepath.Join(t.TempDir(), "log")
	f.w.Filename = path // room again
	_, _ = f.Write([]byte("more\n"))
	f.Close()
	if got, err := os.ReadFile(path); err != nil || string(got) != lostNote+"more\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestLogsAreTurnedOverAndReadInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.log")
	f := newLogFile(path, 1<<20)
	line := strings.Repeat("x", 1023) + "\n"
	for i := range 1500 {
		_, _ = io.WriteString(f, line[:1019]+string([]byte{'0' + byte(i/1000), '0' + byte(i/100%10), '0' + byte(i/10%10), '0' + byte(i%10)})+"\n")
	}
	f.Close()
	var out bytes.Buffer
	if err := printOldLogs(&out, path); err != nil {
		t.Fatal(err)
	}
	follow := &follower{path: path, out: &out}
	defer follow.close()
	if err := follow.step(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 1500 || !slices.IsSorted(lines) {
		t.Errorf("%d lines, sorted %v", len(lines), slices.IsSorted(lines))
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 2 {
		t.Errorf("%d files", len(entries))
	}
}

func TestNamesAreMadeUp(t *testing.T) {
	d, err := control.OpenDir(filepath.Join(t.TempDir(), "run"))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for range 50 {
		c, err := claimName(d, "")
		if err != nil {
			t.Fatal(err)
		}
		if seen[c.Name()] {
			t.Fatalf("%s twice", c.Name())
		}
		seen[c.Name()] = true
	}
}

func TestCompletionSuggestsMachines(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	t.Setenv("VITRINE_STATE", dir)
	d, err := control.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Claim("web")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	if err := c.Update(func(r *control.Record) { r.State = control.StateRunning }); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{"exec": "web\n", "stop": "web\n", "cp": "web:\n"} {
		var out bytes.Buffer
		run(context.Background(), []string{"vitrine", command, "--generate-bash-completion"}, nil, &out, io.Discard)
		if out.String() != want {
			t.Errorf("%s: %q", command, out.String())
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out bytes.Buffer
		if got := run(context.Background(), []string{"vitrine", "completion", shell}, nil, &out, io.Discard); got != 0 || !strings.Contains(out.String(), "--generate-bash-completion") {
			t.Errorf("%s: status %d", shell, got)
		}
	}
}

func TestTimesToWait(t *testing.T) {
	for text, want := range map[string]time.Duration{"10s": 10 * time.Second, "1m30s": 90 * time.Second, "5": 5 * time.Second, "0": 0} {
		if got, err := parseWait(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "soon", "-1s", "-5", "1e9"} {
		if got, err := parseWait(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
