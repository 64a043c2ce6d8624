package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/devices/debugport"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/agent"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

func restoreCommand() *cli.Command {
	return &cli.Command{
		Name: "restore", ArgsUsage: "DIR [-- COMMAND [ARGUMENT…]]", OnUsageError: onUsageError,
		Usage: "go on from a snapshot",
		Description: "The snapshot stays as it is: memory is read from it when the guest wants it, and what the guest writes,\n" +
			"to its disks too, is this machine's alone and is gone with it. --disk ID=FILE keeps a disk in FILE instead.\n" +
			"docs/snapshots.md says what changes in the guest.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the machine"},
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "leave the machine running in the background, and print its name"},
			&cli.StringSliceFlag{Name: "net", Usage: "`NETWORK` instead of those that it had; see vitrine run --help"},
			&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "`PORTS` instead of those that it had"},
			&cli.StringSliceFlag{Name: "disk", Usage: "`ID=FILE` keeps the disk ID (or vda, vdb…) in FILE, which is made"},
			&cli.StringFlag{Name: "console", Usage: "`WHERE` the serial port goes: stdio, none or a file"},
			&cli.StringFlag{Name: "accel", Usage: "`WHAT` executes the guest: kvm or soft (default: what did)"},
			&cli.BoolFlag{Name: "prefetch", Usage: "read ahead what of memory the first machine with this flag has needed; the first one, all"},
			&cli.BoolFlag{Name: "verify", Usage: "read all of memory first, and compare its checksums"},
			&cli.BoolFlag{Name: "timings", Usage: "say at the end where the time went"},
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "show what the VMM does"},
			&cli.BoolFlag{Name: "fork", Hidden: true}, // the snapshot goes when its last machine ends
			stateFlag(),
		},
		Action: restoreAction,
	}
}

// restoring is a machine that is being restored.
type restoring struct {
	snapshot *snapshot.Snapshot
	run      *savedRun
	dir      string // for what the machine writes to its disks
	hostname string
	fork     bool         // one of several from the same
	watch    bool         // note what it needs of memory, for the next one
	begin    func() error // when the machine has its state, before it runs; nil: nothing
}

func restoreAction(c *cli.Context) error {
	args, err := lateFlags(c)
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return usagef("vitrine restore DIR", "vitrine restore: want the folder of one snapshot")
	}
	s, run, err := openSaved(args[0])
	if err != nil {
		return err
	}
	defer s.Close()
	if c.Bool("detach") && !isDetached() {
		return detachAgain(c)
	}
	if c.Bool("verify") {
		if err := s.Verify(); err != nil {
			return err
		}
	}
	r := &restoring{snapshot: s, run: run, hostname: c.String("name"), fork: c.Bool("fork")}
	if c.Bool("prefetch") {
		_, known := s.WorkingSet()
		r.watch = !known
		go s.Prefetch()
	}
	if r.fork {
		release, err := holdFork(s.Path)
		if err != nil {
			return err
		}
		defer release()
	}
	defer r.clean()
	line, err := r.commandLine(c)
	if err != nil {
		return err
	}
	return runSaved(c, r, line)
}

// runSaved is vitrine run with the command line line, for a machine that is
// restored.
func runSaved(c *cli.Context, r *restoring, line []string) error {
	app := newApp(c.App.Reader, c.App.Writer, c.App.ErrWriter)
	app.Metadata = map[string]any{savedKey: r, argsKey: c.App.Metadata[argsKey], commandKey: c.App.Metadata[commandKey]}
	return app.RunContext(c.Context, append([]string{"vitrine", "run"}, line...))
}

// openSaved opens a snapshot that this program has made.
func openSaved(dir string) (*snapshot.Snapshot, *savedRun, error) {
	s, err := snapshot.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	run, err := decodeSavedRun(s.State.App)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("snapshot %s: %w", dir, err), s.Close())
	}
	return s, run, nil
}

