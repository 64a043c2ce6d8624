package vmm

import (
	"context"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// CPUGlance is where a CPU was at a moment.
type CPUGlance struct {
	State  string `json:"state"`          // one of the CPU… constants
	Mode   string `json:"mode,omitempty"` // "64-bit mode"; "" where unknown
	CPL    uint8  `json:"cpl"`
	RIP    uint64 `json:"rip"`
	RSP    uint64 `json:"rsp"`
	RFLAGS uint64 `json:"rflags"`
	CR3    uint64 `json:"cr3"`
}

// States of a CPU at a glance.
const (
	CPURuns    = "runs"
	CPUHalted  = "halted"  // HLT: it waits for an interrupt
	CPUWaits   = "waits"   // for INIT or the start-up IPI
	CPUUnknown = "unknown" // it did not answer in time: a device holds it up, or it has not begun
)

// glanceTime is how long a CPU may take to say where it is.
const glanceTime = 100 * time.Millisecond

// glanceRequest asks a CPU where it is. It answers on its own thread, when it
// next looks at the gate.
type glanceRequest struct{ answer chan CPUGlance }

// Glance says where each CPU is, without pausing the machine: each one is
// interrupted once and goes on. Of a paused machine nothing is disturbed.
func (m *Machine) Glance(ctx context.Context) ([]CPUGlance, error) {
	m.glances.Lock()
	defer m.glances.Unlock()
	if m.gate.state() == gateStop {
		return nil, errStopped
	}
	ctx, cancel := context.WithTimeout(ctx, glanceTime)
	defer cancel()
	requests := make([]*glanceRequest, len(m.cpus))
	for i, c := range m.cpus {
		requests[i] = &glanceRequest{make(chan CPUGlance, 1)}
		c.glance.Store(requests[i])
		c.kick()
	}
	seen := make([]CPUGlance, len(m.cpus))
	for i, c := range m.cpus {
		seen[i] = c.await(ctx, requests[i])
	}
	return seen, nil
}

// await is a CPU's answer. A parked CPU does not look at the gate: it is asked
// by the work that it does for others.
func (c *vcpu) await(ctx context.Context, r *glanceRequest) CPUGlance {
	if c.m.gate.state() == gatePause {
		c.m.gate.submit(c.work, c.answerGlance)
	}
	select {
	case g := <-r.answer:
		return g
	case <-ctx.Done():
		c.glance.CompareAndSwap(r, nil)
		return CPUGlance{State: CPUUnknown}
	}
}

// answerGlance is called by the CPU's own goroutine after an interruption.
func (c *vcpu) answerGlance() {
	if c.glance.Load() == nil {
		return
	}
	if r := c.glance.Swap(nil); r != nil {
		r.answer <- c.look()
	}
}

// look reads the CPU, on its thread.
func (c *vcpu) look() CPUGlance {
	r, err := c.cpu.Regs()
	if err != nil {
		return CPUGlance{State: CPUUnknown}
	}
	s, err := c.cpu.Sregs()
	if err != nil {
		return CPUGlance{State: CPUUnknown}
	}
	g := CPUGlance{State: CPURuns, Mode: clinic.Mode(&r, &s), CPL: s.CPL(), RIP: r.RIP, RSP: r.RSP, RFLAGS: r.RFLAGS, CR3: s.CR3}
	if k, ok := c.cpu.(statefulCPU); ok {
		switch mp, err := k.MPState(); {
		case err != nil:
		case mp == x86.MPHalted:
			g.State = CPUHalted
		case mp == x86.MPUninitialized || mp == x86.MPInitReceived:
			g.State = CPUWaits
		}
	}
	return g
}
