package vmm

import (
	"context"
	"fmt"
	"sync"
)

// Cause is why a machine's run ended.
type Cause uint8

// Causes.
const (
	CausePowerOff    Cause = iota // the guest turned itself off
	CauseReboot                   // the guest asked for a reset
	CausePanic                    // the guest kernel panicked
	CauseTripleFault              // a CPU gave up: an exception while handling a double fault
	CauseFault                    // a CPU reached a state that neither the accelerator nor the VMM can go on from
	CauseHost                     // something on the host failed: memory, a file, KVM
	CauseStopped                  // the context was cancelled or Stop was called
)

var causeNames = [...]string{"power-off", "reboot", "panic", "triple fault", "fault", "host error", "stopped"}

func (c Cause) String() string { return causeNames[c] }

// StopError is how Run reports an end that is not a power-off.
type StopError struct {
	Cause  Cause
	VCPU   int    // the CPU that ended it; -1 where no single one did
	RIP    uint64 // its instruction pointer, where known
	Detail string // a sentence, or several lines, for the user
	Err    error  // what failed on the host, if anything
}

func (e *StopError) Error() string {
	switch e.Cause {
	case CauseTripleFault, CauseFault:
		return fmt.Sprintf("%v on vcpu %d at rip %#x: %s", e.Cause, e.VCPU, e.RIP, e.Detail)
	case CauseHost:
		return e.Err.Error()
	}
	if e.Detail != "" {
		return fmt.Sprintf("%v: %s", e.Cause, e.Detail)
	}
	return e.Cause.String()
}

func (e *StopError) Unwrap() error { return e.Err }

// gate is where vCPUs pass between runs: it lets them by, parks them or turns
// them away. A vCPU looks at it when its Run was interrupted, so whoever
// changes it kicks the CPUs afterwards.
type gate struct {
	mu     sync.Mutex
	cond   sync.Cond
	want   gateState
	cpus   int // that are in their loops
	parked int
	end    *StopError // why want is gateStop; nil for a power-off
}

type gateState uint8

const (
	gateRun gateState = iota
	gatePause
	gateStop
)

func (g *gate) init() { g.cond.L = &g.mu }

// pass parks the calling CPU while the machine is paused, doing the work that
// others have for its thread meanwhile, and says whether to go on.
func (g *gate) pass(work <-chan func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.want == gatePause {
		g.parked++
		g.cond.Broadcast()
		for g.want == gatePause && len(work) == 0 {
			g.cond.Wait()
		}
		for len(work) > 0 {
			f := <-work
			g.cond.Broadcast() // there is room for more work
			g.mu.Unlock()
			f()
			g.mu.Lock()
		}
		g.parked--
	}
	return g.want != gateStop
}

// stop ends the run for the given reason unless it has been ended already.
func (g *gate) stop(end *StopError) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.want != gateStop {
		g.want, g.end = gateStop, end
		g.cond.Broadcast()
	}
}

// pause closes the gate for CPUs and says whether it was open.
func (g *gate) pause() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.want != gateRun {
		return false
	}
	g.want = gatePause
	return true
}

// resume opens the gate and says whether it was closed for a pause.
func (g *gate) resume() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.want != gatePause {
		return false
	}
	g.want = gateRun
	g.cond.Broadcast()
	return true
}

// waitParked blocks until every CPU is parked, or the machine stops, or ctx is
// done.
func (g *gate) waitParked(ctx context.Context) error {
	wake := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		g.cond.Broadcast()
		g.mu.Unlock()
	})
	defer wake()
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.want == gatePause && g.parked < g.cpus && ctx.Err() == nil {
		g.cond.Wait()
	}
	if g.want == gateStop {
		return errStopped
	}
	if g.parked < g.cpus {
		return ctx.Err()
	}
	return nil
}

func (g *gate) enter() { g.mu.Lock(); g.cpus++; g.mu.Unlock() }

func (g *gate) leave() { g.mu.Lock(); g.cpus--; g.cond.Broadcast(); g.mu.Unlock() }

func (g *gate) state() gateState {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.want
}

// result is what the run ended with; only after stop.
func (g *gate) result() *StopError {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.end
}

// submit hands work to a parked CPU's thread, after what others have for it,
// and says whether it will be done.
func (g *gate) submit(work chan<- func(), f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.want == gatePause {
		select {
		case work <- f:
			g.cond.Broadcast()
			return true
		default:
			g.cond.Wait()
		}
	}
	return false
}

// drain does what work is left when a CPU ends, so that nobody waits for it.
func (g *gate) drain(work <-chan func()) {
	for {
		select {
		case f := <-work:
			f()
		default:
			return
		}
	}
}
