package main

import (
	"context"
	"errors"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// watcher is something that looks at a machine from before its first
// instruction on. finish is called when the machine has ended, with what Run
// returned.
type watcher func(r *runner, m *vmm.Machine) (finish func(error) error, err error)

// watch begins what looks at the machine: what the command asks for, then the
// debugger.
func (r *runner) watch(m *vmm.Machine) (finish func(error) error, err error) {
	var all []func(error) error
	finish = func(end error) error {
		var err error
		for i := len(all) - 1; i >= 0; i-- {
			err = errors.Join(err, all[i](end))
		}
		return err
	}
	list := r.watchers
	if r.opt.gdb != "" {
		list = append(list, debugged)
	}
	for _, begin := range list {
		f, err := begin(r, m)
		if err != nil {
			return nil, errors.Join(err, finish(errNotStarted))
		}
		all = append(all, f)
	}
	return finish, nil
}

var errNotStarted = errors.New("the machine was not started")

// following is a watcher that hands the machine's events to a sink.
func following(o vmm.TraceOptions, open func(*vmm.Tracing, *interrupts) (vmm.TraceSink, error)) watcher {
	return func(r *runner, m *vmm.Machine) (func(error) error, error) {
		t, err := m.StartTrace(o)
		if err != nil {
			return nil, err
		}
		sink, err := open(t, r.sig)
		if err != nil {
			t.Cancel()
			return nil, err
		}
		over, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			err := t.Follow(context.Background(), over, sink)
			if err != nil {
				r.sig.end(err) // nobody sees what the machine does: it ends
			}
			ended <- err
		}()
		return func(end error) error {
			close(over)
			err := <-ended
			var quiet exitStatus
			if err != nil && end != nil && !errors.Is(end, err) && !errors.As(err, &quiet) {
				r.errOut.say("%v", err) // end is what the command ends with
			}
			return err
		}, nil
	}
}
