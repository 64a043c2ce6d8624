package compare

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestGuestInterrupted: Ctrl-C at any moment ends the comparison with the
// status of the signal, and nothing is left of any engine.
func TestGuestInterrupted(t *testing.T) {
	cfg := testConfig(t)
	for at, only := range map[string]string{
		"warming up: runc":                     "process,runc,crun,podman,docker,runsc,vitrine-fork",
		"warming up: vitrine-fork":             "process,runc,crun,podman,docker,runsc,vitrine-fork",
		"round 1 of 2: vitrine-warm":           "runc,docker,vitrine-warm",
		"CPU over time, density: vitrine-fork": "vitrine-fork",
	} {
		t.Run(at, func(t *testing.T) {
			cmd := exec.Command(cfg.Vitrine, "compare", "--only", only, "--runs", "2", "--scale", "1,2")
			cmd.Env = append(os.Environ(), "VITRINE_CACHE="+filepath.Join(built, "cache"))
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(stderr)
			found := false
			for !found && lines.Scan() {
				found = strings.HasSuffix(lines.Text(), at)
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(stderr)
			err = cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 130 {
				t.Errorf("got %v, want the status 130; it said %s", err, rest)
			}
			if !found && !strings.HasSuffix(at, "runc") { // runc may not be there
				t.Errorf("the comparison never said %q", at)
			}
			if !strings.Contains(lines.Text()+string(rest), "interrupted") && found {
				t.Errorf("it does not say that it was interrupted: %q", rest)
			}
			sites, err := filepath.Glob(fmt.Sprintf("/dev/shm/vitrine-compare-%d-*", cmd.Process.Pid))
			if err != nil || len(sites) > 0 {
				t.Errorf("folders are left: %v %v", sites, err)
			}
			checkNothingLeft(t, &Site{Dir: fmt.Sprintf("/dev/shm/vitrine-compare-%d-", cmd.Process.Pid)})
		})
	}
}

// TestNotRoot: who is not root gets what works without, and the reason for the
// rest.
func TestNotRoot(t *testing.T) {
	cfg := testConfig(t)
	if err := os.Chmod(built, 0o755); err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("/dev/shm", "vitrine-test-home-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	if err := os.Chmod(home, 0o777); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		c := exec.Command(cfg.Vitrine, append([]string{"compare"}, args...)...)
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "VITRINE_CACHE=" + home}
		if os.Geteuid() == 0 {
			c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, err := c.CombinedOutput()
		return string(out), err
	}
	out, err := run("--only", "process,namespaces,runc,crun,runsc,podman,vitrine-soft", "--runs", "1", "--scale", "1", "--workload", "cpu")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	table, skipped, _ := strings.Cut(out, "Not measured:")
	for _, title := range []string{"process", "vitrine, software CPU"} {
		if !strings.Contains(table, "\n"+title+" ") {
			t.Errorf("%s is not in the table:\n%s", title, out)
		}
	}
	for _, name := range []string{"runc", "crun", "runsc", "podman"} {
		if !strings.Contains(skipped, "  "+name+" ") || !strings.Contains(skipped, "root") && !strings.Contains(skipped, "not on PATH") {
			t.Errorf("no reason for %s:\n%s", name, skipped)
		}
	}
	if out, err := run("--only", "process", "--runs", "1", "--cold-cache"); err == nil || !strings.Contains(out, "run as root, or without --cold-cache") {
		t.Errorf("--cold-cache: %v: %s", err, out)
	}
}
