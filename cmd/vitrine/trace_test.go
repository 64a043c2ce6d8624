package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// vitrine runs a command line and returns what became of it.
func vitrine(in io.Reader, args ...string) (status int, stdout, stderr string) {
	var o, e syncBuffer
	status = run(context.Background(), append([]string{"vitrine"}, args...), in, &o, &e)
	return status, o.String(), e.String()
}

// watched are the arguments for a tiny machine of a command that watches one.
func watched(t *testing.T, command, accel string, code ...[]byte) []string {
	t.Helper()
	return []string{command, "--net", "none", "--memory", "16M", "--accel", accel, "--kernel", tinyKernel(t, code...)}
}

func TestTraceOfAMachineOfItsOwn(t *testing.T) {
	eachAccel(t, func(t *testing.T, accel string) {
		t.Setenv("VITRINE_STATE", t.TempDir())
		dir := t.TempDir()
		file := func(name string) string { return filepath.Join(dir, name) }
		args := append(watched(t, "trace", accel, out(0x3f8, 'H'), out(0x510, 1), powerOff, forever), "--why", "--summary",
			"--perfetto", file("p.json"), "--pcap", file("n.pcap"), "--output", file("t.txt"))
		if status, o, e := vitrine(nil, args...); status != 0 || o != "H" {
			t.Fatalf("%d %q %q", status, o, e)
		}
		text, err := os.ReadFile(file("t.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"IO out 0x3f8 ← 'H' (COM1 THR)", "rip=0x1000", "in the VMM", "(debug port mark: user space reached)",
			"↳ The guest's serial driver", "the machine ended: power-off", "write COM1 THR", "user space", "vcpu0"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %q in\n%s", want, text)
			}
		}
		b, err := os.ReadFile(file("p.json"))
		if err != nil || !json.Valid(b) {
			t.Errorf("the Perfetto file: %v", err)
		}
		if info, err := os.Stat(file("n.pcap")); err != nil || info.Size() != 24 {
			t.Errorf("the pcap file: %v", err)
		}
	})
}

func TestTraceAsJSONWithAFilter(t *testing.T) {
	t.Setenv("VITRINE_STATE", t.TempDir())
	args := append(watched(t, "trace", anyAccel(t), out(0x3f8, 'H'), out(0x80, 1), powerOff, forever), "--json", "--filter", "port=0x3f8")
	status, _, e := vitrine(nil, args...)
	var l struct{ Kind, Device, What, Text string }
	if err := json.Unmarshal([]byte(withoutAdvice(e)), &l); status != 0 || err != nil || l.Device != "COM1" || l.What != "THR" {
		t.Fatalf("%d %v %q", status, err, e)
	}
}

func TestMistakesInTraces(t *testing.T) {
	t.Setenv("VITRINE_STATE", t.TempDir())
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"trace", "--filter", "io and prt=1", "x"}, statusUsage, "  io and prt=1\n         ^"},
		{[]string{"trace", "--symbols", "/nonexistent", "x"}, statusFailure, "--symbols"},
		{[]string{"trace", "absent"}, statusFailure, "absent"},
		{[]string{"trace", "a", "b"}, statusUsage, "unexpected argument"},
		{[]string{"trace", "a", "--", "ls"}, statusUsage, "takes no command"},
		{[]string{"trace", "--json", "--why"}, statusUsage, "--why"},
		{[]string{"trace", "--detach", "--kernel", tinyKernel(t, powerOff)}, statusUsage, "--detach"},
		{[]string{"record"}, statusUsage, "a recording needs a file"},
		{[]string{"replay"}, statusUsage, "one recording"},
		{[]string{"replay", tinyKernel(t, powerOff)}, statusFailure, "not a recording"},
		{[]string{"run", "--gdb", "nonsense:port", "--kernel", tinyKernel(t, powerOff)}, statusFailure, "--gdb"},
		{[]string{"run", "--on-crash", "dance", "--kernel", tinyKernel(t, powerOff)}, statusUsage, "--on-crash"},
	} {
		status, _, e := vitrine(strings.NewReader(""), c.args...)
		if status != c.status || !strings.Contains(e, c.want) {
			t.Errorf("%v: %d %q; want %d and %q", c.args, status, e, c.status, c.want)
		}
	}
}

