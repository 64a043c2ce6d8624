package vmm

import (
	"fmt"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// observation is the machine's events while somebody looks.
type observation struct {
	mu      sync.Mutex
	users   int
	session *trace.Session
}

// Observe begins a look at the machine's events, or joins the one there is.
// events is how many each source keeps. Every Observe needs an Unobserve.
func (m *Machine) Observe(events int) *trace.Session {
	o := &m.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.users++; o.users > 1 {
		return o.session
	}
	names := make([]string, 0, len(m.cpus)+len(m.virtio))
	for _, c := range m.cpus {
		names = append(names, fmt.Sprintf("vcpu%d", c.id))
	}
	for _, s := range m.virtio {
		names = append(names, s.Device().Spec().Name)
	}
	o.session = trace.NewSession(events, names...)
	for i, c := range m.cpus {
		c.observe(&cpuObserver{session: o.session, ring: o.session.Sources[i].Ring, source: uint16(i)})
	}
	for i, s := range m.virtio {
		source := len(m.cpus) + i
		s.Trace(&queueObserver{o.session, o.session.Sources[source].Ring, uint16(source)})
	}
	return o.session
}

// Unobserve ends a look that Observe began.
func (m *Machine) Unobserve() {
	o := &m.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.users--; o.users > 0 {
		return
	}
	for _, c := range m.cpus {
		c.observe(nil)
	}
	for _, s := range m.virtio {
		s.Trace(nil)
	}
}

// cpuObserver writes a vCPU's events.
type cpuObserver struct {
	session *trace.Session
	ring    *trace.Ring
	source  uint16
}

// registerKeeper is a CPU that can have its registers at hand after every
// exit, for a price per exit.
type registerKeeper interface{ KeepRegs(on bool) }

func (c *vcpu) observe(o *cpuObserver) {
	c.observer.Store(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.cpu.(registerKeeper); ok && c.live {
		k.KeepRegs(o != nil)
	}
}

// observedDispatch is dispatch with an event for what it did.
func (c *vcpu) observedDispatch(o *cpuObserver, x *x86.Exit) *StopError {
	e := trace.Event{Time: o.session.Now(), CPU: uint8(c.id), Source: o.source, Size: x.Size, Write: x.Write}
	if r, err := c.cpu.Regs(); err == nil {
		e.RIP = r.RIP
	}
	describeExit(&e, x)
	end := c.dispatch(x)
	if !x.Write && (x.Reason == x86.ExitIO || x.Reason == x86.ExitMMIO) {
		e.Value = littleEndian(x.Data)
	}
	e.Took = o.session.Now() - e.Time
	if x.Reason != x86.ExitInterrupted {
		o.ring.Emit(&e)
	}
	return end
}

// describeExit fills in what an exit was, before it is handled.
func describeExit(e *trace.Event, x *x86.Exit) {
	switch x.Reason {
	case x86.ExitIO:
		e.Kind, e.Addr, e.Count = trace.KindIO, uint64(x.Port), uint16(min(x.Count, 0xffff))
		e.Value = littleEndian(x.Data[:min(int(x.Size), len(x.Data))])
	case x86.ExitMMIO:
		e.Kind, e.Addr, e.Count, e.Value = trace.KindMMIO, x.Addr, 1, littleEndian(x.Data)
	case x86.ExitInternalError:
		e.Kind, e.Addr, e.Value = trace.KindComplete, uint64(x.SubError), littleEndian(x.Instruction)
		e.Size = uint8(len(x.Instruction))
	case x86.ExitReadMSR, x86.ExitWriteMSR:
		e.Kind, e.Addr, e.Value = trace.KindReadMSR, uint64(x.MSR), *x.MSRData
		if x.Reason == x86.ExitWriteMSR {
			e.Kind = trace.KindWriteMSR
		}
	default:
		e.Kind, e.Addr, e.Value = trace.KindExit, uint64(x.Reason), uint64(x.SubError)|x.Hardware
	}
}

func littleEndian(p []byte) uint64 {
	var v uint64
	for i := min(len(p), 8) - 1; i >= 0; i-- {
		v = v<<8 | uint64(p[i])
	}
	return v
}

// queueObserver writes a virtio device's events.
type queueObserver struct {
	session *trace.Session
	ring    *trace.Ring
	source  uint16
}

var _ virtio.Tracer = (*queueObserver)(nil)

func (o *queueObserver) emit(e trace.Event) {
	e.Time, e.CPU, e.Source = o.session.Now(), trace.NoCPU, o.source
	o.ring.Emit(&e)
}

func (o *queueObserver) Popped(queue int, c *virtio.Chain) {
	o.emit(trace.Event{Kind: trace.KindPop, Addr: uint64(queue), Value: uint64(c.Head()),
		Aux: uint64(c.ReadableLen())<<32 | uint64(c.WritableLen())})
}

func (o *queueObserver) Pushed(queue int, c *virtio.Chain, written uint32) {
	o.emit(trace.Event{Kind: trace.KindPush, Addr: uint64(queue), Value: uint64(c.Head()), Aux: uint64(written)})
}

func (o *queueObserver) Interrupted(queue int) {
	o.emit(trace.Event{Kind: trace.KindIRQ, Addr: uint64(int64(queue))})
}
