package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/vsock"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/agent"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// live is a machine as others see it: its name and record in the run
// directory, its logs, and the control socket. It outlives the vmm.Machines
// that a guest which reboots goes through.
type live struct {
	opt    *runOptions
	clone  bool // one of those that vitrine fork makes
	hub    *control.Hub
	log    *slog.Logger
	logs   *machineLogs
	dir    *control.Dir
	claim  *control.Claim // nil: there was no run directory to use
	server *control.Server
	done   chan struct{} // closed when the machine has ended

	mu     sync.Mutex
	m      *vmm.Machine // nil between two machines, and at the end
	ran    bool         // there was an m
	l      *launch
	killed error // Kill was called, and with it this
	record control.Record

	looks sync.RWMutex // read-held while somebody looks into m
	views sync.WaitGroup
	end   context.CancelFunc // of the views of m
}

var _ control.Machine = (*live)(nil)

// killedError is the reason of an end that came over the control socket.
type killedError struct{ reason string }

func (e *killedError) Error() string { return e.reason }

// statusKilled is the exit status of a machine that was killed.
const statusKilled = statusSignal + 9

// register takes a name for the machine, and begins its record and its logs.
func (r *runner) register() (*live, error) {
	v := &live{opt: r.opt, clone: r.opt.saved != nil && r.opt.saved.fork, hub: r.hub, log: r.log(nil), done: make(chan struct{}), end: func() {}}
	err := v.takeName()
	switch {
	case err == nil:
	case r.opt.name != "" || r.opt.detach:
		return nil, err
	default: // it can run all the same
		v.log.Warn("the machine has no name: others cannot see it", "error", err)
	}
	v.logs = openLogs(v.claim, r.opt, v.hub)
	v.log = r.log(v.logs)
	if err := v.update(func(rec *control.Record) { rec.State = control.StateStarting }); err != nil {
		_ = v.hub.Close()
		v.logs.close()
		return nil, errors.Join(err, v.claim.Forget()) // only with a claim can it fail
	}
	return v, nil
}

func (v *live) takeName() (err error) {
	o := v.opt
	if v.dir, err = control.OpenDir(o.stateDir()); err != nil {
		return err
	}
	if v.claim, err = claimName(v.dir, o.name); err != nil {
		return err
	}
	v.record = control.Record{
		Name: v.claim.Name(), Created: time.Now(), Command: o.command, Detached: o.detach,
		CPUs: o.cpus, Memory: o.memory, Kernel: o.kernel, Accel: o.accel,
	}
	if o.embedded != "" {
		v.record.Kernel = o.embedded
	}
	v.record.Leftovers = o.leftovers()
	v.record.Config, err = json.Marshal(o.file)
	return err
}

// update changes the record, here and in the run directory.
func (v *live) update(change func(*control.Record)) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(&v.record)
	if v.claim == nil {
		return nil
	}
	return v.claim.Update(func(r *control.Record) { *r = v.record })
}

// note is update for where a failure must not stop a machine.
func (v *live) note(state control.State) {
	if err := v.update(func(r *control.Record) { r.State = state }); err != nil {
		v.log.Warn("the machine's record is out of date", "error", err)
	}
}

// show begins to show m to others, at the control socket too.
func (v *live) show(m *vmm.Machine, l *launch) error {
	v.mu.Lock()
	v.m, v.l, v.ran = m, l, true
	killed := v.killed
	v.mu.Unlock()
	if killed != nil {
		m.Stop(killed)
	}
	if v.claim == nil {
		return nil
	}
	extra := v.extras(m, l)
	if v.server != nil {
		v.server.SetExtra(extra)
		return nil
	}
	var err error
	if v.server, err = control.Serve(v.claim.Path(control.SocketFile), v, extra); err != nil {
		return err
	}
	accel := string(m.Accelerator()) // which "auto" has come to
	if err := v.update(func(r *control.Record) { r.State, r.Accel = control.StateRunning, accel }); err != nil {
		v.log.Warn("the machine's record is out of date", "error", err)
	}
	v.log.Info("the machine runs", "cpus", v.opt.cpus, "memory", formatSize(v.opt.memory), "accelerator", accel)
	go v.settle()
	return nil
}

// settled is when a machine has started, and what that took can be given back.
const settled = 3 * time.Second

// settle does what can wait until the machine runs: it removes what others have
// left, and gives the host the memory back that loading a kernel and assembling
// the machine took. Go's collector would do that only when the heap grows, and
// that of an idle machine does not.
func (v *live) settle() {
	if !v.clone { // who makes a hundred clones has swept once
		if err := v.dir.Sweep(); err != nil {
			v.log.Warn("remove what other machines have left", "error", err)
		}
	}
	select {
	case <-time.After(settled):
		debug.FreeOSMemory()
	case <-v.done:
	}
}

