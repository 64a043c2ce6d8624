package vmm

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// observation is the machine's events while somebody looks.
type observation struct {
	mu      sync.Mutex
	users   int
	session *trace.Session
	each    []*InstructionTrace // who wants instructions
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
	names := make([]string, 0, len(m.cpus)+len(m.virtio)+1)
	for _, c := range m.cpus {
		names = append(names, fmt.Sprintf("vcpu%d", c.id))
	}
	for _, s := range m.virtio {
		names = append(names, s.Device().Spec().Name)
	}
	o.session = trace.NewSession(events, append(names, "machine")...)
	if m.cfg.Deterministic {
		o.session.UseClock(m.cfg.Clock(), m.guestTime)
	}
	o.session.Devices = m.tracedDevices()
	source := func(i int) observer {
		return observer{o.session, o.session.Sources[i].Ring, uint16(i)}
	}
	m.observeCPUs()
	m.showMSRs(true)
	for i, s := range m.virtio {
		s.Trace(&queueObserver{source(len(m.cpus) + i)})
	}
	w := &machineObserver{source(len(names))}
	m.watcher.Store(w)
	m.platform.uart.OnReceive(w.received)
	return o.session
}

// observeCPUs has the CPUs write events, of single instructions too if somebody
// wants them.
func (m *Machine) observeCPUs() {
	o := &m.observed
	index := deviceIndex(o.session.Devices)
	for i, c := range m.cpus {
		w := &cpuObserver{observer: observer{o.session, o.session.Sources[i].Ring, uint16(i)}, index: index}
		if len(o.each) > 0 {
			w.each = newInstructionObserver(w.observer, i, o.each, func() bool { return m.gate.state() != gateRun })
		}
		c.observe(w)
		c.kick() // so that it takes up the hooks
	}
}

// Unobserve ends a look that Observe began.
func (m *Machine) Unobserve() {
	o := &m.observed
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.users--; o.users > 0 {
		return
	}
	m.showMSRs(false)
	m.platform.uart.OnReceive(nil)
	m.watcher.Store(nil)
	for _, c := range m.cpus {
		c.observe(nil)
		c.kick()
	}
	for _, s := range m.virtio {
		s.Trace(nil)
	}
}

// showMSRs has an accelerator that can do so leave for accesses to
// model-specific registers.
func (m *Machine) showMSRs(on bool) {
	v, ok := m.vm.(msrExiter)
	if !ok {
		return
	}
	if err := v.ExitOnMSRs(on, m.paced.Load()); err != nil && on {
		m.cfg.Log.Info("accesses to model-specific registers are not seen", "error", err)
	}
}

// observer is where one source writes its events.
type observer struct {
	session *trace.Session
	ring    *trace.Ring
	source  uint16
}

func (o *observer) emit(e trace.Event) {
	e.Time, e.CPU, e.Source = o.session.Now(), trace.NoCPU, o.source
	o.ring.Emit(&e)
}

// queueObserver writes a virtio device's events.
type queueObserver struct{ observer }

var (
	_ virtio.Tracer     = (*queueObserver)(nil)
	_ virtio.WakeTracer = (*queueObserver)(nil)
)

// maxSegments is how many descriptors of a chain become events.
const maxSegments = 16

func (o *queueObserver) Popped(queue int, c *virtio.Chain) {
	e := trace.Event{Time: o.session.Now(), CPU: trace.NoCPU, Source: o.source}
	id := o.session.NextID()
	n := 0
	for _, readable := range [...]bool{true, false} {
		for _, s := range c.Segments(readable) {
			if n++; n > maxSegments {
				break
			}
			e.Kind, e.Addr, e.Value, e.Write, e.Aux = trace.KindSegment, uint64(s.Addr), uint64(s.Len), !readable, id
			o.ring.Emit(&e)
		}
	}
	e.Write = false
	trace.EmitData(o.ring, e, id, c.Readable(), o.session.Snap())
	e.Kind, e.Addr, e.Value, e.RIP = trace.KindPop, uint64(queue), uint64(c.Head()), id
	e.Aux = uint64(c.ReadableLen())<<32 | uint64(c.WritableLen())
	o.ring.Emit(&e)
}

func (o *queueObserver) Pushed(queue int, c *virtio.Chain, written uint32) {
	e := trace.Event{Time: o.session.Now(), CPU: trace.NoCPU, Source: o.source}
	id := o.session.NextID()
	trace.EmitData(o.ring, e, id, c.Writable(), min(int(written), o.session.Snap()))
	e.Count = lastByte(c, written)
	e.Kind, e.Addr, e.Value, e.Aux, e.RIP = trace.KindPush, uint64(queue), uint64(c.Head()), uint64(written), id
	o.ring.Emit(&e)
}

// lastByte is the last byte that a device wrote, where some have their status,
// with bit 8 set; 0 without one.
func lastByte(c *virtio.Chain, written uint32) uint16 {
	for _, p := range c.Writable() {
		if n := uint32(len(p)); written > n {
			written -= n
			continue
		}
		if written == 0 {
			return 0
		}
		return 0x100 | uint16(p[written-1])
	}
	return 0
}

func (o *queueObserver) Interrupted(queue int) {
	o.emit(trace.Event{Kind: trace.KindIRQ, Addr: uint64(int64(queue))})
}

func (o *queueObserver) Woken(queue int) {
	o.emit(trace.Event{Kind: trace.KindDoorbell, Addr: uint64(queue)})
}

// machineObserver writes the events of chips.
type machineObserver struct{ observer }

// received is told what arrives at the serial port.
func (o *machineObserver) received(p []byte) {
	e := trace.Event{Time: o.session.Now(), CPU: trace.NoCPU, Source: o.source, Addr: portCOM1}
	id := o.session.NextID()
	trace.EmitData(o.ring, e, id, [][]byte{p}, len(p))
	e.Kind, e.Value, e.RIP = trace.KindInput, uint64(len(p)), id
	o.ring.Emit(&e)
}

// watchLine is irq, the interrupt line gsi of a chip, with an event for each
// pulse while somebody looks.
func (m *Machine) watchLine(gsi uint32, irq func() error) func() error {
	return func() error {
		if o := m.watcher.Load(); o != nil {
			o.emit(trace.Event{Kind: trace.KindIRQ, Addr: uint64(gsi)})
		}
		return irq()
	}
}

// littleEndian is the number in up to 8 bytes.
func littleEndian(p []byte) uint64 {
	if len(p) == 8 {
		return binary.LittleEndian.Uint64(p)
	}
	var v uint64
	for i := min(len(p), 8) - 1; i >= 0; i-- {
		v = v<<8 | uint64(p[i])
	}
	return v
}
