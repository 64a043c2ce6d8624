package softcpu

import (
	"errors"
	"fmt"
)

// Time travel: a deterministic machine stops at a given instruction, and what
// the state that snapshots keep leaves out, since no other accelerator could
// take it, is kept beside it.

// Moment is the part of a deterministic machine's state that decides what
// happens next and that its CPUs and chips do not tell.
type Moment struct {
	Time     uint64 `json:"time"`     // nanoseconds
	Executed uint64 `json:"executed"` // instructions, by all CPUs
	Random   uint64 `json:"random"`   // where the sequence of RDRAND is
	PITDue   uint64 `json:"pitDue"`
	// Holder is the CPU that executes, or -1; Left is how many instructions it
	// has left before others may.
	Holder int         `json:"holder"`
	Left   uint64      `json:"left"`
	Queue  []int       `json:"queue"`
	CPUs   []CPUMoment `json:"cpus"`
}

// CPUMoment is a CPU's part of a Moment.
type CPUMoment struct {
	Asleep    bool   `json:"asleep"`
	Attention uint32 `json:"attention"`
	Interrupt bool   `json:"interrupt"`
	TimerDue  uint64 `json:"timerDue"`
	Counting  uint64 `json:"counting"` // since when the local APIC's timer counts
}

var errNotDeterministic = errors.New("only a deterministic machine has moments")

// kept is what of cpu.attn is state, and does not follow from other state.
const kept = attnIRQ | attnNMI | attnInit | attnSIPI | attnTimer

// Executed is how many instructions all CPUs have executed, where a delivery of
// an exception or interrupt counts as one. No CPU may be executing.
func (vm *VM) Executed() uint64 {
	t := &vm.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.executed()
}

func (t *turns) executed() uint64 {
	n := t.before
	for _, c := range t.all {
		n += c.icount
	}
	return n
}

// Moment tells of a machine of which no CPU is in Run.
func (vm *VM) Moment() (*Moment, error) {
	t := &vm.turns
	if !t.det {
		return nil, errNotDeterministic
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &Moment{Time: t.now(), Executed: t.executed(), PITDue: t.pitDue, Holder: -1, Left: never}
	if q, ok := vm.opts.Random.(*sequence); ok {
		m.Random = q.s
	}
	if c := t.holder; c != nil {
		m.Holder = c.id
		if c.endOfTurn != never {
			m.Left = c.endOfTurn - min(c.endOfTurn, c.icount)
		}
	}
	for _, c := range t.queue {
		m.Queue = append(m.Queue, c.id)
	}
	for _, c := range t.all {
		m.CPUs = append(m.CPUs, CPUMoment{Asleep: c.turn.asleep, Attention: c.attn.Load() & kept,
			Interrupt: c.irq.Load(), TimerDue: c.due, Counting: c.apic.Counting()})
	}
	return m, nil
}

// SetMoment brings a machine whose CPUs and chips have their states, and none
// of which is in Run, to the moment m.
func (vm *VM) SetMoment(m *Moment) error {
	t := &vm.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.check(m); err != nil {
		return err
	}
	if q, ok := vm.opts.Random.(*sequence); ok {
		q.s = m.Random
	}
	t.holder, t.queue, t.idle = nil, t.queue[:0], false
	t.pace.Stop()
	for i, c := range t.all {
		s := &m.CPUs[i]
		c.apic.SetCounting(s.Counting)
		c.turn = turnState{asleep: s.Asleep, began: c.icount}
		c.attn.And(^uint32(kept))
		c.attn.Or(s.Attention & kept)
		c.irq.Store(s.Interrupt)
		c.due = s.TimerDue
	}
	t.pitDue, t.base = m.PITDue, m.Time
	t.before = m.Executed - (t.executed() - t.before)
	for _, id := range m.Queue {
		c := t.all[id]
		c.turn.queued, c.turn.asleep = true, false
		t.queue = append(t.queue, c)
	}
	if m.Holder >= 0 {
		c := t.all[m.Holder]
		c.turn.asleep = false
		t.hold(c)
		if m.Left != never && c.endOfTurn != never {
			c.endOfTurn = c.icount + min(m.Left, quantum)
		}
		c.setUntil()
		return nil
	}
	if len(t.queue) > 0 {
		t.next()
		return nil
	}
	t.rest()
	return nil
}

func (t *turns) check(m *Moment) error {
	n := len(t.all)
	switch {
	case !t.det:
		return errNotDeterministic
	case len(m.CPUs) != n || m.Holder >= n || len(m.Queue) > n:
		return fmt.Errorf("a moment of %d CPUs, %d waiting, for a machine of %d", len(m.CPUs), len(m.Queue), n)
	}
	seen := make(map[int]bool)
	for _, id := range m.Queue {
		if id < 0 || id >= n || id == m.Holder || seen[id] {
			return fmt.Errorf("a moment in which CPU %d waits for its turn", id)
		}
		seen[id] = true
	}
	return nil
}

// StopAt has f called, once, before the first instruction at which the time is
// at least ns, or so many instructions have been executed, whichever is first;
// the CPU that would execute it returns ExitInterrupted. Time stands then until
// the next StopAt. f runs in Run, or on a goroutine of its own where all CPUs
// sleep, and must not wait for a CPU. No CPU may be in Run. The largest values
// stop nothing.
func (vm *VM) StopAt(ns, executed uint64, f func()) error {
	t := &vm.turns
	if !t.det {
		return errNotDeterministic
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopTime, t.stopCount, t.onStop, t.stopped = ns, executed, f, false
	if c := t.holder; c != nil {
		c.setUntil()
	} else {
		t.rest()
	}
	return nil
}

// Hurry has time that all CPUs sleep through pass at once.
func (vm *VM) Hurry() {
	vm.turns.mu.Lock()
	defer vm.turns.mu.Unlock()
	vm.turns.hurry = true
}

// stopDue says whether StopAt's moment has come. t.mu is not needed by the
// holder: nobody else changes what it looks at.
func (t *turns) stopDue() bool {
	return t.onStop != nil && (t.stopTime <= t.now() || t.stopCount <= t.executed())
}

// stop tells that StopAt's moment has come.
func (t *turns) stop() {
	f := t.onStop
	t.onStop, t.stopTime, t.stopCount, t.stopped = nil, never, never, true
	f()
}
