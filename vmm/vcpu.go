package vmm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// vcpu is one virtual CPU and its goroutine, which is locked to its thread
// from the CPU's creation to its close.
type vcpu struct {
	id   int
	m    *Machine
	cpu  VCPU
	fix  *completer // completes instructions that the accelerator gives up on; nil where it never does
	work chan func()
	hits ExitCounts

	thread atomic.Int64 // its thread's number, once it has one

	observer atomic.Pointer[cpuObserver] // nil while nobody looks
	hooked   *cpuObserver                // whose hooks the CPU has; its own goroutine's
	recent   recent
	timer    pacedTimer
	glance   atomic.Pointer[glanceRequest] // somebody wants to know where it is
	atPanic  *clinic.CoreCPU               // its registers when the guest's kernel had panicked, for a core

	mu   sync.Mutex // guards live
	live bool       // cpu may be kicked
}

// create makes the CPU on the calling thread, and brings the boot processor
// into the state in which the kernel expects it.
func (c *vcpu) create() error {
	m := c.m
	cpu, err := m.vm.NewVCPU(c.id, cpuidFor(m.cpuid, c.id, m.cfg.CPUs))
	if err != nil {
		return err
	}
	c.cpu = cpu
	if err := c.prepare(); err != nil {
		return errors.Join(fmt.Errorf("vcpu %d: %w", c.id, err), cpu.Close())
	}
	c.mu.Lock()
	c.live = true
	c.mu.Unlock()
	c.observe(c.observer.Load()) // for a look that began before the CPU was there
	c.hook()
	return nil
}

func (c *vcpu) prepare() error {
	if s := c.m.kept.from; s != nil {
		if c.m.kept.unseen {
			if err := checkSeen(s.State, c.cpu, c.m.cpuid); err != nil {
				return err
			}
		}
		return c.load(&s.State.CPUs[c.id])
	}
	c.setMTRRs()
	if c.id != 0 {
		return nil // waits for INIT and SIPI
	}
	s, err := c.cpu.Sregs()
	if err != nil {
		return err
	}
	c.m.entry.Apply(&s)
	if err := c.cpu.SetSregs(&s); err != nil {
		return err
	}
	return c.cpu.SetRegs(&c.m.entry.Regs)
}

// setMTRRs makes all memory write-back by default, as firmware would (SDM
// vol. 3, 12.11.2.1). A CPU without the register does not need it.
func (c *vcpu) setMTRRs() {
	const (
		msrMTRRDefType = 0x2ff
		enabled        = 1 << 11
		writeBack      = 6
	)
	_ = c.cpu.SetMSRs([]x86.MSR{{Index: msrMTRRDefType, Data: enabled | writeBack}})
}

func (c *vcpu) close() {
	c.mu.Lock()
	c.live = false
	c.mu.Unlock()
	_ = c.cpu.Close()
}

// kick makes the CPU look at the gate.
func (c *vcpu) kick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live {
		_ = c.cpu.Kick() // fails only for a thread that is gone
	}
}

// loop runs the CPU until the machine stops. This is the hot path: an exit
// goes to its device and back into the guest without allocating or locking.
func (c *vcpu) loop() *StopError {
	for {
		x, err := c.cpu.Run()
		if err != nil {
			return &StopError{Cause: CauseHost, VCPU: c.id, Err: fmt.Errorf("vcpu %d: %w", c.id, err)}
		}
		c.hits.add(x.Reason)
		if x.Reason == x86.ExitInterrupted {
			c.hook()
			c.answerGlance()
			if !c.m.gate.pass(c.work) {
				c.lastInstruction()
				return nil
			}
			continue
		}
		if end := c.handle(&x); end != nil {
			c.lastInstruction()
			return end
		}
		c.recent.note(&x)
	}
}

// handle is dispatch, seen by whoever looks.
func (c *vcpu) handle(x *x86.Exit) *StopError {
	if tracing {
		if o := c.observer.Load(); o != nil {
			return c.observedDispatch(o, x)
		}
	}
	return c.dispatch(x)
}

