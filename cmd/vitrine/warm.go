package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/debugport"
	"github.com/vitrine-vmm/vitrine/devices/virtio/vsock"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/agent"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
)

// checkWarm refuses --warm where a machine has what the next one must not begin
// with.
func (o *runOptions) checkWarm() error {
	switch {
	case !o.warm:
		return nil
	case !o.hasAgent():
		return usagef("leave out --kernel FILE, --initrd and --root, or use vitrine snapshot", "--warm needs the embedded guest, which says when it is ready")
	case slices.ContainsFunc(o.disks, func(d disk.Options) bool { return !d.ReadOnly || d.Format == disk.QCOW2 }) || len(o.shares) > 0 || len(o.pmems) > 0:
		return usagef("use --disk FILE,ro with a raw image, or vitrine snapshot and vitrine restore", "--warm: a guest that has seen a disk or a folder must not find another one in its place")
	case o.warmAt.text != "" && o.command == nil:
		return usagef("vitrine run --warm-at "+shellWord(o.warmAt.text)+" -- COMMAND", "--warm-at is a moment in the life of a command")
	}
	return nil
}

// warmFolder is where machines are kept that had booted.
func warmFolder(cache string) string { return filepath.Join(cache, "warm") }

// warmKey is different for machines of which one must not go on as the other:
// other programs, images, CPUs, memory, devices or settings.
func (l *launch) warmKey() (string, error) {
	var devices []string
	for _, d := range l.cfg.Devices {
		s := d.Spec()
		devices = append(devices, fmt.Sprintf("%s %d %#x %v %d", s.Name, s.ID, s.Features, s.QueueMax, s.ConfigLen))
	}
	var words []string
	for _, w := range strings.Fields(l.cfg.CommandLine) {
		if !strings.HasPrefix(w, guestimages.ParamHostname) {
			words = append(words, w)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	info, err := os.Stat(self)
	if err != nil {
		return "", err
	}
	disks, err := identities(l.opt.disks)
	if err != nil {
		return "", err
	}
	var command []string
	if l.opt.warmAt.text != "" {
		command = l.opt.command
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	b, err := json.Marshal([]any{
		version(), info.Size(), info.ModTime().UnixNano(), string(boot), l.cfg.Kernel, l.cfg.PMEMImage, l.cfg.Accel, l.cfg.Memory, l.cfg.CPUs,
		l.cfg.Transport, l.cfg.ACPI, l.cfg.HugePages, devices, words,
		disks, l.opt.warmAt.text, command, agent.DefaultEnv(),
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12]), nil
}

// identities are what tells disks apart from others, and from what they were
// before somebody wrote to them.
func identities(disks []disk.Options) (ids []string, err error) {
	for _, d := range disks {
		id, err := fileIdentity(d.Path)
		if err != nil {
			return nil, fmt.Errorf("disk %s: %w", d.Path, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// warmMachine goes on from where an earlier machine of this kind was kept. If
// there is none, or it is of no use, it boots one and keeps it.
func (r *runner) warmMachine(l *launch) (*vmm.Machine, error) {
	r.opt.warm = false // a guest that reboots boots
	a, ok := l.session.(*agentSession)
	if ok {
		a.brief = true // it has no disk to write to: see checkWarm
	}
	key, err := l.warmKey()
	if err != nil || !ok {
		return vmm.New(l.cfg)
	}
	dir := filepath.Join(warmFolder(l.cfg.CacheDir), key)
	mark := l.cfg.OnMark
	if m, err := r.restoreWarm(l, a, dir); err == nil {
		return m, nil
	} else if _, missing := os.Stat(dir); missing == nil {
		l.log.Info("the kept machine is of no use: this one boots", "folder", dir, "error", err)
	}
	var m *vmm.Machine
	keep := func(req *snapshotRequest) {
		req.Dir = dir
		saved, err := l.save(context.Background(), m, req)
		if err != nil {
			l.log.Warn("the machine is not kept for --warm", "error", err)
			return
		}
		l.log.Info("the machine is kept for --warm", "folder", dir, "memory", formatSize(saved.Stored), "paused", saved.Paused)
	}
	l.cfg.OnMark = mark
	if client, ok := a.agent.(*agent.Client); ok && r.opt.warmAt.text != "" {
		a.lasting = &lasting{point: r.opt.warmAt, get: getter(client), keep: func(port uint32) { keep(&snapshotRequest{exec: port}) }}
	} else {
		ready := sync.OnceFunc(func() {
			go func() {
				keep(new(snapshotRequest))
				a.agentReady()
			}()
		})
		l.cfg.OnMark = func(b uint8) {
			if b == debugport.MarkAgent {
				a.listens.Store(true)
				ready()
				return
			}
			mark(b)
		}
	}
	m, err = vmm.New(l.cfg)
	return m, err
}

func (r *runner) restoreWarm(l *launch, a *agentSession, dir string) (*vmm.Machine, error) {
	s, run, err := openSaved(dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	// It was saved in the moment in which its agent was ready, or later.
	run.Agent = true
	restoring := &restoring{snapshot: s, run: run, hostname: r.opt.name}
	if r.opt.warmAt.text != "" {
		restoring.begin = func() error { return l.resumeProgram(a, run) }
	}
	return r.restoredMachine(l, restoring)
}

// resumeProgram takes up the connection of the program that the machine was
// kept with.
func (l *launch) resumeProgram(a *agentSession, run *savedRun) error {
	dev := deviceOf[*vsock.Device](l)
	if dev == nil || run.Exec == 0 {
		return errNotKept
	}
	conn, err := dev.Resume(run.Exec)
	if err != nil {
		return err
	}
	kept, ok := conn.(agent.KeptConn)
	if !ok {
		return errNotKept
	}
	a.lasting = &lasting{point: l.opt.warmAt, from: kept}
	return nil
}
