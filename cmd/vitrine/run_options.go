package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/boot"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
	"github.com/vitrine-vmm/vitrine/vmm/usernet"
)

// runOptions is what the flags of run say, checked as far as that is possible
// without opening anything.
type runOptions struct {
	name string

	kernel    string // a path; "" with an embedded kernel
	embedded  string // the embedded kernel: lean or full; "" with a path
	initrd    string
	append    string
	appendSet bool
	protocol  boot.Protocol

	memory    uint64
	cpus      int
	accel     string
	transport vmm.Transport
	notify    vmm.Notify

	console string // stdio, none or a file; "" where it depends: see consoleOnStdio
	disks   []disk.Options
	root    string // a part of the kernel's command line; "" leaves it to the kernel or the guest
	nets    []netOption
	publish []usernet.Publish

	timings  bool
	verbose  bool
	onReboot string
	command  []string

	deterministic bool

	manageOptions
	debugOptions
	snapshotOptions
}

func runFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "kernel", Aliases: []string{"k"}, Usage: "`FILE` a bzImage or an ELF vmlinux; lean and full are the embedded ones", Value: "lean"},
		&cli.StringFlag{Name: "initrd", Usage: "`FILE` the initial RAM disk"},
		&cli.StringFlag{Name: "append", Usage: "`STRING` the kernel's command line; with an embedded kernel, added to its own"},
		&cli.StringFlag{Name: "boot", Usage: "`HOW` the kernel is entered: auto, linux or pvh", Value: "auto"},
		&cli.StringFlag{Name: "memory", Aliases: []string{"m"}, Usage: "`SIZE` of the RAM, such as 512M or 2G", Value: "256M"},
		&cli.IntFlag{Name: "cpus", Aliases: []string{"c"}, Usage: fmt.Sprintf("`N` CPUs, 1 to %d", vmm.MaxCPUs), Value: 1},
		&cli.StringFlag{Name: "accel", Usage: "`WHAT` executes the guest: auto, kvm or soft", Value: "auto"},
		&cli.BoolFlag{Name: "deterministic", Usage: "the same run again does the same: the software CPU, no network, input read beforehand"},
		&cli.StringFlag{Name: "transport", Usage: "`HOW` devices are found: auto, mmio or pci", Value: "auto"},
		&cli.StringFlag{Name: "notify", Usage: "`HOW` drivers' notifications reach virtio devices: ioeventfd or exit", Value: "ioeventfd"},
		&cli.StringFlag{Name: "console", Usage: "`WHERE` the serial port goes: stdio, none or a file"},
		&cli.StringSliceFlag{Name: "disk", Usage: "`FILE` [,ro][,direct][,id=NAME][,format=raw|qcow2][,iops=N][,bps=SIZE]; once for each disk"},
		&cli.StringFlag{Name: "root", Usage: "`DEVICE` with the root file system: id=NAME of a disk, or /dev/…"},
		&cli.StringSliceFlag{Name: "net", Usage: "`NETWORK` user[,group=NAME], tap[=NAME], bridge=BRIDGE, each [,mac=ADDRESS][,bps=RATE], or none; once for each device (default: user)"},
		&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "`PORTS` [IP:]HOST:GUEST[/udp], the guest's port is the host's too; once for each port"},
		&cli.StringFlag{Name: "name", Usage: "`NAME` of the machine"},
		&cli.StringFlag{Name: "on-reboot", Usage: "`WHAT` a reboot of the guest does: exit or restart", Value: "exit"},
		&cli.BoolFlag{Name: "timings", Usage: "say at the end where the time went"},
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "show the embedded guest's kernel messages, and what the VMM does"},
	}, slices.Concat(manageFlags(), debugFlags(), snapshotFlags())...)
}

// parseRunOptions reads the flags and refuses what cannot be meant.
func parseRunOptions(c *cli.Context) (*runOptions, error) {
	o := &runOptions{
		name:      c.String("name"),
		initrd:    c.String("initrd"),
		append:    c.String("append"),
		appendSet: c.IsSet("append"),
		cpus:      c.Int("cpus"),
		accel:     c.String("accel"),
		notify:    vmm.Notify(c.String("notify")),
		console:   c.String("console"),
		timings:   c.Bool("timings"),
		verbose:   c.Bool("verbose"),
		onReboot:  c.String("on-reboot"),
		command:   guestCommand(c),
	}
	steps := []func(*cli.Context) error{o.parseNames, o.parseSizes, o.parseBoot, o.parseDevices, o.parseManaged, o.parseDebug, o.parseSnapshot, o.parseDeterministic}
	for _, step := range steps {
		if err := step(c); err != nil {
			return nil, err
		}
	}
	return o, o.check()
}

func (o *runOptions) parseNames(*cli.Context) error {
	if o.name != "" {
		if err := control.CheckName(o.name); err != nil {
			return usagef("choose another", "--name: %w", err)
		}
	}
	if err := oneOf("--accel", o.accel, "auto", "kvm", "soft"); err != nil {
		return err
	}
	if err := oneOf("--notify", string(o.notify), string(vmm.NotifyIOEventFD), string(vmm.NotifyExit)); err != nil {
		return err
	}
	return oneOf("--on-reboot", o.onReboot, "exit", "restart")
}

