package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// machine runs the program as process 1 of a virtual machine. All machines have
// the same kernel, command line, RAM and one CPU.
type machine struct {
	name, title string
	program     string // on PATH; "" is vitrine itself
	versionFlag string
	needsKVM    bool
	reboot      string // how the kernel resets it: reboot= on its command line
	killAtEnd   string // why it cannot end by itself
	args        func(m *machine, id, cmdline string) ([]string, error)

	site    *Site
	path    string
	version string
}

var _ Engine = (*machine)(nil)

// Info implements Engine.
func (m *machine) Info() Info {
	i := Info{Name: m.name, Title: m.title, Kind: KindMachine, Version: m.version, Note: m.killAtEnd, KillAtEnd: m.killAtEnd != ""}
	if m.site != nil {
		i.Disk = []DiskItem{fileItem("engine", m.path), fileItem("kernel", m.site.Config.Kernel), fileItem("root", m.site.Initrd)}
	}
	return i
}

// Prepare implements Engine.
func (m *machine) Prepare(ctx context.Context, s *Site) (err error) {
	if s.Config.Kernel == "" {
		return errors.New("there is no kernel for machines")
	}
	m.path = s.Config.Vitrine
	if m.program != "" {
		if m.path, err = find(m.program); err != nil {
			return err
		}
	} else if m.path == "" {
		return errors.New("the vitrine program was not given")
	}
	if m.needsKVM {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("needs KVM: %w", err)
		}
		f.Close()
	}
	m.site = s
	m.version = firstLine(ctx, m.path, m.versionFlag)
	return nil
}

// commandLine is the kernel's. The program gets what follows "--".
func (m *machine) commandLine(j Job) string {
	words := append([]string{"console=ttyS0", "quiet", "panic=-1", "reboot=" + m.reboot, "rdinit=/probe"}, m.site.Config.KernelWords...)
	return strings.Join(append(words, "--", j.List, fmt.Sprint(j.Status), "vm"), " ")
}

// Command implements Engine.
func (m *machine) Command(id string, j Job) *exec.Cmd {
	args, err := m.args(m, id, m.commandLine(j))
	c := exec.Command(m.path, args...)
	if err != nil {
		c.Err = err
	}
	return c
}

// Remove implements Engine.
func (m *machine) Remove(_ context.Context, id string) error {
	return os.RemoveAll(filepath.Join(m.site.Dir, id))
}

// Close implements Engine.
func (m *machine) Close() error { return nil }

func (m *machine) mib() string { return fmt.Sprint(m.site.Config.Memory >> 20) }

func vitrine(accel string) *machine {
	return &machine{
		name: "vitrine-" + accel, title: "vitrine, " + map[string]string{"soft": "software CPU", "kvm": "KVM"}[accel],
		versionFlag: "--version", needsKVM: accel == "kvm", reboot: "k",
		args: func(m *machine, _, cmdline string) ([]string, error) {
			return []string{"run", "--accel", accel, "--kernel", "lean", "--initrd", m.site.Initrd, "--memory", m.mib() + "M",
				"--net", "none", "--console", "stdio", "--append", cmdline}, nil
		},
	}
}

func qemu() *machine {
	return &machine{
		name: "qemu", title: "QEMU microvm", program: "qemu-system-x86_64", versionFlag: "--version", needsKVM: true, reboot: "t",
		args: func(m *machine, _, cmdline string) ([]string, error) {
			return []string{"-M", "microvm,acpi=off,isa-serial=on,rtc=on", "-accel", "kvm", "-cpu", "host", "-m", m.mib() + "M",
				"-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
				"-kernel", m.site.Config.Kernel, "-initrd", m.site.Initrd, "-append", cmdline}, nil
		},
	}
}

func firecracker() *machine {
	return &machine{
		name: "firecracker", title: "Firecracker", program: "firecracker", versionFlag: "--version", needsKVM: true, reboot: "k",
		args: func(m *machine, id, cmdline string) ([]string, error) {
			config := map[string]any{
				"boot-source":    map[string]any{"kernel_image_path": m.site.Config.Kernel, "initrd_path": m.site.Initrd, "boot_args": cmdline},
				"machine-config": map[string]any{"vcpu_count": 1, "mem_size_mib": m.site.Config.Memory >> 20},
				"drives":         []any{},
			}
			b, err := json.Marshal(config)
			if err != nil {
				return nil, err
			}
			dir := filepath.Join(m.site.Dir, id)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, err
			}
			file := filepath.Join(dir, "config.json")
			return []string{"--no-api", "--config-file", file}, os.WriteFile(file, b, 0o600)
		},
	}
}

