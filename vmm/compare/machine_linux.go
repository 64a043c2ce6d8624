package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// machine runs the program as process 1 of a virtual machine. All machines have
// the same kernel, command line, RAM and one CPU.
type machine struct {
	name, title string
	program     string // on PATH; "" is vitrine itself
	versionFlag string
	needsKVM    bool
	reboot      string   // how the kernel resets it: reboot= on its command line
	killAtEnd   string   // why it cannot end by itself
	gaveUp      string   // Info.GaveUp
	models      []string // of CPUs, for those that must choose one: tried in turn
	least       uint64   // RAM in bytes that it needs, if that is more than all have
	args        func(m *machine, id, cmdline string) ([]string, error)

	site    *Site
	path    string
	version string
	refused []string // why not the models before the first of models
}

var (
	_ Engine   = (*machine)(nil)
	_ fallback = (*machine)(nil)
)

// Info implements Engine.
func (m *machine) Info() Info {
	i := Info{Name: m.name, Title: m.title, Kind: KindMachine, Version: m.version, KillAtEnd: m.killAtEnd != "", GaveUp: m.gaveUp}
	notes := m.refused
	if m.killAtEnd != "" {
		notes = append(slices.Clone(notes), m.killAtEnd)
	}
	if m.site != nil {
		if i.RAM = m.ram(); i.RAM > m.site.Config.Memory {
			notes = append(slices.Clone(notes), fmt.Sprintf("with %d MiB of RAM, the least that it takes", i.RAM>>20))
		}
		i.Disk = []DiskItem{fileItem("engine", m.path), fileItem("kernel", m.site.Config.Kernel), fileItem("root", m.site.Initrd)}
	}
	i.Note = strings.Join(notes, "; ")
	return i
}

// Next implements fallback: it goes on to the next model of a CPU.
func (m *machine) Next(err error) bool {
	if len(m.models) < 2 {
		return false
	}
	m.refused = append(m.refused, fmt.Sprintf("not with the CPU model %s: %v", m.models[0], err))
	m.models = m.models[1:]
	return true
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
	if m.versionFlag != "" {
		m.version = firstLine(ctx, m.path, m.versionFlag)
	}
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

func (m *machine) ram() uint64 { return max(m.site.Config.Memory, m.least) }

func (m *machine) mib() string { return fmt.Sprint(m.ram() >> 20) }

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

// qemu is QEMU with its smallest machine. Not every KVM can do what its model
// "host" asks for: some refuse to set IA32_ARCH_CAPABILITIES, and QEMU aborts.
func qemu(accel string) *machine {
	m := &machine{
		name: "qemu", title: "QEMU microvm, KVM", program: "qemu-system-x86_64", versionFlag: "--version", needsKVM: true, reboot: "t",
		gaveUp: "KVM internal error", models: []string{"host", "host,arch-capabilities=off"},
		args: func(m *machine, _, cmdline string) ([]string, error) {
			return []string{"-M", "microvm,acpi=off,isa-serial=on,rtc=on", "-accel", accel, "-cpu", m.models[0], "-m", m.mib() + "M",
				"-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
				"-kernel", m.site.Config.Kernel, "-initrd", m.site.Initrd, "-append", cmdline}, nil
		},
	}
	if accel == "tcg" {
		m.name, m.title, m.needsKVM, m.models = "qemu-tcg", "QEMU microvm, TCG", false, []string{"max"}
	}
	return m
}

func firecracker() *machine {
	return &machine{
		name: "firecracker", title: "Firecracker", program: "firecracker", versionFlag: "--version", needsKVM: true, reboot: "k",
		args: func(m *machine, id, cmdline string) ([]string, error) {
			config := map[string]any{
				"boot-source":    map[string]any{"kernel_image_path": m.site.Config.Kernel, "initrd_path": m.site.Initrd, "boot_args": cmdline},
				"machine-config": map[string]any{"vcpu_count": 1, "mem_size_mib": m.ram() >> 20},
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
		name: "gokvm", title: "gokvm", program: "gokvm", needsKVM: true, reboot: "t",
		least: 256 << 20, // it puts the initramfs at 240 MiB
		args: func(m *machine, _, cmdline string) ([]string, error) {
			return []string{"boot", "-k", m.site.Config.Kernel, "-i", m.site.Initrd, "-m", m.mib() + "M", "-c", "1", "-p", cmdline}, nil
		},
	}
}

// newEngines makes all engines, in the order of EngineNames.
func newEngines() []Engine {
	return []Engine{
		&process{}, &namespaces{},
		&oci{name: "runc", title: "runc"}, &oci{name: "crun", title: "crun"}, &podman{}, &docker{},
		&oci{name: "runsc", title: "gVisor runsc"},
		vitrine("soft"), vitrine("kvm"), newWarm(), newFork(),
		qemu("kvm"), qemu("tcg"), firecracker(), cloudHypervisor(), lkvm(), gokvm(),
	}
}