// commandLine is that of the machine that was saved, with what the flags of
// restore change.
func (r *restoring) commandLine(c *cli.Context) (line []string, err error) {
	given := givenFlags(c)
	for _, name := range []string{"name", "console", "accel", "state"} {
		if given[name] {
			line = append(line, "--"+name+"="+c.String(name))
		}
	}
	for _, name := range []string{"detach", "timings", "verbose"} {
		if c.Bool(name) {
			line = append(line, "--"+name)
		}
	}
	for _, name := range []string{"net", "publish"} {
		for _, v := range c.StringSlice(name) {
			line = append(line, "--"+name+"="+v)
		}
	}
	disks, err := r.disks(c.StringSlice("disk"))
	if err != nil {
		return nil, err
	}
	for _, f := range r.run.Flags {
		switch {
		case f.Name == "disk" && len(disks) == 0:
			return nil, fmt.Errorf("snapshot %s: it has fewer disks than its machine", r.snapshot.Path)
		case f.Name == "disk":
			f.Value, disks = disks[0], disks[1:]
		case given[f.Name], r.fork && f.Name == "publish":
			continue
		case r.fork && f.Name == "vsock":
			f.Value += "." + r.hostname
		}
		line = append(line, "--"+f.Name+"="+f.Value)
	}
	return line, nil
}

// disks are the values of --disk for the machine: what is written goes to
// copies, so that the snapshot stays as it is.
func (r *restoring) disks(given []string) ([]string, error) {
	files := make(map[string]string)
	for _, s := range given {
		id, file, ok := strings.Cut(s, "=")
		if !ok || id == "" || file == "" {
			return nil, usagef("use --disk ID=FILE", "--disk %s: want a disk of the snapshot and a file", quote(s))
		}
		files[id] = file
	}
	var out []string
	n := 0
	for _, f := range r.run.Flags {
		if f.Name != "disk" {
			continue
		}
		d, err := parseDisk(f.Value)
		if err != nil {
			return nil, err
		}
		if n == len(r.run.Disks) {
			break
		}
		name := diskName(n)
		file := files[d.ID]
		if file == "" {
			file = files[name]
		}
		delete(files, d.ID)
		delete(files, name)
		if s := r.run.Disks[n]; s.File != "" {
			if err := r.disk(&d, s, file); err != nil {
				return nil, err
			}
		} else if file != "" {
			d.Path = absolute(file)
		}
		out = append(out, diskText(&d))
		n++
	}
	for id := range files {
		return nil, usagef("see vitrine snapshot inspect "+shellWord(r.snapshot.Path), "--disk %s=…: the snapshot has no such disk", id)
	}
	return out, nil
}

// disk makes d a disk that begins as the one in the snapshot: in file, if one
// is given, else in a folder that goes with the machine.
func (r *restoring) disk(d *disk.Options, s savedDisk, file string) (err error) {
	base := filepath.Join(r.snapshot.Path, s.File)
	if file == "" {
		if r.dir == "" {
			if r.dir, err = os.MkdirTemp("", "vitrine-restored-"); err != nil {
				return err
			}
		}
		file = filepath.Join(r.dir, s.File)
	}
	d.Path = absolute(file)
	if _, err := os.Lstat(d.Path); err == nil {
		// The guest goes on with what it knows of the disk as it was saved.
		return fmt.Errorf("--disk: %s is there already: choose a new file, which will begin as the disk in the snapshot", d.Path)
	}
	d.Format, err = disk.CreateOverlay(d.Path, base, s.Format)
	return err
}

// clean removes what goes with the machine.
func (r *restoring) clean() {
	if r.dir != "" {
		_ = os.RemoveAll(r.dir)
	}
}

// newMachine makes the machine: restored from a snapshot, or new.
func (r *runner) newMachine(l *launch) (*vmm.Machine, error) {
	l.opt = r.opt
	defer func() {
		if !l.settles {
			l.releaseNetwork()
		}
	}()
	if r.opt.saved == nil && r.opt.warm {
		return r.warmMachine(l)
	}
	if r.opt.saved == nil {
		return vmm.New(l.cfg)
	}
	m, err := r.restoredMachine(l, r.opt.saved)
	if err == nil && r.opt.saved.watch {
		l.watchNeeds(m, r.opt.saved.snapshot)
	}
	r.opt.saved = nil // a guest that reboots boots
	return m, err
}

// needsTime is how long a restored machine is watched for what it needs of
// memory at its beginning.
const needsTime = 2 * time.Second

