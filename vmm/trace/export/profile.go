package export

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

// profile counts the instructions that a guest has executed, by who executed
// them.
type profile struct {
	total uint64
	by    map[who]*uint64
	cr3   [256]uint64 // of each CPU, as far as its instructions have told

	last    who // and its counter: the next instruction is likely to be of the same function
	counter *uint64
}

// who is a function of the kernel's, or the user code of an address space.
type who struct {
	function string
	user     bool
	cr3      uint64 // of user code: 0 if it has not been seen
}

// pageTable is where in CR3 the address of the page table is: without PCID, and
// without bit 63, which is no part of the register (SDM vol. 3, 4.5 and 4.10.4.1).
const pageTable = 1<<52 - 1<<12

func (p *profile) add(e *decode.Executed) {
	p.total++
	cr3 := &p.cr3[uint8(e.CPU)]
	w := who{function: e.Function}
	if e.CPL == 3 {
		w = who{user: true, cr3: *cr3}
	}
	if e.CR3 != 0 {
		*cr3 = e.CR3 & pageTable
	}
	if p.counter == nil || w != p.last {
		p.last, p.counter = w, p.find(w)
	}
	*p.counter++
}

func (p *profile) find(w who) *uint64 {
	if p.by == nil {
		p.by = make(map[who]*uint64)
	}
	n := p.by[w]
	if n == nil && len(p.by) >= maxNames {
		w = who{function: "others"}
		n = p.by[w]
	}
	if n == nil {
		n = new(uint64)
		p.by[w] = n
	}
	return n
}

func (w who) String() string {
	switch {
	case w.user && w.cr3 != 0:
		return fmt.Sprintf("user code, page table %#x", w.cr3)
	case w.user:
		return "user code"
	case w.function == "":
		return "code that no symbol names"
	}
	return w.function
}

// topFunctions is how many functions a profile lists.
const topFunctions = 30

func (p *profile) write(w io.Writer) {
	if p.total == 0 {
		return
	}
	type row struct {
		name string
		n    uint64
	}
	var list []row
	for w, n := range p.by {
		list = append(list, row{w.String(), *n})
	}
	slices.SortFunc(list, func(a, b row) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name)) })
	share := func(n uint64) float64 { return 100 * float64(n) / float64(p.total) }
	fmt.Fprintf(w, "\n%-48s %12s %8s\n", "top functions, by instructions executed", "instructions", "share")
	rest := uint64(0)
	for i, r := range list {
		if i >= topFunctions {
			rest += r.n
			continue
		}
		fmt.Fprintf(w, "  %-46s %12d %7.2f%%\n", r.name, r.n, share(r.n))
	}
	if rest > 0 {
		fmt.Fprintf(w, "  %-46s %12d %7.2f%%\n", fmt.Sprintf("… and %d more", len(list)-topFunctions), rest, share(rest))
	}
	fmt.Fprintf(w, "  %-46s %12d\n", "all", p.total)
}
