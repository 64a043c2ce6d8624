package softcpu

import (
	"math"
	"sync"
)

// Several CPUs take turns: one executes guest code at a time, for a number of
// instructions, so that none needs to guard what it decodes and stores against
// the others, and a LOCK prefix needs no more than the instruction itself.
// With deterministic time the order depends on nothing but the guest: a CPU
// keeps its turn while the VMM answers its exits, and one that wakes up queues
// at the moment of what woke it.

// quantum is how many instructions a turn lasts at most.
const quantum = 50_000

// turns is the CPUs' queue.
type turns struct {
	mu     sync.Mutex
	on     bool // there are several CPUs
	det    bool
	all    []*cpu
	holder *cpu
	queue  []*cpu
	// base is the deterministic time at which the holder's turn began.
	base uint64
}

// turnState is a CPU's part of it, guarded by turns.mu.
type turnState struct {
	grant  chan struct{} // a turn has come
	asleep bool          // waits for a signal, not in the queue
	began  uint64        // icount at the beginning of the turn
}

// take waits for the CPU's turn.
func (t *turns) take(c *cpu) {
	if !t.on {
		return
	}
	t.mu.Lock()
	switch {
	case t.holder == c:
		t.mu.Unlock()
		return
	case t.holder == nil && len(t.queue) == 0:
		t.hold(c)
		t.mu.Unlock()
		return
	}
	t.queue = append(t.queue, c)
	t.mu.Unlock()
	<-c.turn.grant
}

// hold makes c the holder.
func (t *turns) hold(c *cpu) {
	t.holder = c
	c.turn.began = c.icount
	c.turn.asleep = false
	c.endOfTurn = c.icount + quantum
	c.setUntil()
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
		t.hold(c)
		c.turn.grant <- struct{}{}
	}
}

// give ends the CPU's turn.
func (t *turns) give(c *cpu) {
	if !t.on {
		return
	}
	t.mu.Lock()
	if t.holder == c {
		t.next()
	}
	t.mu.Unlock()
}

// pass lets the others run, if any waits.
func (t *turns) pass(c *cpu) {
	t.mu.Lock()
	if len(t.queue) == 0 {
		c.endOfTurn = c.icount + quantum
		t.mu.Unlock()
		return
	}
	t.queue = append(t.queue, c)
	t.next()
	t.mu.Unlock()
	<-c.turn.grant
}

// sleep gives up the turn until a signal comes.
func (t *turns) sleep(c *cpu) {
	t.mu.Lock()
	if c.attn.Load()&wakes != 0 {
		t.mu.Unlock()
		return
	}
	c.turn.asleep = true
	t.next()
	if t.det && t.holder == nil {
		t.skip()
	}
	t.mu.Unlock()
	<-c.turn.grant
}

// skip lets deterministic time jump to the next timer when all CPUs sleep.
func (t *turns) skip() {
	var first *cpu
	for _, c := range t.all {
		if c.turn.asleep && c.due != math.MaxUint64 && (first == nil || c.due < first.due) {
			first = c
		}
	}
	if first == nil {
		return
	}
	t.base = max(t.base, first.due)
	first.attn.Or(attnTimer)
	t.hold(first)
	first.turn.grant <- struct{}{}
}

// wake queues a sleeping CPU.
func (t *turns) wake(c *cpu) {
	if !t.on {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !c.turn.asleep {
		return
	}
	c.turn.asleep = false
	t.queue = append(t.queue, c)
	if t.holder == nil {
		t.next()
	}
}
