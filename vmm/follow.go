package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// TraceOptions are how a trace is taken.
type TraceOptions struct {
	Events int  // that each source keeps for a reader that is slow; default a million
	Snap   int  // bytes of each request to keep; default trace.DefaultSnap
	Record bool // the states of the devices too, so that they can be replayed
	// Instructions, if not nil, has single instructions too: the software CPU
	// only. Nothing of such a trace is lost: the guest waits for its reader.
	Instructions *InstructionTrace
}

// DefaultTraceEvents is how many events each source keeps.
const DefaultTraceEvents = 1 << 20

// Tracing is a trace that has begun.
type Tracing struct {
	Meta    trace.Meta
	m       *Machine
	opt     TraceOptions
	session *trace.Session
	merger  *trace.Merger
	usage   []trace.Usage // when it began
}

// StartTrace begins a trace: what happens from now on will be in it. Before
// Run it will have everything. Follow must be called, which also ends it.
func (m *Machine) StartTrace(o TraceOptions) (*Tracing, error) {
	if o.Events == 0 {
		o.Events = DefaultTraceEvents
	}
	t := &Tracing{m: m, opt: o}
	if err := m.canTraceInstructions(o.Instructions); err != nil {
		return nil, err
	}
	t.session = m.Observe(o.Events)
	t.session.WantSnap(o.Snap)
	t.merger = t.session.NewMergerNow()
	t.usage = m.cpuUsage()
	t.Meta = m.traceMeta(t.session)
	if o.Record {
		t.Meta.Virtio = m.virtioSpecs()
		states, err := m.deviceStates()
		if err != nil {
			m.Unobserve()
			return nil, err
		}
		t.Meta.States = states
	}
	if o.Instructions != nil {
		t.merger.Pace()
		m.traceInstructions(o.Instructions)
	}
	return t, nil
}

// Cancel ends a trace that nobody will follow.
func (t *Tracing) Cancel() {
	if t.opt.Instructions != nil {
		t.m.endInstructions(t.opt.Instructions)
		t.merger.Unpace()
	}
	t.m.Unobserve()
}

// TraceSink takes a trace.
type TraceSink interface {
	Events([]trace.Event) error
	End(*trace.End) error
}

// followEvery is how often a trace's reader looks for events.
const followEvery = 10 * time.Millisecond

// Follow hands the events to sink, in order, until ctx is done, done is closed
// (the machine's Run has returned) or the sink fails; the trace then ends.
func (t *Tracing) Follow(ctx context.Context, done <-chan struct{}, sink TraceSink) error {
	defer t.Cancel()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var events []trace.Event
	const batch = 4096
	for over := false; !over; {
		select {
		case <-ctx.Done():
			over = true
		case <-done:
			over = true
		case <-tick.C:
		}
		if over && t.opt.Instructions != nil {
			t.m.endInstructions(t.opt.Instructions) // or the last would never be read
		}
		for {
			read := t.merger.Read
			if over {
				read = t.merger.Drain
			}
			events = read(events[:0], batch)
			n := len(events)
			if n == 0 {
				break
			}
			if err := sink.Events(t.wanted(events)); err != nil {
				return err
			}
			if n < batch && over {
				break
			}
		}
	}
	return sink.End(t.end())
}

func (t *Tracing) end() *trace.End {
	e := &trace.End{At: t.session.Now(), Lost: t.merger.Lost(), Usage: t.m.cpuUsage()}
	for i := range e.Usage {
		for _, u := range t.usage {
			if u.CPU == e.Usage[i].CPU {
				e.Usage[i].User -= u.User
				e.Usage[i].Kernel -= u.Kernel
				e.Usage[i].Guest -= u.Guest
			}
		}
	}
	if t.m.cfg.Deterministic {
		e.Usage = nil // what the host's clock says is another each time
		return t.why(e)
	}
	for _, p := range Phases() {
		if at, ok := t.m.times.At(p); ok {
			e.Phases = append(e.Phases, trace.Phase{Name: p.String(), At: at.Sub(t.session.Began)})
		}
	}
	return t.why(e)
}

