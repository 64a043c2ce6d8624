package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// oci runs the program with a runtime of the Open Container Initiative: runc,
// crun or runsc, in the foreground and without a manager above it.
type oci struct {
	name  string
	title string

	site    *Site
	path    string
	version string
}

var _ Engine = (*oci)(nil)

// Info implements Engine.
func (o *oci) Info() Info {
	i := Info{Name: o.name, Title: o.title, Kind: KindContainer, OwnStatus: true, Version: o.version}
	if o.site != nil {
		i.Disk = []DiskItem{fileItem("engine", o.path), fileItem("root", filepath.Join(o.site.Root, "probe"))}
	}
	if o.name == "crun" && hiddenUnified() != "" {
		i.HideUnified = true
		i.Note = "in a mount namespace without cgroup v2, which it refuses beside v1"
	}
	return i
}

// Prepare implements Engine.
func (o *oci) Prepare(ctx context.Context, s *Site) (err error) {
	if o.path, err = find(o.name); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root, to make cgroups and network namespaces")
	}
	o.site = s
	o.version = firstLine(ctx, o.path, "--version")
	return nil
}

func (o *oci) state() string { return filepath.Join(o.site.Dir, o.name+"-state") }

// Command implements Engine. The bundle is made anew for each instance, before
// the clock starts: its configuration has the program's arguments.
func (o *oci) Command(id string, j Job) *exec.Cmd {
	bundle := filepath.Join(o.site.Dir, id)
	if err := o.writeBundle(bundle, id, j); err != nil {
		return &exec.Cmd{Path: o.path, Err: fmt.Errorf("write the bundle: %w", err)}
	}
	args := []string{"--root", o.state()}
	if o.name == "runsc" {
		args = append(args, "--network=none")
	}
	return exec.Command(o.path, append(args, "run", "--bundle", bundle, id)...)
}

// writeBundle writes the runtime specification's config.json (v1.0.2).
func (o *oci) writeBundle(dir, id string, j Job) error {
	type dict map[string]any
	mount := func(to, kind string, options ...string) dict {
		return dict{"destination": to, "type": kind, "source": kind, "options": options}
	}
	var spaces []dict
	for _, n := range []string{"pid", "ipc", "uts", "mount", "network"} {
		spaces = append(spaces, dict{"type": n})
	}
	config := dict{
		"ociVersion": "1.0.2",
		"hostname":   "probe",
		"root":       dict{"path": o.site.Root},
		"process": dict{
			"args": append([]string{"/probe"}, j.args()...), "cwd": "/", "env": []string{"PATH=/"},
			"user": dict{"uid": 0, "gid": 0}, "noNewPrivileges": true,
		},
		"mounts": []dict{mount("/proc", "proc"), mount("/dev", "tmpfs", "nosuid", "mode=755", "size=65536k"), mount("/tmp", "tmpfs", "mode=1777")},
		"linux":  dict{"namespaces": spaces, "cgroupsPath": "/" + o.site.Cgroup + "/" + id},
	}
	b, err := json.Marshal(config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
}

// Remove implements Engine.
func (o *oci) Remove(ctx context.Context, id string) error {
	var err error
	// runc run has removed the container, unless it was killed.
	if _, there := os.Stat(filepath.Join(o.state(), id)); there == nil {
		out, bad := exec.CommandContext(ctx, o.path, "--root", o.state(), "delete", "--force", id).CombinedOutput()
		if bad != nil && !strings.Contains(string(out), "does not exist") {
			err = fmt.Errorf("%s delete: %w: %s", o.name, bad, lastWords(out))
		}
	}
	// runsc leaves the cgroup of a container that was killed.
	return errors.Join(err, removeCgroups(filepath.Join(o.site.Cgroup, id)), os.RemoveAll(filepath.Join(o.site.Dir, id)))
}

// Close implements Engine.
func (o *oci) Close() error { return nil }
