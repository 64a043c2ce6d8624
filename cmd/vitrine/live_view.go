package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/gdb"
)

func init() { liveExtras = append(liveExtras, viewExtra) }

// viewExtra serves what vitrine view shows beside the counters, the trace and
// the views of inspect: /v1/inspect/glance, /v1/action/step and
// /v1/stream/pages.
func viewExtra(m *vmm.Machine) control.Extra {
	return control.Extra{
		Inspect: map[string]http.Handler{"glance": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answer(w, func() (any, error) { return takeGlance(r.Context(), m) })
		})},
		Action: map[string]http.Handler{"step": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var q control.StepRequest
			if err := json.NewDecoder(io.LimitReader(r.Body, 4<<10)).Decode(&q); err != nil {
				http.Error(w, "step: "+err.Error(), http.StatusBadRequest)
				return
			}
			answer(w, func() (any, error) { return step(r.Context(), m, q) })
		})},
		Stream: map[string]func(context.Context, *http.Request, net.Conn) error{"pages": func(ctx context.Context, r *http.Request, conn net.Conn) error {
			return streamPages(ctx, m, r, conn)
		}},
	}
}

func answer(w http.ResponseWriter, f func() (any, error)) {
	v, err := f()
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// takeGlance is what can be had of a machine without disturbing it much: each
// CPU is interrupted once.
func takeGlance(ctx context.Context, m *vmm.Machine) (g control.Glance, err error) {
	seen, err := m.Glance(ctx)
	if err != nil {
		return g, err
	}
	g.Time, g.CPUTime, g.Paused = time.Now(), processTime(), m.Paused()
	for i, c := range m.CPUStats() {
		s := seen[i]
		g.CPUs = append(g.CPUs, control.CPUGlance{Time: c.Time, Exits: c.Exits, State: s.State, Mode: s.Mode, CPL: s.CPL,
			RIP: control.Hex(s.RIP), RSP: control.Hex(s.RSP), CR3: control.Hex(s.CR3), RFLAGS: control.Hex(s.RFLAGS)})
	}
	for _, info := range m.VirtioDevices() {
		d := control.DeviceGlance{Name: info.Name, Type: info.ID.String(), Transport: info.Transport, Status: info.Status, Error: info.Error}
		for i := range info.Queues {
			q := &info.Queues[i]
			d.Queues = append(d.Queues, control.QueueGlance{Purpose: virtio.QueueName(info.ID, i, len(info.Queues)), Size: q.Size, Ready: q.Ready,
				Offered: q.AvailIdx - q.NextAvail, InFlight: q.InFlight, Chains: q.Pushed, Kicks: q.Kicks,
				Interrupts: q.Interrupts, Suppressed: q.SuppressedInterrupts})
		}
		g.Devices = append(g.Devices, d)
	}
	return g, nil
}

// maxSteps bounds the instructions of one request.
const maxSteps = 10000

// step executes instructions of one CPU of a paused machine.
func step(ctx context.Context, m *vmm.Machine, q control.StepRequest) (a control.StepAnswer, err error) {
	switch {
	case !m.Paused():
		return a, errors.New("the machine runs: pause it before a step")
	case q.CPU < 0 || q.CPU >= len(m.CPUStats()):
		return a, fmt.Errorf("step: no vcpu %d", q.CPU)
	case q.Count < 0 || q.Count > maxSteps:
		return a, fmt.Errorf("step: %d instructions: want 1 to %d", q.Count, maxSteps)
	}
	d := m.Debugger()
	for a.Steps < max(1, q.Count) && ctx.Err() == nil {
		st, err := d.Step(ctx, q.CPU)
		if err != nil {
			return a, fmt.Errorf("step: %w", err)
		}
		switch st.Reason {
		case gdb.Paused:
			a.Unfinished = "the instruction did not end within a second: the CPU waits for an interrupt (HLT), or this host's KVM does not step user programs"
			return a, nil
		case gdb.Exited, gdb.Signaled:
			a.Unfinished = "the machine has ended"
			return a, nil
		}
		a.Steps++
	}
	return a, nil
}

// Limits of a look at memory.
const (
	pagesEvery   = time.Second
	maxStretches = 4096
	// A look takes at most this share of a CPU: larger memories are looked at
	// less often.
	pagesShare = 50
)

// streamPages writes a line of JSON with the state of guest memory now and
// then, with stretches=N parts of each region, until the client leaves.
func streamPages(ctx context.Context, m *vmm.Machine, r *http.Request, conn net.Conn) error {
	stretches := 512
	if n, err := strconv.Atoi(r.URL.Query().Get("stretches")); err == nil {
		stretches = max(1, min(n, maxStretches))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		cancel()
	}()
	w, err := m.WatchMemory(ctx)
	if err != nil {
		return err
	}
	out := json.NewEncoder(conn)
	for {
		began := time.Now()
		regions, err := w.Look(ctx, stretches)
		if err == nil {
			err = out.Encode(regions)
		}
		if err != nil || !pause(ctx, max(pagesEvery, pagesShare*time.Since(began))) {
			return errors.Join(err, w.Close())
		}
	}
}