// dispatch handles an exit. It returns why the machine must stop, or nil to go
// on.
func (c *vcpu) dispatch(x *x86.Exit) *StopError {
	switch x.Reason {
	case x86.ExitIO:
		c.portIO(x)
		if c.m.input != nil {
			c.m.feedInput(x.Port)
		}
	case x86.ExitMMIO:
		c.mmio(x)
		if c.m.cfg.Deterministic && x.Write {
			c.m.settle()
		}
	default:
		return c.rare(x)
	}
	return nil
}

// portIO hands each access of the exit to the bus. A string instruction leaves
// once for Count accesses to one port: the data advance, the port does not.
func (c *vcpu) portIO(x *x86.Exit) {
	size := int(x.Size)
	for p := x.Data; len(p) >= size && size > 0; p = p[size:] {
		if x.Write {
			c.m.pio.Write(uint64(x.Port), p[:size])
		} else {
			c.m.pio.Read(uint64(x.Port), p[:size])
		}
	}
}

func (c *vcpu) mmio(x *x86.Exit) {
	if x.Write {
		c.m.mmio.Write(x.Addr, x.Data)
	} else {
		c.m.mmio.Read(x.Addr, x.Data)
	}
}

// rare handles what is not an access to a device. It returns why the machine
// must stop, or nil to go on.
func (c *vcpu) rare(x *x86.Exit) *StopError {
	switch x.Reason {
	case x86.ExitInternalError:
		return c.complete(x)
	case x86.ExitShutdown:
		return c.tripleFault()
	case x86.ExitHLT:
		// Only without an interrupt controller in the accelerator, which
		// Vitrine always has: a halt with interrupts off for good.
		return c.fault("halted for ever: HLT with interrupts disabled")
	case x86.ExitFailEntry:
		return c.entryFailure(x.Hardware)
	case x86.ExitSystemEvent:
		return c.systemEvent(x.SubError)
	case x86.ExitDebug:
		return c.debugExit(x)
	case x86.ExitReset:
		return &StopError{Cause: CauseReboot, VCPU: c.id}
	case x86.ExitReadMSR, x86.ExitWriteMSR:
		c.accessMSR(x)
		return nil
	}
	return c.fault(fmt.Sprintf("exit that the VMM does not know: %v %#x", x.Reason, x.Hardware))
}

// accessMSR does what the accelerator would have done, had it not been asked to
// let the access be seen.
func (c *vcpu) accessMSR(x *x86.Exit) {
	if x.Reason == x86.ExitWriteMSR {
		if x.MSR == x86.MSRTSCDeadline && c.m.paced.Load() {
			*x.MSRData = c.pace(*x.MSRData)
		}
		if c.cpu.SetMSRs([]x86.MSR{{Index: x.MSR, Data: *x.MSRData}}) != nil {
			*x.MSRFail = 1
		}
		return
	}
	m, err := c.cpu.MSRs(x.MSR)
	if err != nil {
		*x.MSRFail = 1
		return
	}
	*x.MSRData = m[0].Data
}

// Types of KVM_EXIT_SYSTEM_EVENT (api.rst 5).
const (
	systemEventShutdown = 1
	systemEventReset    = 2
	systemEventCrash    = 3
)

func (c *vcpu) systemEvent(kind uint32) *StopError {
	switch kind {
	case systemEventShutdown:
		c.m.gate.stop(nil)
		return nil
	case systemEventReset:
		return &StopError{Cause: CauseReboot, VCPU: c.id}
	case systemEventCrash:
		return &StopError{Cause: CausePanic, VCPU: c.id, Detail: "the guest reported a crash"}
	}
	return c.fault(fmt.Sprintf("system event %d", kind))
}

// fault describes the CPU's state for an end that is nobody's wish.
func (c *vcpu) fault(detail string) *StopError {
	e := &StopError{Cause: CauseFault, VCPU: c.id, Detail: detail}
	if r, err := c.cpu.Regs(); err == nil {
		e.RIP = r.RIP
	}
	return e
}

// ExitCounts counts a CPU's exits by reason. Only its own goroutine writes.
type ExitCounts struct {
	n [16]counter
}

func (e *ExitCounts) add(r x86.ExitReason) { e.n[r&15].add() }

// Map returns the counts that are not zero, by the name of the reason.
func (e *ExitCounts) Map() map[string]uint64 {
	m := make(map[string]uint64)
	for i := range e.n {
		if v := e.n[i].load(); v != 0 {
			m[x86.ExitReason(i).String()] = v
		}
	}
	return m
}
