package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/boot"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
)

// parseRun is what run makes of its arguments, without a machine.
func parseRun(args ...string) (o *runOptions, err error) {
	cmd := runCommand()
	cmd.Action = func(c *cli.Context) error {
		o, err = parseRunOptions(c)
		return err
	}
	app := newApp(strings.NewReader(""), io.Discard, io.Discard)
	app.Commands = []*cli.Command{cmd}
	args, command := cutCommand(append([]string{"vitrine", "run"}, args...))
	app.Metadata = map[string]any{commandKey: command}
	err = app.RunContext(context.Background(), args)
	return o, err
}

func mustParse(t *testing.T, args ...string) *runOptions {
	t.Helper()
	o, err := parseRun(args...)
	if err != nil {
		t.Fatalf("run %q: %v", args, err)
	}
	return o
}

// someFile is a file that is there.
func someFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vmlinux, mine")
	if err := os.WriteFile(path, []byte("not a kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	o := mustParse(t)
	switch {
	case o.embedded != "lean" || !o.hasAgent() || o.consoleOnStdio():
		t.Errorf("guest: %+v", o)
	case o.memory != 256<<20 || o.cpus != 1 || o.transport != vmm.TransportMMIO:
		t.Errorf("machine: %+v", o)
	case len(o.nets) != 1 || o.nets[0].mode != "user" || len(o.disks) != 0:
		t.Errorf("devices: %+v", o)
	case o.command != nil || o.onReboot != "exit" || o.protocol != boot.ProtocolAuto:
		t.Errorf("rest: %+v", o)
	}
}

func TestCommandIsTakenAsItIs(t *testing.T) {
	o := mustParse(t, "--memory", "1G", "--", "sh", "-c", "exit 3", "--", "--memory")
	if want := []string{"sh", "-c", "exit 3", "--", "--memory"}; !slices.Equal(o.command, want) {
		t.Errorf("command %q, want %q", o.command, want)
	}
	if o.memory != 1<<30 {
		t.Errorf("memory %d", o.memory)
	}
}

func TestKernelOfTheUsersTakesTheConsole(t *testing.T) {
	kernel := someFile(t)
	o := mustParse(t, "--kernel", kernel, "--boot", "pvh")
	if o.hasAgent() || !o.consoleOnStdio() || o.transport != vmm.TransportPCI || o.protocol != boot.ProtocolPVH {
		t.Errorf("%+v", o)
	}
	if o = mustParse(t, "--kernel", kernel, "--console", "none", "--transport", "mmio"); o.consoleOnStdio() || o.transport != vmm.TransportMMIO {
		t.Errorf("%+v", o)
	}
}

func TestEmbeddedKernelFollowsItsUse(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "lean"},
		{[]string{"--kernel", "full"}, "full"},
		{[]string{"--transport", "pci"}, "full"},
		{[]string{"--root", "/dev/vda"}, "full"},
		{[]string{"--root", "/dev/vda", "--kernel", "lean"}, "lean"},
	} {
		if o := mustParse(t, c.args...); o.embedded != c.want {
			t.Errorf("run %q: kernel %q, want %q", c.args, o.embedded, c.want)
		}
	}
}

func TestOwnCommandLine(t *testing.T) {
	kernel := someFile(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "console=ttyS0 panic=-1"},
		{[]string{"--append", ""}, ""},
		{[]string{"--append", "console=hvc0 init=/bin/sh"}, "console=hvc0 init=/bin/sh"},
		{[]string{"--root", "/dev/vda1"}, "root=/dev/vda1 rw console=ttyS0 panic=-1"},
		{[]string{"--root", "LABEL=x"}, "root=LABEL=x rw console=ttyS0 panic=-1"},
		{[]string{"--disk", "a", "--disk", "b,id=sys,ro", "--root", "id=sys", "--append", "quiet -- root=no"}, "root=/dev/vdb ro quiet -- root=no"},
		{[]string{"--root", "/dev/vda", "--append", "root=/dev/vdb"}, "root=/dev/vdb"},
	} {
		o := mustParse(t, append(c.args, "--kernel", kernel)...)
		if got := o.ownCommandLine(); got != c.want {
			t.Errorf("run %q: %q, want %q", c.args, got, c.want)
		}
	}
	o := mustParse(t, "--root", "/dev/vda", "--append", "quiet")
	if got, want := o.ownCommandLine(), "root=/dev/vda rw console=ttyS0 panic=-1 quiet"; got != want {
		t.Errorf("embedded kernel: %q, want %q", got, want)
	}
}

