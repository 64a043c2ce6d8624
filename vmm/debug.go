package vmm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/gdb"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
)

// Debugger is a machine as package gdb sees it. There is one a machine.
type Debugger struct {
	m     *Machine
	stops chan gdb.Stop

	mu     sync.Mutex // vCPUs look at what follows when they stop
	points []point
	last   int // the CPU that stopped last: its page tables place breakpoints

	// Whether the host's watchpoints work; asked once.
	watches func() bool
}

// point is a breakpoint that is set. Where the accelerator cannot do it itself,
// INT3 stands at phys in place of the byte old.
type point struct {
	gdb.Breakpoint
	patched bool
	phys    memory.Addr
	old     byte
}

var _ gdb.Target = (*Debugger)(nil)

var errNoWatchpoint = errors.New("a watchpoint was passed over")

// stepTimeout bounds a single step: a HLT lasts until an interrupt, and some
// hosts do not step user mode.
const stepTimeout = time.Second

// Debugger makes the machine debuggable. What it reports comes from Stops, and
// how the machine ended from Ended.
func (m *Machine) Debugger() *Debugger {
	d := &Debugger{m: m, stops: make(chan gdb.Stop, len(m.cpus)+1)}
	d.watches = sync.OnceValue(func() bool {
		v, ok := m.vm.(interface{ WatchpointsWork() bool })
		return !ok || v.WatchpointsWork()
	})
	if !m.debugger.CompareAndSwap(nil, d) {
		return m.debugger.Load()
	}
	return d
}

// CPUs is the number of the machine's CPUs.
func (d *Debugger) CPUs() int { return len(d.m.cpus) }

// Memory is the guest's memory.
func (d *Debugger) Memory() *memory.Guest { return d.m.mem }

// Stops delivers why the machine stopped by itself.
func (d *Debugger) Stops() <-chan gdb.Stop { return d.stops }

// Kill ends the machine.
func (d *Debugger) Kill() error {
	d.m.Stop(errors.New("killed by the debugger"))
	return nil
}

// Ended tells the debugger that the machine's Run has returned err.
func (d *Debugger) Ended(err error) {
	st := gdb.Stop{Reason: gdb.Exited}
	var end *StopError
	if errors.As(err, &end) {
		st.Status = 1
		if end.Cause == CauseTripleFault || end.Cause == CauseFault || end.Cause == CausePanic {
			st.Reason = gdb.Signaled
		}
	}
	select {
	case d.stops <- st:
	default: // the debugger does not listen; it finds its connection closed
	}
}

// Pause stops the machine, or waits until all of it stands still where a CPU
// has stopped it.
func (d *Debugger) Pause(ctx context.Context) error {
	if d.m.Paused() {
		return d.settle(ctx)
	}
	return d.m.Pause(ctx)
}

// settle completes a stop that began with one CPU.
func (d *Debugger) settle(ctx context.Context) error {
	d.m.guard.Lock()
	defer d.m.guard.Unlock()
	if err := d.m.gate.waitParked(ctx); err != nil {
		return err
	}
	if !d.m.Paused() {
		return errors.New("resumed meanwhile")
	}
	return d.m.pauseDevices(ctx)
}

// Resume lets the machine run. Stops of other CPUs, which came at the same
// time as the one that was reported, are forgotten: those CPUs meet their
// breakpoints again.
func (d *Debugger) Resume() error {
	for {
		select {
		case <-d.stops:
			continue
		default:
		}
		break
	}
	if !d.m.Paused() {
		return nil
	}
	return d.m.Resume()
}

// Registers reads a CPU's registers.
func (d *Debugger) Registers(cpu int) (*gdb.Registers, error) {
	r := new(gdb.Registers)
	err := d.m.OnCPU(cpu, func(v VCPU) (err error) {
		if r.Regs, err = v.Regs(); err != nil {
			return err
		}
		if r.Sregs, err = v.Sregs(); err != nil {
			return err
		}
		if area, err := d.xsave(v); err == nil {
			copy(r.FX[:], area)
			r.HasFX = true
		}
		return nil
	})
	return r, err
}

// extended is a CPU whose x87 and vector registers can be reached.
type extended interface {
	XSave(p []byte) error
	SetXSave(p []byte) error
}

