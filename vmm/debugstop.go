package vmm

import (
	"context"
	"errors"
	"slices"

	"github.com/vitrine-vmm/vitrine/vmm/gdb"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// stopped is called on the thread of a CPU that met a breakpoint: the machine
// is paused, and the debugger told when all of it is.
func (d *Debugger) stopped(st gdb.Stop) {
	d.mu.Lock()
	d.last = st.CPU
	d.mu.Unlock()
	if !d.m.gate.pause() {
		return // it is being paused or stopped already
	}
	d.m.kick()
	go func() {
		if d.settle(context.Background()) == nil {
			d.stops <- st
		}
	}()
}

// debugExit handles an exit that a debugger asked for.
func (c *vcpu) debugExit(x *x86.Exit) *StopError {
	d := c.m.debugger.Load()
	if d == nil {
		return c.fault("a debug exit without a debugger")
	}
	st, own := d.reason(c.id, x)
	if !own && x.Exception == x86.VectorBP {
		if v, ok := c.cpu.(guestDebugger); ok {
			control, db, dr7 := d.hardware()
			if err := v.SetGuestDebug(control|debugInjectINT3, db, dr7); err != nil {
				return &StopError{Cause: CauseHost, VCPU: c.id, Err: err}
			}
			return nil // an INT3 of the guest's own
		}
	}
	d.stopped(st)
	return nil
}

// atBreakpoint says whether the INT3 that a CPU's accelerator gave up on is the
// debugger's, and stops for it if so.
func (c *vcpu) atBreakpoint(x *x86.Exit) bool {
	d := c.m.debugger.Load()
	if d == nil || len(x.Instruction) == 0 || x.Instruction[0] != int3 {
		return false
	}
	at, err := c.linearRIP()
	if err != nil || !d.patched(at) {
		return false
	}
	// The registers are written back as they are: that takes back the #UD
	// that KVM has queued.
	if r, err := c.cpu.Regs(); err == nil {
		_ = c.cpu.SetRegs(&r)
	}
	d.stopped(gdb.Stop{CPU: c.id, Reason: gdb.AtSoft})
	return true
}

const int3 = 0xcc

func (c *vcpu) linearRIP() (uint64, error) {
	r, err := c.cpu.Regs()
	if err != nil {
		return 0, err
	}
	s, err := c.cpu.Sregs()
	if s.LongMode() {
		return r.RIP, err
	}
	return uint64(uint32(s.CS.Base + r.RIP)), err
}

// patched says whether an INT3 of ours stands at a linear address.
func (d *Debugger) patched(linear uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.points, func(p point) bool { return p.patched && p.Addr == linear })
}

// reason finds what a debug exit is about; own is whether it is the debugger's.
func (d *Debugger) reason(cpu int, x *x86.Exit) (st gdb.Stop, own bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	st = gdb.Stop{CPU: cpu, Reason: gdb.Trapped}
	const singleStep = 1 << 14
	hard := 0
	for _, p := range d.points {
		watch := p.Kind >= gdb.WriteWatch
		hit := !watch && p.Addr == x.Addr || watch && x.Hardware != 0 && x.Hardware == p.Addr
		if p.Kind != gdb.Software {
			hit = hit || watch && hard < 4 && x.DR6>>hard&1 != 0
			hard++
		}
		if !hit {
			continue
		}
		switch {
		case watch:
			return gdb.Stop{CPU: cpu, Reason: gdb.AtWatch, Watch: p.Breakpoint}, true
		case p.Kind == gdb.Hardware:
			return gdb.Stop{CPU: cpu, Reason: gdb.AtHard}, true
		}
		return gdb.Stop{CPU: cpu, Reason: gdb.AtSoft}, true
	}
	if x.DR6&singleStep != 0 {
		return gdb.Stop{CPU: cpu, Reason: gdb.Stepped}, true
	}
	return st, false
}

// Step executes one instruction on a CPU, on its own thread, while the others
// are parked.
func (d *Debugger) Step(ctx context.Context, cpu int) (st gdb.Stop, err error) {
	err = d.m.OnCPU(cpu, func(v VCPU) error {
		c := d.m.cpus[cpu]
		if err := d.arm(v, true); err != nil {
			return err
		}
		st, err = c.stepOnce(ctx)
		return errors.Join(err, d.arm(v, false))
	})
	d.mu.Lock()
	d.last = cpu
	d.mu.Unlock()
	return st, err
}

// stepOnce runs until the step is done or takes too long.
func (c *vcpu) stepOnce(ctx context.Context) (gdb.Stop, error) {
	st := gdb.Stop{CPU: c.id, Reason: gdb.Stepped}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, c.kick)
	defer stop()
	for {
		x, err := c.cpu.Run()
		if err != nil {
			return st, err
		}
		switch x.Reason {
		case x86.ExitInterrupted:
			switch {
			case c.m.gate.state() == gateStop:
				return gdb.Stop{Reason: gdb.Exited}, nil
			case ctx.Err() != nil:
				st.Reason = gdb.Paused
				return st, nil
			}
		case x86.ExitDebug:
			return st, nil
		default:
			if end := c.handle(&x); end != nil {
				c.m.end(end)
				return gdb.Stop{Reason: gdb.Signaled}, nil
			}
			if x.Reason == x86.ExitInternalError {
				return st, nil // completed, and so executed
			}
		}
	}
}