func (o *runOptions) parseSizes(c *cli.Context) (err error) {
	if o.memory, err = parseMemory(c.String("memory")); err != nil {
		return usagef("see vitrine run --help", "--memory: %w", err)
	}
	switch {
	case o.memory < vmm.MinMemory:
		return usagef("give it more", "--memory %s: a guest needs at least %s", c.String("memory"), formatSize(vmm.MinMemory))
	case o.cpus < 1 || o.cpus > vmm.MaxCPUs:
		return usagef(fmt.Sprintf("use 1 to %d", vmm.MaxCPUs), "--cpus %d: not a number of CPUs that a machine has", o.cpus)
	}
	return nil
}

func (o *runOptions) parseBoot(c *cli.Context) error {
	switch kernel := c.String("kernel"); kernel {
	case "lean", "full":
		o.embedded = kernel
	case "":
		return usagef("give the path of a bzImage or vmlinux, or leave the flag out", "--kernel: the name is empty")
	default:
		o.kernel = kernel
	}
	protocols := map[string]boot.Protocol{"auto": boot.ProtocolAuto, "linux": boot.ProtocolLinux, "pvh": boot.ProtocolPVH}
	name := c.String("boot")
	if err := oneOf("--boot", name, "auto", "linux", "pvh"); err != nil {
		return err
	}
	o.protocol = protocols[name]
	return o.parseTransport(c.String("transport"), c.IsSet("kernel"))
}

// parseTransport chooses the transport where the user has not: the embedded
// kernels start faster without a PCI bus to look through; most others have
// drivers for nothing else.
func (o *runOptions) parseTransport(name string, kernelSet bool) error {
	if err := oneOf("--transport", name, "auto", "mmio", "pci"); err != nil {
		return err
	}
	o.transport = vmm.Transport(name)
	switch {
	case name == "auto" && o.embedded != "":
		o.transport = vmm.TransportMMIO
	case name == "auto":
		o.transport = vmm.TransportPCI
	case o.transport == vmm.TransportPCI && o.embedded == "lean" && kernelSet:
		return usagef("use --kernel full", "--transport pci: the lean kernel has no PCI")
	case o.transport == vmm.TransportPCI && o.embedded == "lean":
		o.embedded = "full"
	}
	return nil
}

func (o *runOptions) parseDevices(c *cli.Context) (err error) {
	ids := make(map[string]bool)
	for _, s := range c.StringSlice("disk") {
		d, err := parseDisk(s)
		if err != nil {
			return err
		}
		if d.ID != "" && ids[d.ID] {
			return usagef("give each its own", "--disk %s: another disk has the id %s", quote(s), quote(d.ID))
		}
		ids[d.ID] = true
		if slices.ContainsFunc(o.disks, func(e disk.Options) bool { return e.Path == d.Path && !(e.ReadOnly && d.ReadOnly) }) {
			return usagef("leave one out, or give both ,ro", "--disk %s: this file is already a disk of the machine", quote(s))
		}
		o.disks = append(o.disks, d)
	}
	if root := c.String("root"); root != "" {
		if o.root, err = rootParameter(root, o.disks); err != nil {
			return err
		}
	}
	// The lean kernel is made for the embedded userland: it has no ACPI, so
	// that another could not turn the machine off.
	if o.embedded == "lean" && !o.hasAgent() && !c.IsSet("kernel") {
		o.embedded = "full"
	}
	if o.nets, err = parseNets(c.StringSlice("net")); err != nil {
		return err
	}
	o.publish, err = parsePublish(c.StringSlice("publish"), o.nets)
	return err
}

// hasAgent says whether the guest is the embedded one with its own userland,
// which has an agent to run commands and shells.
func (o *runOptions) hasAgent() bool { return o.embedded != "" && o.root == "" && o.initrd == "" }

// consoleOnStdio says whether the serial port is on standard input and output:
// where nothing else is said, of every guest without an agent.
func (o *runOptions) consoleOnStdio() bool {
	return o.console == "stdio" || o.deterministic && o.hasAgent() || o.console == "" && !o.hasAgent() && !o.detach
}

// check refuses flags that contradict each other, and files that are not there.
func (o *runOptions) check() error {
	switch {
	case o.command != nil && len(o.command) == 0:
		return usagef("vitrine run -- COMMAND", "there is no command after --")
	case o.command != nil && !o.hasAgent():
		return usagef("leave out --kernel, --initrd and --root, or have the guest's own init run it", "a command needs the embedded guest, which has an agent")
	case o.command != nil && o.console == "stdio":
		return usagef("use --console FILE, or --verbose", "the command and the console both want standard input and output")
	case strings.ContainsRune(o.append, 0):
		return usagef("leave it out", "--append has a NUL byte")
	}
	for _, f := range []struct{ flag, path string }{{"--kernel", o.kernel}, {"--initrd", o.initrd}} {
		if err := checkFile(f.flag, f.path); err != nil {
			return err
		}
	}
	return o.checkManaged()
}

// checkFile finds out early, with the flag's name, what opening the file would.
func checkFile(flag, path string) error {
	if path == "" {
		return nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %s: there is no such file: check the path", flag, path)
	case err != nil:
		return fmt.Errorf("%s: %w", flag, err)
	case info.IsDir():
		return fmt.Errorf("%s %s: a directory: give the path of a file in it", flag, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w: make it readable, or run as its owner", flag, err)
	}
	return f.Close()
}
