package vmm

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// InstructionTrace says which instructions a trace has.
type InstructionTrace struct {
	// All has all registers with each, not only those that changed.
	All bool
	// Want says whether to tell of an instruction before it is executed; nil
	// wants all. It is called by the CPUs, with the same answer for the same
	// place each time.
	Want func(cpu int, rip uint64, m x86.Mode, cpl uint8) bool
}

var errNoInstructions = errors.New("only the software CPU shows single instructions, and this machine runs on KVM: start it with --accel soft")

func (m *Machine) canTraceInstructions(w *InstructionTrace) error {
	if _, ok := m.vm.(softVM); w != nil && !ok {
		return errNoInstructions
	}
	return nil
}

// traceInstructions begins to tell of instructions.
func (m *Machine) traceInstructions(w *InstructionTrace) {
	m.observed.mu.Lock()
	defer m.observed.mu.Unlock()
	m.observed.each = append(m.observed.each, w)
	m.observeCPUs()
}

func (m *Machine) endInstructions(w *InstructionTrace) {
	m.observed.mu.Lock()
	defer m.observed.mu.Unlock()
	m.observed.each = slices.DeleteFunc(m.observed.each, func(x *InstructionTrace) bool { return x == w })
	m.observeCPUs()
}

// wanted is the events without those of instructions, if they are for others
// that look too.
func (t *Tracing) wanted(events []trace.Event) []trace.Event {
	if t.opt.Instructions != nil {
		return events
	}
	return slices.DeleteFunc(events, func(e trace.Event) bool { return e.Kind == trace.KindInstruction || e.Kind == trace.KindRegisters })
}

// instructionObserver writes the instructions of a software CPU. One is told of
// when it has ended: when the next begins, or something interrupts the CPU.
type instructionObserver struct {
	observer
	id    int
	cpu   *softcpu.VCPU
	want  []*InstructionTrace
	all   bool
	leave func() bool // the CPU is to stop: see Ring.Room

	told          map[place]bool // answers of want
	under         bool           // an instruction is under way that is to be told of
	in            trace.Instruction
	code          [16]byte
	before, after x86.File
	writer        trace.InstructionWriter
}

// place is what an InstructionTrace's answer depends on.
type place struct {
	rip uint64
	m   x86.Mode
	cpl uint8
}

// mostPlaces bounds the answers that are kept.
const mostPlaces = 1 << 16

func newInstructionObserver(o observer, id int, want []*InstructionTrace, leave func() bool) *instructionObserver {
	w := &instructionObserver{observer: o, id: id, want: slices.Clone(want), leave: leave, told: make(map[place]bool)}
	for _, x := range want {
		w.all = w.all || x.All
	}
	return w
}

// instruction is called before each instruction.
func (o *instructionObserver) instruction(rip uint64, code []byte) {
	o.flush()
	mode, bits, cpl := o.cpu.Mode()
	if !o.wanted(place{rip, mode, cpl}) {
		return
	}
	o.ring.Room(o.leave)
	o.under = true
	n := copy(o.code[:], code)
	o.in = trace.Instruction{RIP: rip, Code: o.code[:n], Mode: mode, Bits: bits, CPL: cpl, Registers: o.in.Registers[:0]}
	o.cpu.File(&o.before)
}

func (o *instructionObserver) wanted(p place) bool {
	yes, known := o.told[p]
	if known {
		return yes
	}
	yes = slices.ContainsFunc(o.want, func(w *InstructionTrace) bool { return w.Want == nil || w.Want(o.id, p.rip, p.m, p.cpl) })
	if len(o.told) >= mostPlaces {
		clear(o.told)
	}
	o.told[p] = yes
	return yes
}

// event is called before an exception or interrupt is delivered.
func (o *instructionObserver) event(e *softcpu.Event) {
	if o.under && !e.External && !e.Software && e.RIP == o.in.RIP {
		o.in.Faulted, o.in.Vector = true, e.Vector
	}
	o.flush()
}

// flush tells of the instruction that has ended.
func (o *instructionObserver) flush() {
	if !o.under {
		return
	}
	o.under = false
	o.cpu.File(&o.after)
	o.in.Before, o.in.After = o.before[x86.RegRFLAGS], o.after[x86.RegRFLAGS]
	next := o.in.RIP + uint64(len(o.in.Code))
	for i := range o.before {
		a, b := o.before[i], o.after[i]
		if a != b && (i != x86.RegRIP || b != next) || o.all {
			o.in.Registers = append(o.in.Registers, trace.Change{Index: uint8(i), Before: a, After: b})
		}
	}
	o.writer.Emit(o.ring, trace.Event{Time: o.session.Now(), CPU: uint8(o.id), Source: o.source}, &o.in)
}

// lastInstruction tells of the instruction that the CPU ends with, which may
// not have come to its end. It is called by the CPU's own goroutine.
func (c *vcpu) lastInstruction() {
	if o := c.hooked; o != nil && o.each != nil && o.each.cpu != nil {
		o.each.flush()
	}
}

// unknownInstruction is called when a guest executes what the software CPU does
// not have.
func (m *Machine) unknownInstruction(cpu int, rip uint64, code []byte) {
	o := m.cpus[cpu].observer.Load()
	if o == nil {
		return
	}
	var b [16]byte
	e := trace.Event{Time: o.session.Now(), CPU: uint8(cpu), Source: o.source, Kind: trace.KindUnknown, RIP: rip, Size: uint8(copy(b[:], code))}
	e.Value, e.Aux = binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	o.ring.Emit(&e)
}
