package gdb

import (
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
)

// virtual is memory as a CPU addresses it, without regard to rights: a debugger
// may read and write what the guest may not.
type virtual struct {
	cpu paging.CPU
	mem *memory.Guest
}

func virtualOf(mem *memory.Guest, r *Registers) virtual {
	return virtual{paging.Of(&r.Regs, &r.Sregs), mem}
}

// span is the part of n bytes at a linear address that lies in one page, and
// where that is.
func (v *virtual) span(linear, n uint64) (memory.Addr, uint64, bool) {
	w := v.cpu.Walk(v.mem, linear, paging.Read)
	if w.PageSize == 0 {
		return 0, 0, false
	}
	return w.GPA, min(n, memory.PageSize-linear%memory.PageSize), true
}

// read fills p from a linear address and returns how many bytes there are.
func (v *virtual) read(linear uint64, p []byte) int {
	n := 0
	for n < len(p) {
		gpa, room, ok := v.span(linear+uint64(n), uint64(len(p)-n))
		if !ok {
			break
		}
		b, err := v.mem.Bytes(gpa, room)
		if err != nil {
			break
		}
		n += copy(p[n:], b)
	}
	return n
}

// write stores p at a linear address, all of it or nothing.
func (v *virtual) write(linear uint64, p []byte) bool {
	for n := uint64(0); n < uint64(len(p)); {
		gpa, room, ok := v.span(linear+n, uint64(len(p))-n)
		if !ok {
			return false
		}
		if _, err := v.mem.Bytes(gpa, room); err != nil {
			return false
		}
		n += room
	}
	for n := uint64(0); n < uint64(len(p)); {
		gpa, room, ok := v.span(linear+n, uint64(len(p))-n)
		if !ok || v.mem.WriteAt(p[n:n+room], gpa) != nil {
			return false
		}
		n += room
	}
	return true
}

func addrOf(a uint64) memory.Addr { return memory.Addr(a) }
