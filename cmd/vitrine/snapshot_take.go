package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/disk"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

func init() { launchExtras = append(launchExtras, snapshotExtra) }

// snapshotRequest is the body of POST /v1/action/snapshot; the answer is a
// vmm.Saved.
type snapshotRequest struct {
	Dir   string `json:"dir"`            // absolute
	Base  string `json:"base,omitempty"` // absolute: only what changed since this one
	Stop  bool   `json:"stop,omitempty"` // end the machine then
	Track bool   `json:"track,omitempty"`
	fork  bool
	exec  uint32 // the connection of the program that is to go on
}

// snapshotExtra serves snapshots of the machine.
func snapshotExtra(m *vmm.Machine, l *launch) control.Extra {
	if l.opt == nil {
		return control.Extra{}
	}
	return control.Extra{Action: map[string]http.Handler{"snapshot": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req snapshotRequest
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&req); err != nil || !filepath.IsAbs(req.Dir) {
			http.Error(w, "want {\"dir\": FOLDER}, an absolute path", http.StatusBadRequest)
			return
		}
		saved, err := l.save(r.Context(), m, &req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(saved)
		if req.Stop {
			m.Stop(errEnd)
		}
	})}}
}

// save makes a snapshot of the machine and of the disks that it writes to.
func (l *launch) save(ctx context.Context, m *vmm.Machine, req *snapshotRequest) (vmm.Saved, error) {
	var run *savedRun
	// What it says of connections and of the agent has to be true of the moment
	// in which the guest stood.
	app := func() (json.RawMessage, error) {
		run = l.describe()
		run.Exec = req.exec
		return json.Marshal(run)
	}
	ctx, cancel := context.WithTimeout(ctx, pauseTime)
	defer cancel()
	return m.Save(ctx, req.Dir, vmm.SaveOptions{
		Maker: version(), App: app, Base: req.Base, Volatile: req.fork, Track: req.Track && !req.Stop, KeepPaused: req.Stop,
		Files: func(w *snapshot.Writer) error { return l.copyDisks(w, run) },
	})
}

// describe is what a snapshot keeps of how the machine was made.
func (l *launch) describe() *savedRun {
	o := l.opt
	run := &savedRun{Version: savedRunVersion, Flags: o.given, Command: o.command}
	for i, d := range o.disks {
		s := savedDisk{Format: d.Format}
		if !d.ReadOnly {
			s.File = "disk-" + diskName(i)
		}
		run.Disks = append(run.Disks, s)
	}
	if s, ok := l.session.(*agentSession); ok {
		run.Agent = s.listens.Load()
	}
	if n := l.network; n != nil {
		run.Interface = fmt.Sprintf("eth%d", l.networkIndex)
		run.MAC, run.Gateway, run.DNS = n.GuestMAC().String(), n.Gateway().String(), n.DNS().String()
		run.Connections = n.Connections()
		run.Address = fmt.Sprintf("%v/%d", n.GuestIP(), n.Subnet().Bits())
	}
	return run
}

// copyDisks puts the disks that the guest writes to into a snapshot. The
// machine is paused.
func (l *launch) copyDisks(w *snapshot.Writer, run *savedRun) error {
	for i, s := range run.Disks {
		d := l.opt.disks[i]
		if s.File == "" {
			continue
		}
		if d.Format == disk.QCOW2 {
			if err := flushDisk(l.backends[i]); err != nil {
				return fmt.Errorf("disk %s: %w", d.Path, err)
			}
		}
		if err := disk.Copy(w.Path(s.File), d.Path); err != nil {
			return err
		}
	}
	return nil
}

// flushDisk has a disk write down what it keeps in memory of its format.
func flushDisk(b blk.Backend) error { return request(b, &blk.Request{Op: blk.OpFlush}) }

// request does one request on a disk.
func request(b blk.Backend, r *blk.Request) error {
	done := make(chan error, 1)
	ch, err := b.Open(context.Background(), 1, func(rs []*blk.Request) { done <- rs[0].Err })
	if err != nil {
		return err
	}
	ch.Submit(r)
	ch.Kick()
	return errors.Join(<-done, ch.Close())
}