// watchNeeds notes beside a snapshot what m has needed of it, after a while or
// at its end.
func (l *launch) watchNeeds(m *vmm.Machine, s *snapshot.Snapshot) {
	note := sync.OnceFunc(func() {
		need, ok := m.WorkingSet()
		if !ok {
			return
		}
		if err := s.NoteWorkingSet(need); err != nil {
			l.log.Info("what the machine has needed of memory is not noted", "error", err)
		}
	})
	timer := time.AfterFunc(needsTime, note)
	l.beforeClose = func() {
		timer.Stop()
		note()
	}
}

func (r *runner) restoredMachine(l *launch, s *restoring) (*vmm.Machine, error) {
	a, hasAgent := l.session.(*agentSession)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	var m *vmm.Machine
	settle := sync.OnceFunc(func() { wg.Go(func() { l.settleRestored(ctx, m, a, s) }) })
	if hasAgent {
		// The agent may say again that it listens. Or it says so for the first
		// time, in a machine that was saved before: either way nobody is to
		// speak to it before the guest has its settings.
		l.cfg.OnMark = func(mark uint8) {
			if mark == debugport.MarkAgent {
				a.listens.Store(true)
				settle()
			}
		}
	}
	var err error
	m, err = vmm.Restore(l.cfg, s.snapshot)
	if err == nil && s.begin != nil {
		if err = s.begin(); err != nil {
			err = errors.Join(err, m.Close())
		}
	}
	if err != nil {
		cancel()
		return nil, err
	}
	if !hasAgent {
		cancel()
		l.resetConnections(s.run)
		return m, nil
	}
	l.settles = true
	l.onClose(func() error { cancel(); wg.Wait(); return nil })
	if s.run.Agent {
		a.listens.Store(true)
		settle()
	}
	return m, nil
}

// settleRestored gives a restored guest its settings, and then lets others
// speak to it.
func (l *launch) settleRestored(ctx context.Context, m *vmm.Machine, a *agentSession, s *restoring) {
	begun := time.Now()
	err := l.settle(ctx, a, s)
	l.releaseNetwork()
	switch {
	case err == nil:
		m.Timings().Settled()
		l.log.Info("the restored guest has its new settings", "took", time.Since(begun))
	case ctx.Err() == nil:
		l.log.Warn("the restored guest has not taken its new settings", "error", err)
	}
	a.agentReady()
	l.resetConnections(s.run)
}

// resetConnections ends what the guest had open through the user network of the
// machine that was saved.
func (l *launch) resetConnections(run *savedRun) {
	if l.network != nil {
		l.network.Reset(run.Connections)
	}
}

// releaseNetwork lets clients of published ports through.
func (l *launch) releaseNetwork() {
	if l.network != nil {
		l.network.Release()
	}
}

// settleTime is how long a restored guest may take to answer. On hosts that
// emulate guest kernels, or with many machines at once, it needs a while.
const settleTime = 30 * time.Second

// settle gives a restored guest what it must not share with its twins, and the
// time of now.
func (l *launch) settle(ctx context.Context, a *agentSession, s *restoring) error {
	client, ok := a.agent.(*agent.Client)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	set := agent.Settings{Clock: time.Now(), Entropy: make([]byte, 64), Hostname: s.hostname}
	_, _ = rand.Read(set.Entropy) // never fails
	if n := l.network; n != nil {
		address := fmt.Sprintf("%v/%d", n.GuestIP(), n.Subnet().Bits())
		if mac := n.GuestMAC().String(); address != s.run.Address || mac != s.run.MAC {
			set.Interfaces = []agent.Interface{{Name: fmt.Sprintf("eth%d", l.networkIndex), MAC: net.HardwareAddr(n.GuestMAC()), CIDR: address, Gateway: n.Gateway().String()}}
		}
		if dns := n.DNS().String(); dns != s.run.DNS {
			set.DNS = dns
		}
	}
	for {
		err := client.Configure(ctx, set)
		var refused *agent.Error
		if err == nil || errors.As(err, &refused) || ctx.Err() != nil {
			return err
		}
		// The guest learns in this moment that all its connections are gone,
		// and its agent begins to listen again.
		if !pause(ctx, time.Millisecond) {
			return err
		}
	}
}