func TestRecordAndReplayByTheCommandLine(t *testing.T) {
	t.Setenv("VITRINE_STATE", t.TempDir())
	file := filepath.Join(t.TempDir(), "r.vt")
	args := append(watched(t, "record", anyAccel(t), out(0x3fb, 0x80), out(0x3f8, 12), out(0x3fb, 3), out(0x3f8, 'H'), powerOff, forever), "--output", file)
	if status, o, e := vitrine(nil, args...); status != 0 || o != "H" || !strings.Contains(e, "events in") {
		t.Fatalf("%d %q %q", status, o, e)
	}
	if status, o, e := vitrine(nil, "replay", "--check", file); status != 0 || !strings.Contains(o, "0 reads and 0 devices differ") {
		t.Fatalf("check: %d %q %q", status, o, e)
	}
	if status, o, _ := vitrine(nil, "replay", "--list", "--filter", "COM1", file); status != 0 || strings.Count(o, "COM1") != 4 {
		t.Errorf("list: %d %q", status, o)
	}
	if status, o, _ := vitrine(nil, "replay", "--at", "2", "--device", "COM1", file); status != 0 || !strings.Contains(o, `"dll": 12`) {
		t.Errorf("at: %d %q", status, o)
	}
	status, o, _ := vitrine(strings.NewReader("h\nn 2\ns COM1\nb 2\ns COM1\nf value=H\nl\nd\ng 1h\ns nothing\nnonsense\nf absent\nq\n"), "replay", file)
	for _, want := range []string{"go back one event", "0> ", "2> ", "COM1 LCR: 5N1 DLAB", `"lcr": 128`, "'H' (COM1 THR)", "power off", "i8042", `no device "nothing"`, `no command "nonsense"`, "no more of them"} {
		if status != 0 || !strings.Contains(o, want) {
			t.Errorf("no %q in %d\n%s", want, status, o)
		}
	}
}

// A running machine is looked into over its control socket.
func TestLooksIntoARunningMachine(t *testing.T) {
	state := t.TempDir()
	t.Setenv("VITRINE_STATE", state)
	accel := anyAccel(t)
	ended := make(chan int, 1)
	go func() {
		status, _, _ := vitrine(nil, append(watched(t, "run", accel, times(1<<31, out(0x80, 1)), powerOff, forever), "--name", "busy", "--console", "none")...)
		ended <- status
	}()
	waitFor(t, func() bool { _, o, _ := vitrine(nil, "ps"); return strings.Contains(o, "running") })

	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"cpu"}, "64-bit mode"}, {[]string{"memory"}, "E820"}, {[]string{"memory", "0x100078"}, "0000000000100078"},
		{[]string{"pagetable", "0x100000"}, "PML4[0]"}, {[]string{"queues"}, "rng"}, {[]string{"pci"}, "host bridge"}, {[]string{"acpi"}, "FACP"},
		{[]string{"irq"}, "local APIC"}, {[]string{"cpuid"}, "vendor"}, {[]string{"disasm", "0x100078"}, "mov ecx"},
	} {
		status, o, e := vitrine(nil, append([]string{"inspect", "busy"}, c.args...)...)
		if status != 0 || !strings.Contains(o, c.want) {
			t.Errorf("%v: %d %q %q", c.args, status, o, e)
		}
	}
	if status, o, _ := vitrine(nil, "inspect", "--json", "busy", "cpu"); status != 0 || !json.Valid([]byte(o)) {
		t.Errorf("json: %d %q", status, o)
	}
	for _, args := range [][]string{{"pagetable"}, {"pagetable", "nowhere"}, {"cpu", "7"}, {"memory", "0x7fffffffffff"}, {"nonsense"}, {"irq", "3"}, {"queues", "absent"}} {
		if status, o, e := vitrine(nil, append([]string{"inspect", "busy"}, args...)...); status == 0 || e == "" {
			t.Errorf("%v: %d %q %q", args, status, o, e)
		}
	}

	var o, e syncBuffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	traced := make(chan int, 1)
	go func() { traced <- run(ctx, []string{"vitrine", "trace", "--why", "--summary", "busy"}, nil, &o, &e) }()
	waitFor(t, func() bool { return strings.Contains(o.String(), "POST code") })
	if status, _, e := vitrine(nil, "kill", "busy"); status != 0 {
		t.Errorf("kill: %q", e)
	}
	<-ended
	if status := <-traced; status != 0 || !strings.Contains(o.String(), "the machine ended: stopped: killed") {
		t.Errorf("trace: %d %q\n%s", status, e.String(), o.String()[max(0, len(o.String())-2000):])
	}
	if status, _, e := vitrine(nil, "inspect", "busy", "cpu"); status == 0 || !strings.Contains(e, "busy") {
		t.Errorf("a dead machine: %d %q", status, e)
	}
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(acceltest.Limit(time.Minute)); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for nothing")
		}
	}
}

