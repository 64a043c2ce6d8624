package softcpu

import (
	"math"
	"slices"
	"sync"
	"time"
)

// CPUs take turns: one executes guest code at a time, for a number of
// instructions, so that none needs to guard what it decodes and stores against
// the others, and a LOCK prefix needs no more than the instruction itself. A
// CPU keeps its turn while the VMM answers its exits, and one that wakes up
// queues at the moment of what woke it: with deterministic time, the order
// depends on nothing but the guest.

const (
	// quantum is how many instructions a turn lasts at most.
	quantum = 50_000
	// ticksPerInstruction makes deterministic time pass about as fast as real
	// time does.
	ticksPerInstruction = 8
	never               = math.MaxUint64
)

// turns is the CPUs' queue and deterministic time. A CPU has the turn, or is
// in the queue, or sleeps, or has not come yet.
type turns struct {
	det bool

	mu     sync.Mutex
	all    []*cpu // by id
	holder *cpu
	queue  []*cpu
	frozen bool // expire is at work: nobody gets a turn

	// base is the deterministic time at which the holder's turn began.
	base uint64
	// pitDue is when the 8254 wants a look, in deterministic time.
	pitDue  uint64
	pitTick func()
	// While all CPUs sleep, deterministic time stands, until pace has waited
	// in real time for as long as it takes to the next timer.
	idle      bool
	idleSince time.Time
	pace      *time.Timer
	hurry     bool // pace waits for nothing

	before    uint64 // instructions executed before this machine was restored
	stopTime  uint64 // see VM.StopAt
	stopCount uint64
	onStop    func()
	stopped   bool
}

// turnState is a CPU's part of it, guarded by turns.mu.
type turnState struct {
	asleep bool   // waits for a signal, not in the queue
	queued bool   // in the queue
	began  uint64 // icount at the beginning of the turn
}

func (t *turns) init(det bool, pitTick func()) {
	t.det, t.pitTick, t.pitDue = det, pitTick, never
	t.stopTime, t.stopCount = never, never
	t.pace = time.AfterFunc(time.Hour, t.expire)
	t.pace.Stop()
}

// add takes in a new CPU. The boot processor has the first turn.
func (t *turns) add(c *cpu) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, c)
	slices.SortFunc(t.all, func(a, b *cpu) int { return a.id - b.id })
	c.turn.asleep = c.id != 0
	if c.id == 0 && t.holder == nil {
		t.hold(c)
	}
}

// remove takes a CPU out for good.
func (t *turns) remove(c *cpu) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before += c.icount
	t.all = slices.DeleteFunc(t.all, func(x *cpu) bool { return x == c })
	t.queue = slices.DeleteFunc(t.queue, func(x *cpu) bool { return x == c })
	if t.holder == c {
		t.next()
	}
}

// take waits for the CPU's turn. It returns false if the CPU is kicked first.
func (t *turns) take(c *cpu) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.holder != c {
		if c.attn.Load()&attnKick != 0 {
			return false
		}
		if !c.turn.asleep && !c.turn.queued {
			t.enqueue(c)
			continue
		}
		t.mu.Unlock()
		<-c.wake
		t.mu.Lock()
	}
	return true
}

// enqueue makes c the last in the queue, and the holder if it is the first.
func (t *turns) enqueue(c *cpu) {
	t.queue = append(t.queue, c)
	c.turn.queued, c.turn.asleep = true, false
	if t.holder == nil && !t.frozen {
		t.next()
	}
}

// hold makes c the holder.
func (t *turns) hold(c *cpu) {
	if t.idle { // woken from outside: real time counts
		t.idle = false
		t.pace.Stop()
		if !t.hurry {
			t.base += min(uint64(time.Since(t.idleSince)), t.due()-t.base)
		}
	}
	t.holder = c
	c.turn.began = c.icount
	t.extend(c)
	c.setUntil()
	c.wakeUp()
}

// extend gives the holder a full turn from now.
func (t *turns) extend(c *cpu) {
	c.endOfTurn = never
	if len(t.all) > 1 {
		c.endOfTurn = c.icount + quantum
	}
}

// next passes the turn to whoever is first in the queue.
func (t *turns) next() {
	if c := t.holder; c != nil {
		t.base += (c.icount - c.turn.began) * ticksPerInstruction
		c.turn.began = c.icount
	}
	t.holder = nil
	if len(t.queue) > 0 {
		c := t.queue[0]
		t.queue = append(t.queue[:0], t.queue[1:]...)
		c.turn.queued = false
		t.hold(c)
	}
}

// pass lets the others run, if any waits. It returns false if the CPU was
// kicked while it waited for its next turn.
func (t *turns) pass(c *cpu) bool {
	t.mu.Lock()
	if len(t.queue) == 0 {
		t.extend(c)
		t.mu.Unlock()
		return true
	}
	t.enqueue(c)
	t.next()
	t.mu.Unlock()
	return t.take(c)
}

// sleep gives up the turn until a signal comes. It returns false if that is a
// kick.
func (t *turns) sleep(c *cpu) bool {
	t.mu.Lock()
	if c.attn.Load()&wakes != 0 {
		t.mu.Unlock()
		return true
	}
	c.turn.asleep = true
	t.next()
	t.rest()
	t.mu.Unlock()
	return t.take(c)
}

// rest waits for the next timer, in real time, when all CPUs sleep.
func (t *turns) rest() {
	if !t.det || t.holder != nil {
		return
	}
	t.idle, t.idleSince = true, time.Now()
	switch d := t.due(); {
	case d == never || t.stopped:
	case t.hurry:
		t.pace.Reset(0)
	default:
		t.pace.Reset(time.Duration(min(d-min(d, t.base), math.MaxInt64)))
	}
}

// due is when the first timer wants a look.
func (t *turns) due() uint64 {
	d := min(t.pitDue, t.stopTime)
	for _, c := range t.all {
		d = min(d, c.due)
	}
	return d
}

// now is the deterministic time. The holder's goroutine asks, or nobody runs.
func (t *turns) now() uint64 {
	c := t.holder
	if c == nil {
		return t.base
	}
	return t.base + (c.icount-c.turn.began)*ticksPerInstruction
}

// expire has all timers looked at that are due: on the holder's goroutine, or
// on one of its own when all CPUs sleep and real time has passed.
func (t *turns) expire() {
	t.mu.Lock()
	if t.holder == nil {
		if !t.idle || t.stopped {
			t.mu.Unlock()
			return
		}
		t.idle = false
		t.base = max(t.base, t.due())
	}
	now, pit := t.now(), false
	if t.pitDue <= now {
		t.pitDue, pit = never, true
	}
	t.frozen = true
	t.mu.Unlock()
	if pit {
		t.pitTick()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.all {
		if c.due > now {
			continue
		}
		c.due = never
		c.attn.Or(attnTimer)
		if c.turn.asleep {
			t.enqueue(c)
		}
	}
	t.frozen = false
	if t.holder == nil {
		if t.stopDue() {
			t.stop()
		}
		t.next()
		t.rest()
	}
}

// wake queues a sleeping CPU.
func (t *turns) wake(c *cpu) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.turn.asleep {
		t.enqueue(c)
	}
}

// signal sets a bit of attn and wakes the CPU if it sleeps. A kick wakes only
// its goroutine: the CPU keeps its place.
func (c *cpu) signal(bit uint32) {
	c.attn.Or(bit)
	if bit == attnKick {
		c.wakeUp()
		return
	}
	c.vm.turns.wake(c)
}

func (c *cpu) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
