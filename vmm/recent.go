package vmm

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// recent is a CPU's last exits, for the report of its fault. It is kept at all
// times: a few plain stores an exit, by the CPU's own goroutine.
type recent struct {
	n    uint64
	last [recentExits]exitNote
}

// recentExits is a power of two, at least the 20 that a report has.
const recentExits = 32

type exitNote struct {
	addr, value uint64
	reason      x86.ExitReason
	size        uint8
	write       bool
}

func (r *recent) note(x *x86.Exit) {
	e := &r.last[r.n&(recentExits-1)]
	r.n++
	e.reason, e.size, e.write = x.Reason, x.Size, x.Write
	switch x.Reason {
	case x86.ExitIO:
		e.addr = uint64(x.Port)
	case x86.ExitMMIO:
		e.addr = x.Addr
	case x86.ExitInternalError:
		e.addr, e.value = 0, littleEndian(x.Instruction)
		e.size = uint8(len(x.Instruction))
		return
	default:
		e.addr, e.value = x.Addr, x.Hardware
		return
	}
	if len(x.Data) != 0 {
		switch x.Size {
		case 1:
			e.value = uint64(x.Data[0])
		default:
			e.value = littleEndian(x.Data[:min(int(x.Size), len(x.Data))])
		}
	}
}

// lines are the last exits in words, oldest first.
func (r *recent) lines(c *vcpu) []string {
	meta := trace.Meta{Devices: c.m.tracedDevices(), Sources: []string{fmt.Sprintf("vcpu%d", c.id)}}
	o := cpuObserver{index: deviceIndex(meta.Devices)}
	d := decode.New(&meta, nil)
	var lines []string
	for i := r.n - min(r.n, recentExits); i < r.n; i++ {
		it := trace.Item{Event: r.last[i&(recentExits-1)].event(&o, c.m)}
		l := d.Line(&it)
		lines = append(lines, l.Text)
	}
	return lines
}

// event is the exit as a trace would have it.
func (e *exitNote) event(o *cpuObserver, m *Machine) trace.Event {
	t := trace.Event{Addr: e.addr, Value: e.value, Size: e.size, Write: e.write}
	switch e.reason {
	case x86.ExitIO:
		t.Kind, t.Aux = trace.KindIO, o.device(m.pio, e.addr)
	case x86.ExitMMIO:
		t.Kind, t.Aux = trace.KindMMIO, o.device(m.mmio, e.addr)
	case x86.ExitInternalError:
		t.Kind = trace.KindComplete
	default:
		t.Kind, t.Addr, t.Value = trace.KindExit, uint64(e.reason), 0
	}
	return t
}