// A core of a guest that crashed has its memory and its registers.
func TestCoreOfACrash(t *testing.T) {
	eachAccel(t, func(t *testing.T, accel string) {
		t.Setenv("VITRINE_STATE", t.TempDir())
		file := filepath.Join(t.TempDir(), "core")
		status, _, e := vitrine(nil, append(watched(t, "run", accel, out(0x3f8, 'x'), invalid), "--on-crash", "core="+file)...)
		b, err := os.ReadFile(file)
		if status != statusCrash || err != nil || !bytes.HasPrefix(b, []byte("\x7fELF")) || !strings.Contains(e, file) {
			t.Fatalf("%d %v %q", status, err, e)
		}
		if !strings.Contains(e, "last events:\n  IO out 0x3f8 ← 'x' (COM1 THR)") {
			t.Errorf("no events in\n%s", e)
		}
	})
}

// TestTraceOfInstructions: by their function, as text, as JSON and with all
// registers, without saying that it takes the software CPU.
func TestTraceOfInstructions(t *testing.T) {
	acceltest.Only(t, acceltest.Soft, "KVM shows no single instructions")
	t.Setenv("VITRINE_STATE", t.TempDir())
	table := filepath.Join(t.TempDir(), "System.map")
	if err := os.WriteFile(table, []byte("0000000000100000 T begin\n0000000000200000 T other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := func(more ...string) []string {
		return append([]string{"trace", "--instructions", "--memory", "16M", "--net", "none", "--symbols", table, "--kernel", tinyKernel(t, out(0x3f8, 'H'), powerOff, forever)}, more...)
	}
	status, o, e := vitrine(nil, args("--filter", "instruction symbol=begin mode=long cpl=0")...)
	if status != 0 || o != "H" || !strings.Contains(e, "<begin+") || !strings.Contains(e, "rdx 0x0→0x3f8") || strings.Contains(e, "IO out") {
		t.Errorf("%d %q\n%s", status, o, e)
	}
	if status, _, e := vitrine(nil, args("--filter", "instruction symbol=other")...); status != 0 || e != "" {
		t.Errorf("of a function that is not executed: %d\n%s", status, e)
	}
	status, _, e = vitrine(nil, args("--json", "--filter", "what~out")...)
	var l struct {
		Instruction struct {
			Assembly, Mode string
			Bits, CPL      int
			FlagsBefore    []string
		}
	}
	first, _, _ := strings.Cut(e, "\n")
	if err := json.Unmarshal([]byte(first), &l); status != 0 || err != nil || l.Instruction.Assembly != "out dx, al" || l.Instruction.Bits != 64 {
		t.Errorf("%d %v %+v\n%s", status, err, l, e)
	}
	if status, _, e := vitrine(nil, args("--registers", "--filter", "instruction")...); status != 0 || !strings.Contains(e, "cr3=0x") || !strings.Contains(e, "rdx=0x0→0x3f8") {
		t.Errorf("all registers: %d\n%s", status, e)
	}
	for _, c := range []struct{ args, want string }{
		{"--accel kvm", "--accel soft"},
		{"--filter mode=none", "no mode"},
	} {
		if status, _, e := vitrine(nil, args(strings.Fields(c.args)...)...); status != statusUsage || !strings.Contains(e, c.want) {
			t.Errorf("%s: %d %q", c.args, status, e)
		}
	}
	if status, _, e := vitrine(nil, "trace", "--registers", "--kernel", tinyKernel(t, powerOff)); status != statusUsage || !strings.Contains(e, "--instructions") {
		t.Errorf("--registers alone: %d %q", status, e)
	}
}

// TestProfileOfAGuest: how many instructions each function has executed, with
// and without a filter.
func TestProfileOfAGuest(t *testing.T) {
	t.Setenv("VITRINE_STATE", t.TempDir())
	table := filepath.Join(t.TempDir(), "System.map")
	if err := os.WriteFile(table, []byte("0000000000100078 T hello\n0000000000100080 T bye\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(watched(t, "trace", "soft", out(0x3f8, 'H'), powerOff, forever), "--instructions", "--summary", "--symbols", table)
	for filter, want := range map[string][]string{
		"":                        {"hello 3 50.00%", "bye 3 50.00%", "all 6", "instruction 6", "write COM1 THR 1"},
		"symbol=bye":              {"bye 3 100.00%", "all 3"},
		"instruction symbol=void": {"0 events in"},
	} {
		status, o, e := vitrine(nil, append(args, "--filter", filter)...)
		said := strings.Join(strings.Fields(e), " ")
		for _, w := range want {
			if status != 0 || o != "H" || !strings.Contains(said, w) {
				t.Errorf("filter %q: %d %q, no %q in\n%s", filter, status, o, w, e)
			}
		}
	}
}
