package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/debugport"
	guestimages "github.com/vitrine-vmm/vitrine/guest-images"
	"github.com/vitrine-vmm/vitrine/vmm"
)

// checkWarm refuses --warm where a machine has what the next one must not begin
// with.
func (o *runOptions) checkWarm() error {
	switch {
	case !o.warm:
		return nil
	case !o.hasAgent():
		return usagef("leave out --kernel FILE, --initrd and --root, or use vitrine snapshot", "--warm needs the embedded guest, which says when it is ready")
	case len(o.disks) > 0 || len(o.shares) > 0 || len(o.pmems) > 0:
		return usagef("use vitrine snapshot and vitrine restore", "--warm: a guest that has seen a disk or a folder must not find another one in its place")
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
	boot, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	b, err := json.Marshal([]any{
		version(), info.Size(), info.ModTime().UnixNano(), string(boot), l.cfg.Kernel, l.cfg.PMEMImage, l.cfg.Accel, l.cfg.Memory, l.cfg.CPUs,
		l.cfg.Transport, l.cfg.ACPI, l.cfg.HugePages, devices, words,
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12]), nil
}

// warmMachine goes on from where an earlier machine of this kind had booted. If
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
	if m, err := r.restoreWarm(l, dir); err == nil {
		return m, nil
	} else if _, missing := os.Stat(dir); missing == nil {
		l.log.Info("the kept machine is of no use: this one boots", "folder", dir, "error", err)
	}
	var m *vmm.Machine
	ready := sync.OnceFunc(func() {
		go func() {
			if _, err := l.save(context.Background(), m, &snapshotRequest{Dir: dir}); err != nil {
				l.log.Warn("the machine is not kept for --warm", "error", err)
			}
			a.agentReady()
		}()
	})
	l.cfg.OnMark = func(b uint8) {
		if b == debugport.MarkAgent {
			ready()
			return
		}
		mark(b)
	}
	m, err = vmm.New(l.cfg)
	return m, err
}

func (r *runner) restoreWarm(l *launch, dir string) (*vmm.Machine, error) {
	s, run, err := openSaved(dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	// It was saved in the moment in which its agent was ready.
	run.Agent = true
	return r.restoredMachine(l, &restoring{snapshot: s, run: run, hostname: r.opt.name})
}
