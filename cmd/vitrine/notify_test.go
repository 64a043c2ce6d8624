package main

import (
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm"
)

func TestNotifyFlag(t *testing.T) {
	for _, c := range []struct {
		args string
		want vmm.Notify
	}{{"", vmm.NotifyIOEventFD}, {"--notify ioeventfd", vmm.NotifyIOEventFD}, {"--notify exit", vmm.NotifyExit}} {
		if o := mustParse(t, strings.Fields(c.args)...); o.notify != c.want {
			t.Errorf("run %s: %q, want %q", c.args, o.notify, c.want)
		}
	}
	for args, want := range map[string]string{
		"--notify smoke":                        "--notify",
		"--notify exit --deterministic -- true": "leave out --notify",
	} {
		o, err := parseRun(strings.Fields(args)...)
		if err == nil {
			t.Errorf("run %s was taken: %+v", args, o)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("run %s: %v; want %q", args, err, want)
		}
	}
}

// The embedded guest boots, and runs a command, with every notification an exit.
func TestGuestWithNotificationsThatExit(t *testing.T) {
	t.Setenv("VITRINE_CACHE", testCache)
	status, stdout, stderr := embedded(t, strings.NewReader(""), "--notify", "exit", "--", "echo", "by exits")
	if status != 0 || stdout != "by exits\n" {
		t.Errorf("status %d, output %q; errors %q", status, stdout, stderr)
	}
}
