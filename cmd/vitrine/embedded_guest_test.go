package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
)

// testCache is a cache directory for all tests of a run, so that the embedded
// guest is unpacked once.
var testCache string

// beforeTests may turn the test binary into something else.
var beforeTests func()

func TestMain(m *testing.M) {
	if isDetached() { // a machine that a test left in the background
		main()
	}
	if beforeTests != nil {
		beforeTests()
	}
	var err error
	if testCache, err = os.MkdirTemp("", "vitrine-test-"); err != nil {
		panic(err)
	}
	// The user's machines are none of the tests' business.
	_ = os.Setenv("XDG_RUNTIME_DIR", testCache)
	status := m.Run()
	_ = os.RemoveAll(testCache)
	os.Exit(status)
}

// command runs a command line and returns what became of it.
func command(args ...string) (status int, stdout, stderr string) {
	var o, e syncBuffer
	status = run(context.Background(), append([]string{"vitrine"}, args...), strings.NewReader(""), &o, &e)
	return status, o.String(), e.String()
}

// anyAccel is the accelerator for guests that run with any.
func anyAccel(t testing.TB) string {
	t.Helper()
	return acceltest.Of(t, acceltest.Soft)
}

// deterministic is why some tests are the software CPU's alone.
const deterministic = "a deterministic run counts instructions, which KVM does not"

// embedded runs the embedded guest by the command line.
func embedded(t testing.TB, in io.Reader, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return embeddedWith(anyAccel(t), in, args...)
}

func embeddedWith(accel string, in io.Reader, args ...string) (status int, stdout, stderr string) {
	var o, e syncBuffer
	status = run(context.Background(), append([]string{"vitrine", "run", "--accel", accel}, args...), in, &o, &e)
	return status, o.String(), e.String()
}

func TestEmbeddedGuestPassesOnWhatACommandDoes(t *testing.T) {
	t.Setenv("VITRINE_CACHE", testCache)
	for _, c := range []struct {
		command        []string
		status         int
		stdout, stderr string
	}{
		{[]string{"true"}, 0, "", ""},
		{[]string{"false"}, 1, "", ""},
		{[]string{"sh", "-c", "echo out; echo err >&2; exit 42"}, 42, "out\n", "err\n"},
		{[]string{"sh", "-c", "kill -9 $$"}, 137, "", ""},
		{[]string{"poweroff"}, 0, "", ""},
		{[]string{"reboot"}, 0, "", ""},
	} {
		status, stdout, stderr := embedded(t, strings.NewReader(""), append([]string{"--"}, c.command...)...)
		if status != c.status || stdout != c.stdout || stderr != c.stderr {
			t.Errorf("%q: status %d, output %q, errors %q, want %d, %q, %q", c.command, status, stdout, stderr, c.status, c.stdout, c.stderr)
		}
	}
	if status, stdout, stderr := embedded(t, strings.NewReader(""), "--", "no-such-program"); status != 127 || stdout != "" || strings.Count(stderr, "\n") != 1 {
		t.Errorf("no such program: status %d, output %q, errors %q", status, stdout, stderr)
	}
}

func TestEmbeddedGuestsShellReadsStandardInput(t *testing.T) {
	t.Setenv("VITRINE_CACHE", testCache)
	status, stdout, stderr := embedded(t, strings.NewReader("uname -s\ncat /proc/sys/kernel/ostype\nexit 5\n"))
	if status != 5 || stdout != "Linux\nLinux\n" {
		t.Errorf("status %d, output %q, errors %q", status, stdout, stderr)
	}
}

func TestEmbeddedGuestCarriesDataIntact(t *testing.T) {
	t.Setenv("VITRINE_CACHE", testCache)
	random := make([]byte, 192<<10)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	for name, data := range map[string][]byte{"text": []byte(base64.StdEncoding.EncodeToString(random)), "bytes": random} {
		status, stdout, stderr := embedded(t, bytes.NewReader(data), "--", "cat")
		if status != 0 || stdout != string(data) {
			t.Errorf("%s: status %d, %d bytes of %d, errors %q", name, status, len(stdout), len(data), stderr)
		}
	}
}

func TestEmbeddedGuestSeesItsMachine(t *testing.T) {
	t.Setenv("VITRINE_CACHE", testCache)
	status, stdout, stderr := embedded(t, strings.NewReader(""), "--cpus", "2", "--memory", "64M", "--append", "extra=word", "--",
		"sh", "-c", "cat /sys/devices/system/cpu/online /proc/cmdline")
	if status != 0 || !strings.HasPrefix(stdout, "0-1\n") || !strings.HasSuffix(stdout, " extra=word\n") || !strings.Contains(stdout, "vitrine.ip=eth0:10.0.2.15/24") {
		t.Errorf("status %d, output %q, errors %q", status, stdout, stderr)
	}
}

// The shell may be on the serial port too; it echoes what it is told.
func TestEmbeddedGuestsShellOnTheSerialPort(t *testing.T) {
	t.Setenv("VITRINE_CACHE", testCache)
	status, stdout, stderr := embedded(t, strings.NewReader("echo $((6*7))\nexit\n"), "--console", "stdio")
	if status != 0 || !strings.Contains(stdout, "Linux version") || !strings.Contains(stdout, "42\r\n") {
		t.Errorf("status %d, output %q, errors %q", status, stdout, stderr)
	}
}

func TestEmbeddedGuestUnderKVM(t *testing.T) {
	accel := acceltest.Only(t, acceltest.KVM, "other tests do the same with the software CPU")
	if testing.Short() {
		t.Skip("takes seconds where KVM emulates guest kernels")
	}
	t.Setenv("VITRINE_CACHE", testCache)
	status, stdout, stderr := embeddedWith(accel, strings.NewReader(""), "--", "uname", "-s")
	if status != 0 || stdout != "Linux\n" || stderr != "" {
		t.Errorf("status %d, output %q, errors %q", status, stdout, stderr)
	}
}