func (d *Debugger) xsave(v VCPU) ([]byte, error) {
	e, ok := v.(extended)
	if !ok {
		return nil, gdb.ErrUnsupported
	}
	size := 4096
	if s, ok := d.m.vm.(interface{ XSaveSize() int }); ok {
		size = s.XSaveSize()
	}
	area := make([]byte, size)
	return area, e.XSave(area)
}

// SetRegisters writes a CPU's registers; those that have not changed are left
// alone.
func (d *Debugger) SetRegisters(cpu int, r *gdb.Registers) error {
	return d.m.OnCPU(cpu, func(v VCPU) error {
		old, err := v.Sregs()
		if err != nil {
			return err
		}
		if old != r.Sregs {
			if err := v.SetSregs(&r.Sregs); err != nil {
				return err
			}
		}
		if err := v.SetRegs(&r.Regs); err != nil || !r.HasFX {
			return err
		}
		area, err := d.xsave(v)
		if err != nil || [512]byte(area) == r.FX {
			return err
		}
		copy(area, r.FX[:])
		const stateBV, x87AndSSE = 512, 3
		area[stateBV] |= x87AndSSE
		return v.(extended).SetXSave(area)
	})
}

// Insert sets a breakpoint on all CPUs.
func (d *Debugger) Insert(b gdb.Breakpoint) error {
	p := point{Breakpoint: b}
	if err := d.place(&p); err != nil {
		return err
	}
	d.mu.Lock()
	d.points = append(d.points, p)
	d.mu.Unlock()
	err := d.armAll()
	if err != nil {
		_ = d.Remove(b)
	}
	return err
}

// Remove takes back a breakpoint.
func (d *Debugger) Remove(b gdb.Breakpoint) error {
	d.mu.Lock()
	i := slices.IndexFunc(d.points, func(p point) bool { return p.Breakpoint == b })
	if i < 0 {
		d.mu.Unlock()
		return nil
	}
	p := d.points[i]
	d.points = slices.Delete(d.points, i, i+1)
	d.mu.Unlock()
	if p.patched {
		if now, err := d.m.mem.Bytes(p.phys, 1); err == nil && now[0] == int3 {
			if err := d.m.mem.WriteAt([]byte{p.old}, p.phys); err != nil {
				return err
			}
		}
	}
	return d.armAll()
}

// place checks that a breakpoint can be had, and puts INT3 where it needs one.
func (d *Debugger) place(p *point) error {
	if p.Kind >= gdb.WriteWatch && !d.watches() {
		return gdb.ErrUnsupported
	}
	_, soft := d.m.cpus[0].cpu.(*softcpu.VCPU)
	switch {
	case soft || p.Kind == gdb.Hardware:
		return nil
	case p.Kind == gdb.ReadWatch:
		return gdb.ErrUnsupported // the processor has no such condition
	case p.Kind != gdb.Software && !watchable(p.Breakpoint):
		return fmt.Errorf("a watchpoint on %d bytes at %#x: the processor watches 1, 2, 4 or 8 aligned bytes", p.Len, p.Addr)
	case p.Kind != gdb.Software:
		return nil
	}
	return d.patch(p)
}

// patch puts INT3 at a breakpoint.
func (d *Debugger) patch(p *point) error {
	d.mu.Lock()
	cpu := d.last
	d.mu.Unlock()
	r, err := d.Registers(cpu)
	if err != nil {
		return err
	}
	pc := paging.Of(&r.Regs, &r.Sregs)
	w := pc.Walk(d.m.mem, p.Addr, paging.Read)
	if w.PageSize == 0 {
		return fmt.Errorf("nothing is mapped at %#x", p.Addr)
	}
	if w.User && d.m.cpus[cpu].fix != nil && pc.Mode() != paging.None {
		return gdb.ErrUnsupported // this host's KVM keeps a user program's INT3 to itself
	}
	b, err := d.m.mem.Bytes(w.GPA, 1)
	if err != nil {
		return err
	}
	p.patched, p.phys, p.old = true, w.GPA, b[0]
	return d.m.mem.WriteAt([]byte{int3}, w.GPA)
}

// armAll brings every CPU in line with the breakpoints.
func (d *Debugger) armAll() error {
	for id := range d.m.cpus {
		if err := d.m.OnCPU(id, func(v VCPU) error { return d.arm(v, false) }); err != nil {
			return err
		}
	}
	return nil
}
