package vmm

import (
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Where KVM emulates guest kernels, a tick of a Linux guest's timer takes it 2
// to 5 ms, and it asks for one every 10, or every 4 (CONFIG_HZ of distributions'
// kernels): it would do little else. There the VMM looks at each deadline and
// puts off the one that follows a tick, so that most of the time is left for
// other work. Where the guest has been idle since the tick before, that counts:
// it has nothing to gain then, and waits for its timers. Linux counts the ticks
// that it has missed by its clock (tick_do_update_jiffies64 in
// kernel/time/tick-sched.c).
const (
	// tickRest is how many times as long as a tick took the next one is away
	// from its end.
	tickRest = 9
	// longestTick, in milliseconds, bounds what a tick is taken to have
	// needed: on a busy host it waited for the processor meanwhile.
	longestTick = 6
)

// pacedTimer is what the VMM knows of the timer of a CPU's local APIC.
type pacedTimer struct {
	deadline uint64 // in ticks of the time-stamp counter; 0: not armed
	kHz      uint64 // of that; 0: not known yet

	ended time.Time     // when the last tick was over
	ran   time.Duration // how long the CPU's thread had run then
}

// msrExiter is an accelerator that can leave for accesses to MSRs.
type msrExiter interface {
	ExitOnMSRs(all, timer bool) error
}

// paceTimers has the deadlines of timers seen. A CPU calls it when the
// accelerator has given up on an instruction: KVM that emulates guest kernels
// soon does. Other hosts' KVM may too, at an odd access to a device; there it is
// the exits that would cost.
func (m *Machine) paceTimers() {
	v, ok := m.vm.(msrExiter)
	if !ok || !KernelsEmulated() {
		return
	}
	m.observed.mu.Lock()
	defer m.observed.mu.Unlock()
	if m.paced.Load() {
		return
	}
	if err := v.ExitOnMSRs(m.observed.users > 0, true); err != nil {
		m.cfg.Log.Info("the guest's timer is not paced", "error", err)
		return
	}
	m.paced.Store(true)
}

// pace is the deadline that the CPU's timer gets instead of the one that the
// guest has written. Where the last one has passed, what has passed since is
// what it has spent on it: guests program the next when they have done what was
// due. It is called on the CPU's thread.
func (c *vcpu) pace(deadline uint64) uint64 {
	t := &c.timer
	last := t.deadline
	t.deadline = deadline
	if last == 0 || deadline == 0 {
		return deadline
	}
	now, err := c.cpu.MSRs(x86.MSRTSC)
	if err != nil || len(now) != 1 || now[0].Data < last {
		return deadline
	}
	if t.kHz == 0 {
		k, ok := c.cpu.(tscKeeper)
		if !ok {
			return deadline
		}
		t.kHz = uint64(k.TSCkHz())
	}
	rest := tickRest * min(now[0].Data-last, longestTick*t.kHz)
	rest -= min(rest, t.kHz*uint64(t.idle()/time.Microsecond)/1000)
	t.deadline = max(deadline, now[0].Data+rest)
	return t.deadline
}

// idle is how long the CPU has not run since it was last asked.
func (t *pacedTimer) idle() time.Duration {
	ended, ran := t.ended, t.ran
	t.ended, t.ran = time.Now(), ownTime()
	if ended.IsZero() {
		return 0
	}
	return max(0, t.ended.Sub(ended)-(t.ran-ran))
}
