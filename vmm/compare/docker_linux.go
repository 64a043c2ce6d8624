package compare

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// docker runs the program with Docker: with the daemon that runs, or with a
// private one.
type docker struct {
	site    *Site
	path    string
	version string
	host    []string  // --host of the private daemon
	daemon  *exec.Cmd // the private daemon
	dlog    limited
	ids     map[string]string // of instances, Docker's
}

var (
	_ Engine = (*docker)(nil)
	_ finder = (*docker)(nil)
)

// Info implements Engine.
func (d *docker) Info() Info {
	i := Info{Name: "docker", Title: "Docker", Kind: KindContainer, OwnStatus: true, Version: d.version}
	if d.site == nil {
		return i
	}
	i.Disk = []DiskItem{fileItem("engine", d.path), fileItem("root", filepath.Join(d.site.Root, "probe"))}
	for _, p := range []string{"dockerd", "containerd", "containerd-shim-runc-v2", "runc"} {
		if path, err := exec.LookPath(p); err == nil {
			i.Disk = append(i.Disk, fileItem("engine", path))
		}
	}
	if d.daemon != nil {
		i.Note = "with a private daemon, without a bridge"
		i.Daemons = family([]int{d.daemon.Process.Pid}, nil)
	} else {
		i.Daemons = family(pidsNamed("dockerd", "containerd"), nil)
	}
	return i
}

// Prepare implements Engine.
func (d *docker) Prepare(ctx context.Context, s *Site) (err error) {
	if d.path, err = find("docker"); err != nil {
		return err
	}
	d.ids = make(map[string]string)
	running := d.try(ctx)
	if running != nil {
		if os.Geteuid() != 0 {
			return fmt.Errorf("no daemon answers (%w), and only root can start one", running)
		}
		if err := d.startDaemon(ctx, s); err != nil {
			return err
		}
	}
	d.site = s
	d.version = "Docker " + firstLine(ctx, d.path, append(d.host, "version", "--format", "{{.Server.Version}}, client {{.Client.Version}}")...)
	return d.importRoot(ctx)
}

func (d *docker) command(args ...string) *exec.Cmd {
	c := exec.Command(d.path, append(append([]string{}, d.host...), args...)...)
	c.Env = append(os.Environ(), "DOCKER_CLI_HINTS=false")
	return c
}

// try asks for the daemon.
func (d *docker) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return runUntil(ctx, func() *exec.Cmd { return d.command("version", "--format", "{{.Server.Version}}") })
}

// startDaemon starts a daemon that touches neither the host's network nor the
// storage of another.
func (d *docker) startDaemon(ctx context.Context, s *Site) error {
	path, err := find("dockerd")
	if err != nil {
		return fmt.Errorf("no daemon answers, and %w", err)
	}
	dir := filepath.Join(s.Dir, "docker")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	socket := "unix://" + filepath.Join(dir, "sock")
	c := exec.Command(path, "--bridge", "none", "--iptables=false", "--ip6tables=false", "--host", socket,
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "run"),
		"--pidfile", filepath.Join(dir, "pid"), "--cgroup-parent", "/"+s.Cgroup)
	c.Stdout, c.Stderr = &d.dlog, &d.dlog
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	d.daemon, d.host, d.site = c, []string{"--host", socket}, s
	for range 100 {
		if err = d.try(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the daemon does not answer: %s", lastWords(d.dlog.Bytes()))
}

func (d *docker) image() string { return filepath.Base(strings.ToLower(d.site.Dir)) + ":probe" }

// importRoot makes an image of the root file system.
func (d *docker) importRoot(ctx context.Context) error {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range rootFolders {
		if err := w.WriteHeader(&tar.Header{Name: f + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: "probe", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(probe))}); err != nil {
		return err
	}
	if _, err := w.Write(probe); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	c := d.command("import", "-", d.image())
	bound := exec.CommandContext(ctx, c.Path, c.Args[1:]...)
	bound.Env, bound.Stdin = c.Env, &b
	if out, err := bound.CombinedOutput(); err != nil {
		return fmt.Errorf("docker import: %w: %s", err, lastWords(out))
	}
	return nil
}

// Command implements Engine.
func (d *docker) Command(id string, j Job) *exec.Cmd {
	args := []string{"run", "--rm", "--network", "none", "--log-driver", "none", "--tmpfs", "/tmp", "--name", id, d.image(), "/probe"}
	return d.command(append(args, j.args()...)...)
}

// Names implements finder: containerd's shim has the container's own id.
func (d *docker) Names(id string) []string {
	if d.ids[id] == "" {
		out, err := d.command("inspect", "--format", "{{.Id}}", id).Output()
		if err != nil {
			return nil
		}
		d.ids[id] = strings.TrimSpace(string(out))
	}
	return []string{d.ids[id]}
}

// Remove implements Engine.
func (d *docker) Remove(ctx context.Context, id string) error {
	delete(d.ids, id)
	// Creating it may still be under way in the daemon: look until it is gone twice.
	for gone := 0; gone < 2; {
		c := d.command("ps", "--all", "--quiet", "--filter", "name="+id)
		out, err := exec.CommandContext(ctx, c.Path, c.Args[1:]...).Output()
		if err != nil {
			return fmt.Errorf("docker ps: %w", err)
		}
		if len(bytes.TrimSpace(out)) == 0 {
			gone++
			continue
		}
		gone = 0
		out, err = exec.CommandContext(ctx, c.Path, append(d.host, "rm", "--force", id)...).CombinedOutput()
		if err != nil && !bytes.Contains(out, []byte("No such container")) && !bytes.Contains(out, []byte("already in progress")) {
			return fmt.Errorf("docker rm: %w: %s", err, lastWords(out))
		}
	}
	return nil
}

// Close implements Engine.
func (d *docker) Close() error {
	if d.site == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), removeTime)
	defer cancel()
	if d.daemon == nil {
		return runUntil(ctx, func() *exec.Cmd { return d.command("rmi", "--force", d.image()) })
	}
	return d.stopDaemon(ctx)
}

func (d *docker) stopDaemon(ctx context.Context) error {
	pids := family([]int{d.daemon.Process.Pid}, nil)
	ended := make(chan struct{})
	go func() { d.daemon.Wait(); close(ended) }()
	err := d.daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("the private docker daemon did not end"), killGroup(d.daemon.Process.Pid))
		<-ended
	}
	for _, p := range pids {
		if ours, _ := os.ReadFile("/proc/" + strconv.Itoa(p) + "/cmdline"); bytes.Contains(ours, []byte(d.site.Dir)) {
			syscall.Kill(p, syscall.SIGKILL)
		}
	}
	// It mounts its own data folder.
	return errors.Join(err, unmountBelow(filepath.Join(d.site.Dir, "docker")))
}
