package vmm

import (
	"fmt"
	"math/bits"

	"github.com/vitrine-vmm/vitrine/vmm/gdb"
	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
)

// guestDebugger is a CPU of KVM's.
type guestDebugger interface {
	SetGuestDebug(control uint32, db [4]uint64, dr7 uint64) error
}

// KVM_GUESTDBG_* (api.rst 4.87).
const (
	debugEnable      = 1 << 0
	debugSingleStep  = 1 << 1
	debugSoftware    = 1 << 16
	debugHardware    = 1 << 17
	debugInjectINT3  = 1 << 19
	debugNoInterrupt = 1 << 20
)

// arm tells a CPU's accelerator what to stop at. It is called on the CPU's
// thread.
func (d *Debugger) arm(v VCPU, step bool) error {
	switch v := v.(type) {
	case *softcpu.VCPU:
		return v.SetDebug(d.wanted(step))
	case guestDebugger:
		control, db, dr7 := d.hardware()
		if n := d.hardwareCount(); n > len(db) {
			return fmt.Errorf("%d hardware breakpoints and watchpoints: a CPU has %d", n, len(db))
		}
		if !step {
			return v.SetGuestDebug(control, db, dr7)
		}
		control |= debugEnable | debugSingleStep
		if v.SetGuestDebug(control|debugNoInterrupt, db, dr7) == nil {
			return nil
		}
		return v.SetGuestDebug(control, db, dr7) // before Linux 5.16: the step may be into a handler
	}
	return gdb.ErrUnsupported
}

// wanted is for a software CPU, which needs no INT3 in memory.
func (d *Debugger) wanted(step bool) softcpu.Debug {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := softcpu.Debug{Step: step, NoInterrupts: step}
	for _, p := range d.points {
		switch p.Kind {
		case gdb.Software, gdb.Hardware:
			if !step {
				w.Breakpoints = append(w.Breakpoints, p.Addr)
			}
		default:
			w.Watchpoints = append(w.Watchpoints, softcpu.Watchpoint{Addr: p.Addr, Len: p.Len,
				Read: p.Kind != gdb.WriteWatch, Write: p.Kind != gdb.ReadWatch})
		}
	}
	return w
}

func (d *Debugger) hardwareCount() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, p := range d.points {
		if p.Kind != gdb.Software {
			n++
		}
	}
	return n
}

// hardware is the debug registers for the breakpoints that need them (SDM
// vol. 3, 17.2.4), and what to ask of KVM.
func (d *Debugger) hardware() (control uint32, db [4]uint64, dr7 uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, p := range d.points {
		control |= debugEnable
		if p.Kind == gdb.Software {
			control |= debugSoftware
			continue
		}
		if n == len(db) {
			break
		}
		control |= debugHardware
		db[n] = p.Addr
		dr7 |= 1<<9 | 1<<(2*n+1) | fields(p.Breakpoint)<<(16+4*n)
		n++
	}
	return control, db, dr7
}

// fields is the R/W and LEN fields of DR7.
func fields(b gdb.Breakpoint) uint64 {
	length := [9]uint64{1: 0, 2: 1, 4: 3, 8: 2}
	switch b.Kind {
	case gdb.WriteWatch:
		return 1 | length[min(b.Len, 8)]<<2
	case gdb.AccessWatch:
		return 3 | length[min(b.Len, 8)]<<2
	}
	return 0
}

// watchable says whether the processor's debug registers can cover a
// watchpoint: 1, 2, 4 or 8 bytes, aligned.
func watchable(b gdb.Breakpoint) bool {
	return b.Len <= 8 && bits.OnesCount64(b.Len) == 1 && b.Addr&(b.Len-1) == 0
}
