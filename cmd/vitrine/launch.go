package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/rng"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
	"github.com/vitrine-vmm/vitrine/vmm/usernet"
)

// launch is a machine about to be made: its configuration, and what was opened
// for it, which must be closed after it.
type launch struct {
	cfg     vmm.Config
	session session
	log     *slog.Logger

	devices      []virtio.Device
	network      *usernet.Network // the first user network, if any
	restores     bool             // the machine may be restored
	settles      bool             // it was, and takes new settings before clients reach it
	networkIndex int              // which of the network devices it has
	memory       *lateMemory      // the balloon's way to the guest's memory; nil without one
	backends     []blk.Backend    // of the disks
	pmems        []*disk.PMEM     // its persistent memory
	opt          *runOptions      // nil until the machine is made
	random       *rand.ChaCha8    // of the entropy device, with --deterministic
	closers      []func() error
	beforeClose  func() // before the machine is closed; nil: nothing
}

func (l *launch) onClose(f func() error) { l.closers = append(l.closers, f) }

func (l *launch) close() {
	for i := len(l.closers) - 1; i >= 0; i-- {
		if err := l.closers[i](); err != nil {
			l.log.Warn("clean-up", "error", err)
		}
	}
}

// open opens everything that the options name. After an error nothing stays
// open.
func (o *runOptions) open(r *runner) (*launch, error) {
	l := &launch{log: r.log(nil)}
	if r.live != nil {
		l.log = r.live.log
	}
	if err := l.openAll(o, r); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// logLevel: a command's standard error is the command's alone.
func (o *runOptions) logLevel() slog.Level {
	switch {
	case o.verbose:
		return slog.LevelInfo
	case o.command != nil:
		return slog.LevelError
	}
	return slog.LevelWarn
}

func (l *launch) openAll(o *runOptions, r *runner) (err error) {
	l.cfg = vmm.Config{
		Name: o.name, Memory: o.memory, CPUs: o.cpus, Accel: o.accel, Transport: o.transport, Notify: o.notify,
		Initrd: o.initrd, Protocol: o.protocol, ACPI: o.embedded != "lean", Log: l.log,
	}
	l.cfg.CoreFile = o.core
	l.restores = o.warm || o.saved != nil
	if l.cfg.CacheDir, err = cacheDir(); err != nil {
		return err
	}
	if err := l.openDisks(o.disks, o.cpus, o.deterministic); err != nil {
		return err
	}
	if err := l.openNets(o.nets, o.publish, o.cpus); err != nil {
		return err
	}
	if err := l.openSession(o, r); err != nil {
		return err
	}
	if err := l.openManaged(o); err != nil {
		return err
	}
	if err := l.openKernel(o); err != nil {
		return err
	}
	var random io.Reader
	if o.deterministic {
		l.random = fixedRandom()
		l.cfg.Deterministic, random = true, l.random
	}
	l.cfg.Devices = append(l.devices, rng.New("rng", random))
	return nil
}

// openSession connects the user with the guest: through the agent, or through
// the serial port.
func (l *launch) openSession(o *runOptions, r *runner) error {
	if err := l.openConsole(o, r); err != nil {
		return err
	}
	if l.session == nil && o.hasAgent() {
		return l.openAgent(o, r)
	}
	if l.session == nil {
		l.session = unattended{}
	}
	return nil
}

func (l *launch) openConsole(o *runOptions, r *runner) error {
	switch {
	case o.deterministic && o.hasAgent():
		return l.openRecorded(o, r)
	case o.consoleOnStdio():
		s := newConsoleSession(o, r)
		l.onClose(s.in.Close)
		l.cfg.Console = vmm.Serial{In: s.in, Out: r.heard(r.out)}
		l.session = s
	case o.console == "" && o.detach && o.command != nil: // which has the input
		l.cfg.Console.Out = r.hub
	case o.console == "" && o.detach:
		in := newUserInput(r.in)
		l.onClose(in.Close)
		l.cfg.Console = vmm.Serial{In: in, Out: r.hub}
	case o.console == "" && o.verbose:
		l.cfg.Console.Out = r.heard(r.errOut.w)
	case o.console == "":
		l.cfg.Console.Out = r.heard(nil)
	case o.console != "" && o.console != "none":
		f, err := os.OpenFile(o.console, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("--console: %w: choose a file that you may write to", err)
		}
		l.onClose(f.Close)
		l.cfg.Console.Out = r.heard(f)
	}
	return nil
}

// heard is the console's way to w, if not nil, and to those who listen: the
// machine's log, and users at its control socket.
func (r *runner) heard(w io.Writer) io.Writer {
	switch {
	case r.hub == nil:
		return w
	case w == nil:
		return r.hub
	}
	return io.MultiWriter(w, r.hub)
}

// Words for a kernel's command line where KVM emulates guest kernels.
const (
	// fewerTurns is for the embedded kernels: what of
	// guestimages.FewerInstructions leaves /sys complete.
	fewerTurns = guestimages.EmulatedByKVM + " rodata=off noreplace-smp"

	// plainCode is for kernels that we have not made. Such a KVM gives the
	// guest all that the host's processor has, and distributions' kernels then
	// hash and checksum with AVX-512, AVX and SSE, which its emulator lacks and
	// which cannot be completed, or cost 50 µs an instruction: what their code
	// for these asks for is taken away, and the modules are that ask for AVX
	// itself. AVX and AVX-512F must stay: programs see the processor's own CPUID
	// and XCR0 there and use them whatever the kernel thinks, and one that thinks
	// they are missing does not keep their registers (clearcpuid=avx mixed those
	// of two processes up).
	//
	// The kernel's tests of its own cryptography, and its jitter generator's of
	// itself, take minutes; ftrace looks up the name of each of its places, and
	// each enumeration in the formats of its events: nothing needs any of
	// these. rodata=off also spares each module the change of its pages' rights,
	// init_on_alloc=0 each system call with a path 4 KiB of zeros.
	plainCode = "clocksource=kvm-clock clearcpuid=erms,fsrm,ssse3,sse4_2,aes,pclmulqdq,sha_ni,avx512vl,vaes,vpclmulqdq,gfni " +
		"module_blacklist=sha1_ssse3,sha256_ssse3,sha512_ssse3 rodata=off noreplace-smp init_on_alloc=0 " +
		"cryptomgr.notests=1 initcall_blacklist=jent_mod_init,ftrace_check_for_weak_functions,trace_eval_init nowatchdog"

	// patience is for systemd and udev, if that is what the user's space has:
	// it starts a machine's units all at once, and takes those for failed that
	// are not up after 90 s, or a service for hung that has not been heard of
	// for 3 minutes; udev ends what works on an event for 3 minutes
	// (systemd(1), systemd-udevd.service(8)). Each word has a dot, so that the
	// kernel hands none to another init.
	patience = "systemd.default_timeout_start_sec=1800 systemd.default_device_timeout_sec=1800 " +
		"systemd.service_watchdogs=0 udev.event_timeout=1800"

	// rootDelay is for the scripts of an initial RAM disk: Debian's wait 30 s
	// for the root's device when they have waited 2 minutes for udev, which
	// takes 5 to load what the device needs (initramfs-tools(7)).
	rootDelay = "rootdelay=240"
)

// emulatedWords are the words for this host, each with a space behind it, where
// a kernel needs some to boot, or to boot in seconds. A command line of the
// user's for a kernel of the user's is left as it is.
func (o *runOptions) emulatedWords() string {
	switch {
	case o.accel == string(vmm.AccelSoft) || o.appendSet && o.embedded == "" || !vmm.KernelsEmulated():
		return ""
	case o.embedded == "" && o.initrd != "":
		return plainCode + " " + patience + " " + rootDelay + " "
	case o.embedded == "":
		return plainCode + " " + patience + " "
	}
	return fewerTurns + " " + patience + " "
}

// ownCommandLine is the command line of a kernel that is not the embedded
// guest's: what the user says, or what makes its console work and its panics
// seen.
func (o *runOptions) ownCommandLine() string {
	line := o.append
	if !o.appendSet || o.embedded != "" {
		line = strings.TrimSpace("console=ttyS0 panic=-1 " + o.append)
	}
	if o.root != "" && !hasParameter(line, "root") {
		// What follows "--" is for init.
		line = o.root + " " + line
	}
	return line
}

// hasParameter says whether a kernel's command line sets the parameter.
func hasParameter(line, name string) bool {
	for _, word := range strings.Fields(line) {
		if word == "--" {
			return false
		}
		if key, _, ok := strings.Cut(word, "="); ok && key == name {
			return true
		}
	}
	return false
}

// hostError adds the next step to an error of the host that any part of a
// machine may meet.
func hostError(err error) error {
	if errors.Is(err, syscall.ENOMEM) {
		return fmt.Errorf("%w: free memory, or use a smaller --memory", err)
	}
	return err
}

// unattended is the session of a machine that nobody talks to.
type unattended struct{}

var _ session = unattended{}
