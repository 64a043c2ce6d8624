package vmm

import (
	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// cpuObserver writes a vCPU's events.
type cpuObserver struct {
	observer
	index map[string]uint32 // of the session's devices, by their names on a bus
	each  *instructionObserver
}

// maxString is how many bytes of a string instruction's are kept.
const maxString = 4096

// registerKeeper is a CPU that can have its registers at hand after every
// exit, for a price per exit.
type registerKeeper interface{ KeepRegs(on bool) }

func (c *vcpu) observe(o *cpuObserver) {
	c.observer.Store(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.cpu.(registerKeeper); ok && c.live {
		k.KeepRegs(o != nil)
	}
}

// hook has a software CPU tell of what does not leave it. It is called by the
// CPU's own goroutine whenever the observer may have changed.
func (c *vcpu) hook() {
	o := c.observer.Load()
	if o == c.hooked {
		return
	}
	c.hooked = o
	v, ok := c.cpu.(*softcpu.VCPU)
	switch {
	case !ok:
	case o == nil:
		v.OnEvent(nil)
		v.OnSystem(nil)
		v.OnInstruction(nil)
	default:
		v.OnSystem(func(s softcpu.System) { o.system(c.id, &s) })
		if w := o.each; w != nil {
			w.cpu = v
			v.OnInstruction(w.instruction)
			v.OnEvent(func(e softcpu.Event) { w.event(&e); o.vector(c.id, &e) })
			return
		}
		v.OnInstruction(nil)
		v.OnEvent(func(e softcpu.Event) { o.vector(c.id, &e) })
	}
}

// vector is an exception or interrupt inside the software CPU.
func (o *cpuObserver) vector(cpu int, v *softcpu.Event) {
	e := trace.Event{Time: o.session.Now(), CPU: uint8(cpu), Source: o.source, Kind: trace.KindVector,
		Addr: uint64(v.Vector), Value: uint64(v.Code), RIP: v.RIP}
	if v.HasCode {
		e.Aux |= trace.VectorHasCode
	}
	if v.Software {
		e.Aux |= trace.VectorSoftware
	}
	if v.External {
		e.Aux |= trace.VectorExternal
	}
	o.ring.Emit(&e)
}

// system is an instruction that stays inside the software CPU.
func (o *cpuObserver) system(cpu int, s *softcpu.System) {
	e := trace.Event{Time: o.session.Now(), CPU: uint8(cpu), Source: o.source, RIP: s.RIP,
		Addr: uint64(s.Index) | uint64(s.Sub)<<32, Value: uint64(s.Result[0]) | uint64(s.Result[1])<<32}
	switch s.Op {
	case softcpu.SystemCPUID:
		e.Kind, e.Aux = trace.KindCPUID, uint64(s.Result[2])|uint64(s.Result[3])<<32
	case softcpu.SystemReadMSR:
		e.Kind = trace.KindReadMSR
	case softcpu.SystemWriteMSR:
		e.Kind, e.Write = trace.KindWriteMSR, true
	default:
		e.Kind = trace.KindHalt
	}
	o.ring.Emit(&e)
}

// observedDispatch is dispatch with an event for what it did.
func (c *vcpu) observedDispatch(o *cpuObserver, x *x86.Exit) *StopError {
	c.hook()
	e := trace.Event{Time: o.session.Now(), CPU: uint8(c.id), Source: o.source, Size: x.Size, Write: x.Write}
	if r, err := c.cpu.Regs(); err == nil {
		e.RIP = r.RIP
	}
	o.describe(&e, x, c.m)
	end := c.dispatch(x)
	e.Took = o.session.Now() - e.Time
	o.finish(&e, x)
	return end
}

// describe fills in what an exit was, before it is handled.
func (o *cpuObserver) describe(e *trace.Event, x *x86.Exit, m *Machine) {
	switch x.Reason {
	case x86.ExitIO:
		e.Kind, e.Addr, e.Count = trace.KindIO, uint64(x.Port), uint16(min(x.Count, 0xffff))
		e.Value = littleEndian(x.Data[:min(int(x.Size), len(x.Data))])
		e.Aux = o.device(m.pio, e.Addr)
		if p := m.platform.pci; p != nil && e.Addr >= portPCI+4 && e.Addr < portPCI+8 {
			e.Aux |= uint64(p.Address()&0xffff) << 8
		}
	case x86.ExitMMIO:
		e.Kind, e.Addr, e.Count, e.Value = trace.KindMMIO, x.Addr, 1, littleEndian(x.Data)
		e.Aux = o.device(m.mmio, e.Addr)
	case x86.ExitInternalError:
		e.Kind, e.Addr, e.Value = trace.KindComplete, uint64(x.SubError), littleEndian(x.Instruction)
		e.Size = uint8(len(x.Instruction))
		if len(x.Instruction) > 8 {
			e.Aux = littleEndian(x.Instruction[8:])
		}
	case x86.ExitReadMSR, x86.ExitWriteMSR:
		e.Kind, e.Addr, e.Value = trace.KindReadMSR, uint64(x.MSR), *x.MSRData
		if x.Reason == x86.ExitWriteMSR {
			e.Kind, e.Write = trace.KindWriteMSR, true
		}
	default:
		e.Kind, e.Addr, e.Value = trace.KindExit, uint64(x.Reason), uint64(x.SubError)|x.Hardware
	}
}

// finish emits the event of an exit that has been handled.
func (o *cpuObserver) finish(e *trace.Event, x *x86.Exit) {
	if e.Kind != trace.KindIO && e.Kind != trace.KindMMIO {
		if e.Kind == trace.KindReadMSR {
			e.Value = *x.MSRData
		}
		o.ring.Emit(e)
		return
	}
	if !x.Write {
		e.Value = littleEndian(x.Data[:min(int(x.Size), len(x.Data))])
	}
	if x.Count > 1 {
		data := [1][]byte{x.Data}
		trace.EmitData(o.ring, *e, e.ID(), data[:], maxString)
	}
	o.ring.Emit(e)
}

// device is Aux of an access: which device, and where in it.
func (o *cpuObserver) device(b *bus.Bus, addr uint64) uint64 {
	_, off, r, ok := b.Lookup(addr)
	if !ok {
		return trace.NoDevice << 32
	}
	i, ok := o.index[r.Name]
	if !ok {
		i = trace.NoDevice
	}
	return uint64(i)<<32 | uint64(uint32(off))
}