func TestMistakesAreUsageErrorsOfOneLine(t *testing.T) {
	kernel := someFile(t)
	for _, args := range [][]string{
		{"--bogus"},
		{"--memory"},
		{"stray"},
		{"stray", "--memory", "1G"},
		{"--"},
		{"--cpus", "0"},
		{"--cpus", "33"},
		{"--cpus", "two"},
		{"--memory", "4K"},
		{"--memory", "lots"},
		{"--memory", "-1"},
		{"--memory", "12345678901234567890G"},
		{"--accel", "tcg"},
		{"--boot", "bios"},
		{"--transport", "usb"},
		{"--transport", "pci", "--kernel", "lean"},
		{"--on-reboot", "maybe"},
		{"--kernel", ""},
		{"--name", "../x"},
		{"--append", "a\x00b"},
		{"--disk", ""},
		{"--disk", ",ro"},
		{"--disk", "f,rw"},
		{"--disk", "f,ro,ro"},
		{"--disk", "f,ro=yes"},
		{"--disk", "f,id="},
		{"--disk", "f,id"},
		{"--disk", "f,id=a/b"},
		{"--disk", "f,id=123456789012345678901"},
		{"--disk", "f,format=vmdk"},
		{"--disk", "f,iops=0"},
		{"--disk", "f,bps=fast"},
		{"--disk", "f,id=a", "--disk", "g,id=a"},
		{"--disk", "f", "--disk", "f,ro"},
		{"--root", "id=missing"},
		{"--root", "vda"},
		{"--net", ""},
		{"--net", "wifi"},
		{"--net", "none,mac=02:00:00:00:00:01"},
		{"--net", "none", "--net", "user"},
		{"--net", "user,bridge=br0"},
		{"--net", "user,tap=t"},
		{"--net", "tap,group=x"},
		{"--net", "user,group=../x"},
		{"--net", "tap=0123456789abcdef"},
		{"--net", "user,mac=01:00:00:00:00:01"},
		{"--net", "user,mac=short"},
		{"--net", "user,mtu=9000"},
		{"--publish", "80"},
		{"--publish", "1.2.3:80:80"},
		{"--publish", "80:80", "--net", "none"},
		{"--publish", "80:80", "--net", "tap"},
		{"--kernel", kernel, "--", "true"},
		{"--root", "/dev/vda", "--", "true"},
		{"--console", "stdio", "--", "true"},
	} {
		var out, errOut bytes.Buffer
		// The file system must not matter: no machine is made.
		got := run(context.Background(), append([]string{"vitrine", "run"}, args...), strings.NewReader(""), &out, &errOut)
		text := errOut.String()
		if got != statusUsage || !strings.HasPrefix(text, "vitrine: ") || strings.Count(text, "\n") != 1 || out.Len() != 0 {
			t.Errorf("run %q: status %d, output %q, error %q", args, got, out.String(), text)
		}
	}
}

func TestMissingFilesAreHostErrorsThatNameThem(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("VITRINE_CACHE", filepath.Join(dir, "cache"))
	for _, args := range [][]string{
		{"--kernel", dir + "/nope"},
		{"--initrd", dir + "/nope"},
		{"--kernel", dir},
		{"--disk", dir + "/nope", "--net", "none"},
		{"--console", dir + "/no/pe", "--net", "none"},
	} {
		var errOut bytes.Buffer
		got := run(context.Background(), append([]string{"vitrine", "run"}, args...), strings.NewReader(""), io.Discard, &errOut)
		if text := errOut.String(); got != statusFailure || strings.Count(text, "\n") != 1 || !strings.Contains(text, args[1]) {
			t.Errorf("run %q: status %d, error %q", args, got, text)
		}
	}
}

