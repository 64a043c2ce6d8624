package clinic

import (
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
)

// mapping is a range of virtual addresses and the memory behind it.
type mapping struct {
	virt uint64
	phys memory.Addr
	size uint64
}

// mappings lists what a CPU's page tables map to guest memory, neighbours
// joined, lower addresses first. Tables are the guest's: those that map
// themselves over and over are cut off after maxRanges ranges or maxSteps
// entries.
func mappings(mem *memory.Guest, c *CoreCPU) []mapping {
	cpu := paging.Of(&c.Regs, &c.Sregs)
	var out []mapping
	const maxSteps = 1 << 20
	at, end, wraps := uint64(0), uint64(1)<<32, false
	if m := cpu.Mode(); m == paging.Level4 || m == paging.Level5 {
		end, wraps = 0, true
	}
	for range maxSteps {
		w := cpu.Walk(mem, at, paging.Read)
		step := uint64(memory.PageSize)
		if w.Depth > 0 {
			step = uint64(1) << w.Levels[w.Depth-1].Shift
		}
		if w.PageSize != 0 {
			out = join(out, mem, mapping{at, w.GPA, w.PageSize})
		}
		if len(out) > maxRanges {
			return out[:maxRanges]
		}
		next := at&^(step-1) + step
		if wraps && !cpu.Canonical(next) {
			next = lowestNegative(&cpu)
		}
		if next == end || next < at {
			break
		}
		at = next
	}
	return out
}

// lowestNegative is where the upper half of the canonical addresses begins.
func lowestNegative(cpu *paging.CPU) uint64 {
	if cpu.Mode() == paging.Level5 {
		return 0xff << 56
	}
	return 0x1ffff << 47
}

// join adds a page to the last range if it goes on there, in virtual and in
// physical addresses. Pages that are not guest memory are left out.
func join(out []mapping, mem *memory.Guest, m mapping) []mapping {
	room := uint64(0)
	for _, r := range mem.Regions() {
		if m.phys >= r.Base && m.phys < r.End() {
			room = uint64(r.End() - m.phys)
		}
	}
	if m.size = min(m.size, room); m.size == 0 {
		return out
	}
	if n := len(out); n > 0 {
		l := &out[n-1]
		// Across the end of a region the file's bytes go on elsewhere.
		_, err := mem.Bytes(l.phys, l.size+m.size)
		if l.virt+l.size == m.virt && l.phys+memory.Addr(l.size) == m.phys && err == nil {
			l.size += m.size
			return out
		}
	}
	return append(out, m)
}
