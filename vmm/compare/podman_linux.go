package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// podman runs the program with podman, its storage apart from the user's.
type podman struct {
	site    *Site
	path    string
	version string
}

var (
	_ Engine = (*podman)(nil)
	_ finder = (*podman)(nil)
)

// Info implements Engine.
func (p *podman) Info() Info {
	i := Info{Name: "podman", Title: "podman", Kind: KindContainer, OwnStatus: true, Version: p.version,
		Note: "its default limits of resources are left out, which need more rights than root may have"}
	if p.site != nil {
		i.Disk = []DiskItem{fileItem("engine", p.path), fileItem("root", filepath.Join(p.site.Root, "probe"))}
		for _, helper := range []string{"/usr/bin/conmon", "/usr/bin/crun"} {
			if _, err := os.Stat(helper); err == nil {
				i.Disk = append(i.Disk, fileItem("engine", helper))
			}
		}
	}
	i.HideUnified = hiddenUnified() != ""
	return i
}

// Prepare implements Engine.
func (p *podman) Prepare(ctx context.Context, s *Site) (err error) {
	if p.path, err = find("podman"); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root here: without it, podman's helpers newuidmap and newgidmap would change what is measured")
	}
	p.site = s
	p.version = firstLine(ctx, p.path, "--version")
	return os.WriteFile(p.conf(), []byte("[containers]\ndefault_ulimits = []\n"), 0o600)
}

func (p *podman) conf() string { return filepath.Join(p.site.Dir, "containers.conf") }

func (p *podman) command(args ...string) *exec.Cmd {
	// podman takes no path of more than 50 characters for the latter.
	global := []string{"--root", filepath.Join(p.site.Dir, "podman"), "--runroot", filepath.Join(p.site.Dir, "pod"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"}
	c := exec.Command(p.path, append(global, args...)...)
	c.Env = append(os.Environ(), "CONTAINERS_CONF="+p.conf())
	return c
}

// Command implements Engine.
func (p *podman) Command(id string, j Job) *exec.Cmd {
	args := []string{"run", "--rm", "--network", "none", "--cgroup-parent", "/" + p.site.Cgroup, "--log-driver", "none",
		"--tmpfs", "/tmp", "--name", id, "--rootfs", p.site.Root, "/probe"}
	return p.command(append(args, j.args()...)...)
}

// Names implements finder: conmon has the container's name, and is the
// program's parent.
func (p *podman) Names(id string) []string { return []string{id} }

// Remove implements Engine.
func (p *podman) Remove(ctx context.Context, id string) error {
	if !commandLineHas(id) && !p.knows(id) {
		return nil // --rm did it
	}
	return runUntil(ctx, func() *exec.Cmd { return p.command("rm", "--force", "--time", "0", "--ignore", id) })
}

// knows says whether the container is still in podman's storage, without the
// cost of asking podman.
func (p *podman) knows(id string) bool {
	b, err := os.ReadFile(filepath.Join(p.site.Dir, "podman", "libpod", "bolt_state.db"))
	return err == nil && strings.Contains(string(b), id)
}

// Close implements Engine.
func (p *podman) Close() error { return nil }

// runUntil runs a command, and kills it when the time is over.
func runUntil(ctx context.Context, make func() *exec.Cmd) error {
	c := make()
	bound := exec.CommandContext(ctx, c.Path, c.Args[1:]...)
	bound.Env = c.Env
	if out, err := bound.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(c.Path), err, lastWords(out))
	}
	return nil
}