func TestUnknownCommand(t *testing.T) {
	var errOut bytes.Buffer
	if got := run(context.Background(), []string{"vitrine", "boot"}, nil, io.Discard, &errOut); got != statusUsage || !strings.Contains(errOut.String(), `"boot"`) {
		t.Errorf("status %d, error %q", got, errOut.String())
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	var out bytes.Buffer
	if got := run(context.Background(), []string{"vitrine", "run", "--help"}, nil, &out, io.Discard); got != 0 {
		t.Fatalf("status %d", got)
	}
	reference, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range runFlags() {
		name := "--" + f.Names()[0]
		if !strings.Contains(out.String(), name) {
			t.Errorf("%s is not in the help", name)
		}
		if !strings.Contains(string(reference), "`"+name) {
			t.Errorf("%s is not in docs/cli.md", name)
		}
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		err    error
		want   int
		silent bool
	}{
		{nil, 0, true},
		{exitStatus(42), 42, true},
		{usagef("do this", "wrong"), statusUsage, false},
		{errors.New("disk on fire"), statusFailure, false},
		{&vmm.StopError{Cause: vmm.CausePanic, Detail: "no init"}, statusCrash, false},
		{&vmm.StopError{Cause: vmm.CauseTripleFault}, statusCrash, false},
		{&vmm.StopError{Cause: vmm.CauseHost, Err: errors.New("no memory")}, statusFailure, false},
		{ending(signalError{2}), 130, true},
		{ending(signalError{15}), 143, true},
		{ending(errEnd), 0, true},
	} {
		var errOut bytes.Buffer
		if got := status(c.err, &errOut); got != c.want || (errOut.Len() == 0) != c.silent {
			t.Errorf("%v: status %d, want %d; said %q", c.err, got, c.want, errOut.String())
		}
	}
}

func TestDisks(t *testing.T) {
	for s, want := range map[string]disk.Options{
		"a":                     {Path: "a"},
		"a,,b,ro":               {Path: "a,b", ReadOnly: true},
		"x=y,direct,id=data":    {Path: "x=y", Direct: true, ID: "data"},
		"a,format=qcow2":        {Path: "a", Format: disk.QCOW2},
		"a,iops=500,bps=20M,ro": {Path: "a", IOPS: 500, BPS: 20 << 20, ReadOnly: true},
	} {
		if got, err := parseDisk(s); err != nil || got != want {
			t.Errorf("--disk %q: %+v, %v, want %+v", s, got, err, want)
		}
	}
}

func TestDiskNames(t *testing.T) {
	for i, want := range map[int]string{0: "vda", 25: "vdz", 26: "vdaa", 27: "vdab", 701: "vdzz", 702: "vdaaa"} {
		if got := diskName(i); got != want {
			t.Errorf("disk %d: %s, want %s", i, got, want)
		}
	}
}

func TestNets(t *testing.T) {
	for s, want := range map[string]netOption{
		"user":                     {mode: "user"},
		"user,group=lab":           {mode: "user", group: "lab"},
		"tap":                      {mode: "tap"},
		"tap=vm0,bridge=br0":       {mode: "tap", tap: "vm0", bridge: "br0"},
		"bridge=br0":               {mode: "tap", bridge: "br0"},
		"bridge=br0,tap=t1,bps=8M": {mode: "tap", bridge: "br0", tap: "t1", bps: 8 << 20},
		"none":                     {mode: "none"},
	} {
		got, err := parseNet(s)
		if err != nil || got.mac != nil || got.mode != want.mode || got.tap != want.tap || got.bridge != want.bridge || got.group != want.group || got.bps != want.bps {
			t.Errorf("--net %q: %+v, %v, want %+v", s, got, err, want)
		}
	}
	n, err := parseNet("tap,mac=52:54:00:12:34:56")
	if err != nil || n.mac.String() != "52:54:00:12:34:56" {
		t.Errorf("mac: %+v, %v", n, err)
	}
	if o := mustParse(t, "--net", "none"); len(o.nets) != 0 {
		t.Errorf("--net none: %+v", o.nets)
	}
	if o := mustParse(t, "--net", "tap", "--net", "user", "-p", "8080:80", "-p", "5353:53/udp"); len(o.nets) != 2 || len(o.publish) != 2 {
		t.Errorf("two networks: %+v", o)
	}
}

// Programs use AVX where KVM emulates their kernel, whatever it thinks of the
// processor: what it saves their registers by must not be taken from it.
func TestEmulatedKernelsKeepVectorState(t *testing.T) {
	for _, words := range []string{plainCode, fewerTurns} {
		for word := range strings.FieldsSeq(words) {
			list, _ := strings.CutPrefix(word, "clearcpuid=")
			for name := range strings.SplitSeq(list, ",") {
				if slices.Contains([]string{"avx", "avx2", "avx512f", "xsave", "fxsr"}, name) {
					t.Errorf("%s takes %s away", word, name)
				}
			}
		}
	}
}

func TestSilenceHintFitsTheCommandLine(t *testing.T) {
	kernel := someFile(t)
	for want, args := range map[string][]string{
		"add console=ttyS0": {"--append", "quiet"},
		"earlyprintk=ttyS0": nil,
		"--boot linux":      {"--append", "console=ttyS0 earlyprintk=ttyS0"},
		"--boot auto":       {"--append", "console=ttyS0 earlyprintk=ttyS0", "--boot", "pvh"},
	} {
		if got := silenceHint(mustParse(t, append(args, "--kernel", kernel)...)); !strings.Contains(got, want) {
			t.Errorf("run %q: %q", args, got)
		}
	}
}

func FuzzOptions(f *testing.F) {
	for _, s := range []string{"f,ro,direct,id=x,format=raw", "tap=x,bridge=y,mac=02:00:00:00:00:01", "user,group=g", ",,,", "a,,b,=,x=", "none", "[::1]:80:80/udp"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseDisk(s); err == nil && (d.Path == "" || d.IOPS < 0 || d.BPS < 0 || len(d.ID) > maxDiskID) {
			t.Errorf("--disk %q: %+v", s, d)
		}
		if n, err := parseNet(s); err == nil && !slices.Contains([]string{"user", "tap", "none"}, n.mode) {
			t.Errorf("--net %q: %+v", s, n)
		}
		_, _ = parsePublish([]string{s}, []netOption{{mode: "user"}})
		_, _ = rootParameter(s, nil)
	})
}
