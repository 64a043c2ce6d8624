package vmm

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/devices/bus"
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
func (r *recent) lines(m *Machine) []string {
	var lines []string
	for i := r.n - min(r.n, recentExits); i < r.n; i++ {
		lines = append(lines, r.last[i&(recentExits-1)].text(m))
	}
	return lines
}

func (e *exitNote) text(m *Machine) string {
	switch e.reason {
	case x86.ExitIO:
		return access(m.pio, "io", e)
	case x86.ExitMMIO:
		return access(m.mmio, "mmio", e)
	case x86.ExitInternalError:
		var code []byte
		for i := range min(e.size, 8) {
			code = append(code, byte(e.value>>(8*i)))
		}
		return fmt.Sprintf("completed the instruction % x", code)
	}
	return fmt.Sprintf("exit %v", e.reason)
}

func access(b *bus.Bus, space string, e *exitNote) string {
	name := "nothing there"
	if _, off, r, ok := b.Lookup(e.addr); ok {
		name = fmt.Sprintf("%s+%#x", r.Name, off)
	}
	if e.write {
		return fmt.Sprintf("%s %#x ← %#x (%s)", space, e.addr, e.value, name)
	}
	return fmt.Sprintf("%s %#x → %#x (%s)", space, e.addr, e.value, name)
}