// hide ends what show began: when it returns nobody looks into the machine any
// more.
func (v *live) hide() {
	v.mu.Lock()
	v.m, v.l = nil, nil
	v.mu.Unlock()
	if v.server != nil {
		v.server.SetExtra(control.Extra{})
	}
	v.end()
	v.awaitLooks()
	v.views.Wait()
}

// awaitLooks returns when those who look have finished.
func (v *live) awaitLooks() {
	v.looks.Lock()
	defer v.looks.Unlock()
}

// finish writes down how the machine ended and leaves the run directory.
func (v *live) finish(err error) {
	code := status(err, io.Discard)
	now := time.Now()
	rerr := v.update(func(r *control.Record) {
		r.State, r.ExitStatus, r.Ended, r.Leftovers = control.StateExited, &code, &now, nil
		if err != nil {
			r.Reason = err.Error()
		}
	})
	v.log.Info("the machine has ended", "status", code, "reason", v.Record().Reason)
	close(v.done)
	if v.server != nil {
		rerr = errors.Join(rerr, v.server.Close())
	}
	_ = v.hub.Close()
	v.logs.close()
	if v.claim != nil {
		if v.opt.keepRecord() && v.ran { // else its user has been told why not
			rerr = errors.Join(rerr, v.claim.Release())
		} else {
			rerr = errors.Join(rerr, v.claim.Forget())
		}
	}
	if rerr != nil {
		v.log.Warn("leave the run directory", "error", rerr)
	}
}

var errNotRunning = errors.New("the machine does not run")

// now returns the machine and what was opened for it.
func (v *live) now() (*vmm.Machine, *launch, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.m == nil {
		return nil, nil, errNotRunning
	}
	return v.m, v.l, nil
}

// Record implements control.Machine.
func (v *live) Record() control.Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.record
}

// pauseTime is how long a machine may take to come to rest.
const pauseTime = 10 * time.Second

// Pause implements control.Machine.
func (v *live) Pause(ctx context.Context) error {
	m, _, err := v.now()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pauseTime)
	defer cancel()
	if err := m.Pause(ctx); err != nil {
		return err
	}
	v.note(control.StatePaused)
	v.log.Info("paused")
	return nil
}

// Resume implements control.Machine.
func (v *live) Resume() error {
	m, _, err := v.now()
	if err != nil {
		return err
	}
	if err := m.Resume(); err != nil {
		return err
	}
	v.note(control.StateRunning)
	v.log.Info("resumed")
	return nil
}

// Shutdown implements control.Machine: by the agent where there is one, else
// by the power button.
func (v *live) Shutdown(ctx context.Context) error {
	m, l, err := v.now()
	if err != nil {
		return err
	}
	v.log.Info("the guest is asked to turn itself off")
	s, ok := l.session.(*agentSession)
	if !ok {
		return m.PowerButton()
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !s.turnOff(ctx) {
		return errors.New("its agent refused")
	}
	return nil
}

// Kill implements control.Machine.
func (v *live) Kill(reason string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.killed == nil {
		v.killed = &killedError{reason}
	}
	if v.m != nil {
		v.m.Stop(v.killed)
	}
}

// Done implements control.Machine.
func (v *live) Done() <-chan struct{} { return v.done }

// Console implements control.Machine: what the guest writes, and, of a machine
// without a terminal of its own, what is typed.
func (v *live) Console() *control.Hub { return v.hub }

// Dial implements control.Machine. At the agent's port it waits until the
// agent listens.
func (v *live) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	_, l, err := v.now()
	if err != nil {
		return nil, err
	}
	s, hasAgent := l.session.(*agentSession)
	dev := deviceOf[*vsock.Device](l)
	switch {
	case port == agent.Port && !hasAgent:
		return nil, errors.New("it has no agent: only the embedded guest with its own root has one")
	case dev == nil:
		return nil, errors.New("it has no vsock device: run it with --vsock PATH")
	case port == agent.Port:
		select {
		case <-s.ready:
		case <-v.done:
			return nil, errNotRunning
		case <-ctx.Done():
			return nil, fmt.Errorf("its agent is not there yet: %w", ctx.Err())
		}
	}
	return dev.Dial(ctx, port)
}

// deviceOf is the first of a machine's devices that is a T, or the zero T.
func deviceOf[T any](l *launch) (dev T) {
	for _, d := range l.devices {
		if t, ok := d.(T); ok {
			return t
		}
	}
	return dev
}