// why adds how the machine ended, if it has, and its devices' states.
func (t *Tracing) why(e *trace.End) *trace.End {
	if t.m.gate.state() == gateStop {
		e.Reason = CausePowerOff.String()
		if end := t.m.gate.result(); end != nil {
			e.Reason = end.Error()
		}
	}
	if t.opt.Record {
		e.States, _ = t.m.deviceStates()
	}
	return e
}

// traceMeta describes the machine to those who read its events.
func (m *Machine) traceMeta(s *trace.Session) trace.Meta {
	meta := trace.Meta{Machine: m.cfg.Name, Accel: string(m.vm.Kind()), CPUs: m.cfg.CPUs, Memory: m.cfg.Memory,
		Transport: string(m.cfg.Transport), Kernel: m.kernelFile(), Began: s.Began, Devices: s.Devices}
	for _, src := range s.Sources {
		meta.Sources = append(meta.Sources, src.Name)
	}
	if m.platform.pci == nil {
		return meta
	}
	for _, f := range m.platform.pci.Inspect() {
		fn := trace.Function{Device: f.Device, Name: f.Identity.Name}
		for _, c := range pci.Entries(f.Config) {
			fn.Capabilities = append(fn.Capabilities, trace.Capability{At: c.At, ID: c.ID, Type: c.Type})
		}
		meta.Functions = append(meta.Functions, fn)
	}
	return meta
}

// virtioSpecs describes the virtio devices to a replay.
func (m *Machine) virtioSpecs() map[string]trace.VirtioSpec {
	specs := make(map[string]trace.VirtioSpec)
	for _, s := range m.virtio {
		spec := s.Device().Spec()
		v := trace.VirtioSpec{ID: uint32(spec.ID), Features: spec.Features, QueueMax: spec.QueueMax,
			Config: make([]byte, min(spec.ConfigLen, 4096))}
		s.Device().ReadConfig(0, v.Config)
		specs[spec.Name] = v
	}
	return specs
}

// deviceStates are the states of chips and transports, by their names in a
// trace. A machine that runs is paused for the moment of reading.
func (m *Machine) deviceStates() (map[string]json.RawMessage, error) {
	states := make(map[string]json.RawMessage)
	keep := func(name string, d interface{ State() ([]byte, error) }) error {
		b, err := d.State()
		states[name] = b
		return err
	}
	err := m.Standing(context.Background(), func() error {
		p := &m.platform
		err := errors.Join(keep("COM1", p.uart), keep("i8042", p.i8042), keep("RTC", p.rtc),
			keep("debug port", p.marks), keep("pvpanic", p.pvpanic), keep("ACPI", p.pm))
		for _, s := range m.virtio {
			err = errors.Join(err, keep(s.Device().Spec().Name, s.Transport))
		}
		return err
	})
	return states, err
}

// Standing calls f while nothing of the machine moves: it is paused for that
// long, unless it is paused already or has ended.
func (m *Machine) Standing(ctx context.Context, f func() error) error {
	m.guard.Lock()
	defer m.guard.Unlock()
	return m.standing(ctx, f)
}

// standingCPUs is Standing for a look at the CPUs, which Run makes: it waits
// for them. Waiting for one with guard held would keep Run from making it.
func (m *Machine) standingCPUs(ctx context.Context, f func() error) error {
	m.guard.Lock()
	defer m.guard.Unlock()
	if err := m.awaitCPUs(ctx); err != nil {
		return err
	}
	return m.standing(ctx, f)
}

// standing is Standing with guard held.
func (m *Machine) standing(ctx context.Context, f func() error) error {
	switch m.gate.state() {
	case gatePause:
		return f()
	case gateStop:
		if err := m.pauseDevices(ctx); err != nil {
			return err
		}
		return f()
	}
	m.inLook.Store(true)
	defer m.inLook.Store(false)
	if err := m.pause(ctx); err != nil {
		return err
	}
	err := f()
	return errors.Join(err, m.resume())
}