func cloudHypervisor() *machine {
	return &machine{
		name: "cloud-hypervisor", title: "Cloud Hypervisor", program: "cloud-hypervisor", versionFlag: "--version", needsKVM: true, reboot: "k",
		killAtEnd: "ended by the comparison: without ACPI it can only restart",
		args: func(m *machine, _, cmdline string) ([]string, error) {
			return []string{"--kernel", m.site.Config.Kernel, "--initramfs", m.site.Initrd, "--cmdline", cmdline,
				"--memory", "size=" + m.mib() + "M", "--cpus", "boot=1", "--serial", "tty", "--console", "off"}, nil
		},
	}
}

func lkvm() *machine {
	return &machine{
		name: "lkvm", title: "kvmtool", program: "lkvm", versionFlag: "version", needsKVM: true, reboot: "k",
		args: func(m *machine, id, cmdline string) ([]string, error) {
			return []string{"run", "--name", id, "-k", m.site.Config.Kernel, "-i", m.site.Initrd, "-m", m.mib(), "-c", "1",
				"--console", "serial", "-n", "mode=none", "-p", cmdline}, nil
		},
	}
}

func gokvm() *machine {
	return &machine{
		name: "gokvm", title: "gokvm", program: "gokvm", versionFlag: "--version", needsKVM: true, reboot: "t",
		args: func(m *machine, _, cmdline string) ([]string, error) {
			return []string{"boot", "-k", m.site.Config.Kernel, "-i", m.site.Initrd, "-m", m.mib() + "M", "-c", "1", "-p", cmdline}, nil
		},
	}
}

// restored runs the program in the embedded guest that vitrine does not boot
// but restores. It has no root of the comparison's, so the program comes to it
// through standard input, in the time that is measured.
type restored struct {
	machine
	flag string // of vitrine run
}

var _ Engine = (*restored)(nil)

func vitrineWarm() *restored {
	return &restored{flag: "--warm", machine: machine{name: "vitrine-warm", title: "vitrine --warm", versionFlag: "--version"}}
}

func vitrineFork() *restored {
	return &restored{flag: "--fork", machine: machine{name: "vitrine-fork", title: "vitrine fork", versionFlag: "--version"}}
}

// Info implements Engine.
func (r *restored) Info() Info {
	i := r.machine.Info()
	i.OwnStatus = true
	i.Note = "the embedded guest; the program is copied into it while the clock runs"
	if r.site != nil && r.accel() == "soft" {
		i.Note += "; on the software CPU"
	}
	return i
}

// Prepare implements Engine.
func (r *restored) Prepare(ctx context.Context, s *Site) error {
	if err := r.machine.Prepare(ctx, s); err != nil {
		return err
	}
	help, err := exec.CommandContext(ctx, r.path, "run", "--help").Output()
	if err != nil {
		return err
	}
	if !bytes.Contains(help, []byte(r.flag+" ")) {
		return fmt.Errorf("this vitrine has no run %s", r.flag)
	}
	return nil
}

// Command implements Engine.
func (r *restored) Command(_ string, j Job) *exec.Cmd {
	script := "cd / && cat >tmp/probe && chmod 755 tmp/probe && exec tmp/probe " + strings.Join(j.args(), " ")
	c := exec.Command(r.path, "run", r.flag, "--accel", r.accel(), "--net", "none", "--memory", r.mib()+"M", "--", "sh", "-c", script)
	c.Stdin = bytes.NewReader(probe)
	// What it keeps of the first machine goes with the comparison.
	c.Env = append(os.Environ(), "VITRINE_CACHE="+filepath.Join(r.site.Dir, "cache"))
	return c
}

// accel is the one that restores fast here: a shell in the guest takes seconds
// where KVM emulates its kernel.
func (r *restored) accel() string {
	if r.site.Config.KernelsEmulated {
		return "soft"
	}
	return "auto"
}

// newEngines makes all engines, in the order of EngineNames.
func newEngines() []Engine {
	return []Engine{
		&process{}, &namespaces{},
		&oci{name: "runc", title: "runc"}, &oci{name: "crun", title: "crun"}, &podman{}, &docker{},
		&oci{name: "runsc", title: "gVisor runsc"},
		vitrine("soft"), vitrine("kvm"), vitrineWarm(), vitrineFork(),
		qemu(), firecracker(), cloudHypervisor(), lkvm(), gokvm(),
	}
}
