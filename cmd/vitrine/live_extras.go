package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// liveExtras are what other parts serve on the control socket of a running
// machine. Each is called once for every machine.
var liveExtras []func(*vmm.Machine) control.Extra

// launchExtras are those that need what was opened for the machine, too.
var launchExtras []func(*vmm.Machine, *launch) control.Extra

// extras merges all of them, such that none runs when its machine is gone.
func (v *live) extras(m *vmm.Machine, l *launch) control.Extra {
	all := control.Extra{
		Inspect: make(map[string]http.Handler),
		Action:  make(map[string]http.Handler),
		Stream:  make(map[string]func(context.Context, *http.Request, net.Conn) error),
	}
	ctx, end := context.WithCancel(context.Background())
	v.end = end
	add := func(e control.Extra) {
		for name, h := range e.Inspect {
			all.Inspect[name] = v.guarded(ctx, h)
		}
		for name, h := range e.Action {
			all.Action[name] = v.guarded(ctx, h)
		}
		for name, f := range e.Stream {
			all.Stream[name] = v.bounded(ctx, f)
		}
	}
	for _, f := range liveExtras {
		add(f(m))
	}
	for _, f := range launchExtras {
		add(f(m, l))
	}
	return all
}

// guarded is h as long as the machine is there.
func (v *live) guarded(ctx context.Context, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.looks.RLock()
		defer v.looks.RUnlock()
		if ctx.Err() != nil {
			http.Error(w, errNotRunning.Error(), http.StatusConflict)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// toSayHow is how long a view may take to say how it ended.
const toSayHow = 500 * time.Millisecond

// bounded is f until the machine is gone: its context is done then, soon after
// that its connection is closed, and the machine waits for it to return.
func (v *live) bounded(machine context.Context, f func(context.Context, *http.Request, net.Conn) error) func(context.Context, *http.Request, net.Conn) error {
	return func(ctx context.Context, r *http.Request, conn net.Conn) error {
		if !v.beginView(machine) {
			return errNotRunning
		}
		defer v.views.Done()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(machine, func() {
			cancel()
			time.AfterFunc(toSayHow, func() { _ = conn.Close() })
		})
		defer stop()
		return f(ctx, r, conn)
	}
}

func (v *live) beginView(machine context.Context) bool {
	v.looks.RLock()
	defer v.looks.RUnlock()
	if machine.Err() != nil {
		return false
	}
	v.views.Add(1)
	return true
}
