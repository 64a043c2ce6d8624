// Package compare measures the same work in plain processes, containers and
// virtual machines, and draws what came out.
//
// One small static program (probe) and one root file system with nothing else
// in it run in every Engine. The program's first act is to write a byte; the
// host stamps its arrival, for every engine through the engine's own standard
// output, because no clock is shared by all of them: a machine whose CPU is
// interpreted has a clock of its own. What that way costs is measured by the
// program, and shown.
//
// Engines are measured in turn (A B C A B C …), so that what changes on the
// host during the comparison changes for all. docs/compare.md has the method.
package compare

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Workloads are the names of the workloads, in the order in which they run.
func Workloads() []string { return []string{"cpu", "memory", "files", "syscalls"} }

// Config is what is to be compared, and how.
type Config struct {
	Engines   []string // names; none: all. See EngineNames
	Skip      []string // names
	Workloads []string // none: all
	Runs      int      // measured starts of each engine, after one that warms up
	Scale     []int    // numbers of instances for memory and density, rising
	Timeout   time.Duration
	Budget    time.Duration // slow engines get fewer runs, so that all take about so long
	ColdCache bool          // drop the page cache before each run, where that is permitted

	Vitrine     string   // path of the vitrine program
	Kernel      string   // path of the kernel of all virtual machines, an ELF with a PVH note
	KernelWords []string // for its command line
	Memory      uint64   // bytes of RAM of each virtual machine
	Version     string   // of vitrine

	KernelsEmulated bool // the host's KVM emulates guest kernels
	Progress        func(Progress)
}

// leftError says what a comparison could not clear up.
type leftError struct{ err error }

func (e *leftError) Error() string { return fmt.Sprintf("clear up: %v", e.err) }

func (e *leftError) Unwrap() error { return e.err }

// Left is what an error of Run's says of things that could not be removed; nil:
// everything is gone.
func Left(err error) error {
	var l *leftError
	if errors.As(err, &l) {
		return l.err
	}
	return nil
}

// Progress is where a comparison stands.
type Progress struct {
	Part, Parts int
	What        string // "round 2 of 5: runc"
}

// Check fills in what is missing, and refuses what cannot be meant.
func (c *Config) Check() error {
	for _, n := range append(slices.Clone(c.Engines), c.Skip...) {
		if !slices.Contains(EngineNames(), n) {
			return fmt.Errorf("unknown engine %q: known are %s", n, strings.Join(EngineNames(), ", "))
		}
	}
	for _, n := range c.Workloads {
		if !slices.Contains(Workloads(), n) {
			return fmt.Errorf("unknown workload %q: known are %s", n, strings.Join(Workloads(), ", "))
		}
	}
	if len(c.Workloads) == 0 {
		c.Workloads = Workloads()
	}
	if c.Runs < 1 || c.Runs > 10000 {
		return fmt.Errorf("%d runs: use 1 to 10000", c.Runs)
	}
	if c.Timeout <= 0 || c.Budget <= 0 {
		return fmt.Errorf("a time-out of %v and a budget of %v: both must be more than nothing", c.Timeout, c.Budget)
	}
	for i, n := range c.Scale {
		if n < 1 || n > 1024 || i > 0 && n <= c.Scale[i-1] {
			return fmt.Errorf("scale %d: use rising numbers from 1 to 1024", n)
		}
	}
	if c.Memory == 0 {
		c.Memory = 128 << 20
	}
	return nil
}

func (c *Config) wanted(name string) bool {
	return (len(c.Engines) == 0 || slices.Contains(c.Engines, name)) && !slices.Contains(c.Skip, name)
}

// EngineNames are the names of all engines there are, in the order of the report.
func EngineNames() []string {
	return []string{"process", "namespaces", "runc", "crun", "podman", "docker", "runsc",
		"vitrine-soft", "vitrine-kvm", "vitrine-warm", "vitrine-fork",
		"qemu", "qemu-tcg", "firecracker", "cloud-hypervisor", "lkvm", "gokvm"}
}

// InstallHelp writes how the missing engines are got on Debian.
func InstallHelp(w io.Writer) error {
	_, err := io.WriteString(w, `On Debian, as root:

  runc               apt-get install runc
  crun               apt-get install crun
  podman             apt-get install podman
  runsc              apt-get install runsc
  docker             apt-get install docker.io       (a running daemon is used; without one, root gets a private one for the comparison)
  qemu, qemu-tcg     apt-get install qemu-system-x86

Not in Debian: put the program on PATH.

  firecracker        https://github.com/firecracker-microvm/firecracker/releases
  cloud-hypervisor   https://github.com/cloud-hypervisor/cloud-hypervisor/releases
  lkvm               https://git.kernel.org/pub/scm/linux/kernel/git/will/kvmtool.git, "make"
  gokvm              go install github.com/bobuhiro11/gokvm@latest

Virtual machines need /dev/kvm, except vitrine-soft, vitrine-warm, vitrine-fork and qemu-tcg.
Containers need root, and so does --cold-cache.
`)
	return err
}
