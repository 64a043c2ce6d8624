package vmm_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/debugport"
	"github.com/vitrine-vmm/vitrine/devices/virtio/rng"
	"github.com/vitrine-vmm/vitrine/devices/virtio/vsock"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/acceltest"
	"github.com/vitrine-vmm/vitrine/vmm/agent"
)

// patience is how long a guest may take for anything: a guest whose kernel KVM
// emulates, on a host that is busy, takes minutes for what is done in seconds.
const patience = 15 * time.Minute

// deterministic is why some tests are the software CPU's alone.
const deterministic = "a deterministic run counts instructions, which KVM does not"

// testFolder holds what all tests of a run share: the embedded guest unpacked,
// the probe. It is made when first needed.
var testFolder string

func TestMain(m *testing.M) {
	status := m.Run()
	if testFolder != "" {
		_ = os.RemoveAll(testFolder)
	}
	os.Exit(status)
}

var sharedFolder = sync.OnceValues(func() (string, error) {
	var err error
	testFolder, err = os.MkdirTemp("", "vitrine-guests-")
	return testFolder, err
})

func shared(t testing.TB) string {
	t.Helper()
	dir, err := sharedFolder()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func image(t testing.TB, name string) string {
	t.Helper()
	path, err := guestimages.Path(shared(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// buildProbe builds testdata/probe.
var buildProbe = sync.OnceValues(func() (string, error) {
	dir, err := sharedFolder()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the probe: %w\n%s", err, out)
	}
	return path, nil
})

// guest is the embedded guest, running.
type guest struct {
	t       testing.TB
	m       *vmm.Machine
	agent   *agent.Client
	console *lines
	ended   chan error
	alive   context.Context // until the run has ended
}

// bootGuest boots the embedded guest on the machine that cfg describes and waits
// for its agent. What cfg leaves out is the embedded guest's own.
func bootGuest(t testing.TB, cfg vmm.Config) *guest {
	t.Helper()
	g, ready := launch(t, cfg)
	select {
	case <-ready:
	case err := <-g.ended:
		g.ended <- err
		t.Fatalf("the guest ended before its agent was ready: %v\n%s", err, g.console)
	case <-time.After(patience):
		t.Fatalf("no agent after %v\n%s", patience, g.console)
	}
	return g
}

// launch is bootGuest without waiting.
func launch(t testing.TB, cfg vmm.Config) (g *guest, ready <-chan struct{}) {
	t.Helper()
	sockets, err := vsock.New(vsock.Config{CID: vsock.MinCID})
	if err != nil {
		t.Fatal(err)
	}
	g = &guest{t: t, console: &lines{}, ended: make(chan error, 1)}
	g.agent = agent.New(func(ctx context.Context) (net.Conn, error) { return sockets.Dial(ctx, agent.Port) })
	cfg.Devices = append(cfg.Devices, sockets, rng.New("rng", nil))
	said := make(chan struct{})
	var once sync.Once
	cfg.OnMark = func(mark uint8) {
		if mark == debugport.MarkAgent {
			once.Do(func() { close(said) })
		}
	}
	if cfg.Console.Out == nil {
		cfg.Console.Out = g.console
	}
	g.m = newMachine(t, embeddedGuest(t, cfg))
	alive, over := context.WithCancel(context.Background())
	g.alive = alive
	go func() {
		defer over()
		g.ended <- g.m.Run(context.Background())
	}()
	t.Cleanup(func() {
		g.m.Stop(nil)
		<-g.ended
	})
	return g, said
}

// eachTransport runs a test beside others, once for each transport.
func eachTransport(t *testing.T, test func(t *testing.T, transport vmm.Transport)) {
	t.Helper()
	for _, transport := range []vmm.Transport{vmm.TransportMMIO, vmm.TransportPCI} {
		t.Run(string(transport), func(t *testing.T) {
			t.Parallel()
			test(t, transport)
		})
	}
}

func embeddedGuest(t testing.TB, cfg vmm.Config) vmm.Config {
	t.Helper()
	switch {
	case cfg.Deterministic:
		cfg.Accel = acceltest.Only(t, acceltest.Soft, deterministic)
	case cfg.Accel == "":
		cfg.Accel = acceltest.Of(t, acceltest.Soft)
	}
	if cfg.Memory == 0 {
		cfg.Memory = 128 << 20
	}
	kernel := guestimages.KernelLean
	if cfg.Transport == vmm.TransportPCI || cfg.ACPI {
		kernel, cfg.ACPI = guestimages.KernelFull, true
	}
	if cfg.Kernel == "" {
		cfg.Kernel = image(t, kernel)
	}
	cfg.PMEMImage, cfg.FixedKernel = image(t, guestimages.RootFS), true
	words := []string{guestimages.CommandLine, guestimages.FewerInstructions}
	if cfg.Accel == "kvm" && vmm.KernelsEmulated() {
		words = append(words, guestimages.EmulatedByKVM)
	}
	cfg.CommandLine = strings.Join(append(words, cfg.CommandLine), " ")
	return cfg
}

// exec runs a program in the guest.
func (g *guest) exec(argv ...string) (stdout, stderr string, status agent.Status) {
	g.t.Helper()
	return g.execWith(nil, argv...)
}

func (g *guest) execWith(stdin *bytes.Reader, argv ...string) (stdout, stderr string, status agent.Status) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.alive, patience)
	defer cancel()
	var o, e bytes.Buffer
	cmd := &agent.Command{Args: argv, Stdout: &o, Stderr: &e}
	if stdin != nil {
		cmd.Stdin = stdin
	}
	status, err := g.agent.Exec(ctx, cmd)
	if err != nil {
		g.t.Fatalf("in the guest: %q: %v (so far %q, %q)\n%s", argv, err, o.String(), e.String(), g.console)
	}
	return o.String(), e.String(), status
}

// sh runs a shell command that has to succeed, and returns its output.
func (g *guest) sh(command string) string {
	g.t.Helper()
	return g.must("sh", "-c", command)
}

func (g *guest) must(argv ...string) string {
	g.t.Helper()
	stdout, stderr, status := g.exec(argv...)
	if status.ExitCode() != 0 {
		g.t.Fatalf("in the guest: %q: status %d, output %q, errors %q", argv, status.ExitCode(), stdout, stderr)
	}
	return stdout
}

// background runs a program that says something when it is ready, and returns
// after that with a function that waits for its end and returns its output.
func (g *guest) background(argv ...string) (wait func() string) {
	g.t.Helper()
	ready, ended := make(chan struct{}), make(chan error, 1)
	out := &lines{}
	var once sync.Once
	out.each = func() { once.Do(func() { close(ready) }) }
	var complaints bytes.Buffer
	go func() {
		status, err := g.agent.Exec(context.Background(), &agent.Command{Args: argv, Stdout: out, Stderr: &complaints})
		if err == nil && status.ExitCode() != 0 {
			err = fmt.Errorf("status %d, errors %q", status.ExitCode(), complaints.String())
		}
		ended <- err
	}()
	select {
	case <-ready:
	case err := <-ended:
		g.t.Fatalf("in the guest: %q ended early: %v", argv, err)
	}
	return func() string {
		g.t.Helper()
		select {
		case err := <-ended:
			if err != nil {
				g.t.Fatalf("in the guest: %q: %v", argv, err)
			}
		case <-time.After(patience):
			g.t.Fatalf("in the guest: %q does not end; so far %q", argv, out)
		}
		return out.String()
	}
}

// put copies a file of the host's into the guest.
func (g *guest) put(path string, data []byte, perm os.FileMode) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.alive, patience)
	defer cancel()
	if err := g.agent.Put(ctx, path, bytes.NewReader(data), agent.PutOptions{Mode: perm}); err != nil {
		g.t.Fatalf("copy %s into the guest: %v\n%s", path, err, g.console)
	}
}

// probe puts the probe into the guest and returns its path there.
func (g *guest) probe() string {
	g.t.Helper()
	path, err := buildProbe()
	if err != nil {
		g.t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		g.t.Fatal(err)
	}
	g.put("/tmp/probe", data, 0o755)
	return "/tmp/probe"
}

// wait waits for the run's end.
func (g *guest) wait() error {
	g.t.Helper()
	select {
	case err := <-g.ended:
		g.ended <- err
		return err
	case <-time.After(patience):
		g.t.Fatalf("the guest does not end\n%s", g.console)
		return nil
	}
}

// lines is a buffer that may be read while it is written to.
type lines struct {
	mu   sync.Mutex
	b    bytes.Buffer
	each func() // called after a write, if not nil
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	n, err := l.b.Write(p)
	l.mu.Unlock()
	if l.each != nil {
		l.each()
	}
	return n, err
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
}

// shell is a shell command for the agent.
func shell(command string) *agent.Command {
	return &agent.Command{Args: []string{"sh", "-c", command}}
}
