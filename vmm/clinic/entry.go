package clinic

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// EntryFailure explains a state that the processor refuses to enter (SDM
// vol. 3, 27.3.1, "Checks on the Guest State Area"; AMD APM vol. 2, 15.5.1).
// hardware is the processor's own number for it.
func EntryFailure(s State, hardware uint64) Report {
	p := examine(s)
	p.checkControl()
	p.checkSegments()
	p.report.Summary = fmt.Sprintf("the processor refused the guest's state (hardware reason %#x)", hardware)
	if n := len(p.report.Notes); n > 0 {
		p.report.Summary += ": " + p.report.Notes[0]
	} else {
		p.note("nothing in the registers is against the architecture's rules")
	}
	return p.report
}

// rule is a demand of the architecture's and whether it is broken.
type rule struct {
	broken bool
	text   string
}

func (p *patient) apply(rules []rule) {
	for _, r := range rules {
		if r.broken {
			p.note("%s", r.text)
		}
	}
}

func (p *patient) checkControl() {
	s := &p.Sregs
	pg, pe := s.CR0&x86.CR0PG != 0, s.CR0&x86.CR0PE != 0
	lme, lma := s.EFER&x86.EFERLME != 0, s.EFER&x86.EFERLMA != 0
	const reservedCR0 = ^uint64(x86.CR0PE | x86.CR0MP | x86.CR0EM | x86.CR0TS | x86.CR0ET | x86.CR0NE | x86.CR0WP |
		x86.CR0AM | x86.CR0NW | x86.CR0CD | x86.CR0PG)
	p.apply([]rule{
		{pg && !pe, "CR0.PG is set without CR0.PE: paging needs protected mode"},
		{s.CR0&x86.CR0NW != 0 && s.CR0&x86.CR0CD == 0, "CR0.NW is set without CR0.CD"},
		{s.CR0&reservedCR0 != 0, fmt.Sprintf("reserved bits of CR0 are set: %#x", s.CR0&reservedCR0)},
		{lma != (lme && pg), "EFER.LMA is not what EFER.LME and CR0.PG together say"},
		{lme && pg && s.CR4&x86.CR4PAE == 0, "IA-32e mode without CR4.PAE"},
		{s.CR4&x86.CR4PCIDE != 0 && !lma, "CR4.PCIDE is set outside IA-32e mode"},
		{s.EFER&^(x86.EFERSCE|x86.EFERLME|x86.EFERLMA|x86.EFERNXE|0xf000|1<<14|1<<15) != 0, "reserved bits of EFER are set"},
		{p.Regs.RFLAGS&x86.Flag1 == 0, "bit 1 of RFLAGS is clear: it is always one"},
		{p.Regs.RFLAGS&(1<<3|1<<5|1<<15) != 0 || p.Regs.RFLAGS>>22 != 0, "reserved bits of RFLAGS are set"},
		{lma && p.Regs.RFLAGS&x86.FlagVM != 0, "RFLAGS.VM is set in IA-32e mode, which has no virtual-8086 mode"},
		{!s.LongMode() && p.Regs.RIP>>32 != 0, "RIP has more than 32 bits outside 64-bit mode"},
		{s.LongMode() && !p.paging.Canonical(p.Regs.RIP), fmt.Sprintf("RIP %#x is not canonical", p.Regs.RIP)},
		{lma && s.CR3>>52 != 0, "CR3 has bits beyond the physical address width"},
	})
}

func (p *patient) checkSegments() {
	s := &p.Sregs
	if s.CR0&x86.CR0PE == 0 {
		for _, g := range []struct {
			name string
			seg  *x86.Segment
		}{{"CS", &s.CS}, {"SS", &s.SS}} {
			p.apply([]rule{{g.seg.Base != uint64(g.seg.Selector)<<4 && g.seg.Base < 1<<20,
				fmt.Sprintf("real mode: the base of %s, %#x, is not its selector %#x times 16 (needed without unrestricted guest mode)",
					g.name, g.seg.Base, g.seg.Selector)}})
		}
		return
	}
	p.apply([]rule{
		{s.CS.S == 0 || s.CS.Type&8 == 0 && s.CS.Type != 3, "CS is not a code segment"},
		{s.CS.Type&1 == 0, "the type of CS lacks the accessed bit"},
		{s.CS.Present == 0, "CS is not present"},
		{s.CS.L != 0 && s.CS.DB != 0 && s.EFER&x86.EFERLMA != 0, "CS has both L and D set"},
		{s.CS.Selector&3 != s.SS.Selector&3, fmt.Sprintf("the RPLs of CS (%#x) and SS (%#x) differ", s.CS.Selector, s.SS.Selector)},
		{s.CS.Type&4 == 0 && s.CS.DPL != s.SS.DPL, fmt.Sprintf("CS has DPL %d, SS has DPL %d", s.CS.DPL, s.SS.DPL)},
		{s.SS.Unusable == 0 && s.SS.Type != 3 && s.SS.Type != 7, "SS is not writable data"},
		{s.TR.Unusable != 0 || s.TR.Present == 0, "TR is not usable: there must be a task-state segment"},
		{s.EFER&x86.EFERLMA != 0 && s.TR.Type != 11, fmt.Sprintf("TR has type %d; IA-32e mode needs 11, a busy 64-bit TSS", s.TR.Type)},
		{s.TR.Type != 3 && s.TR.Type != 11, fmt.Sprintf("TR has type %d, which is no busy task-state segment", s.TR.Type)},
	})
	for _, g := range []struct {
		name string
		seg  *x86.Segment
	}{{"CS", &s.CS}, {"SS", &s.SS}, {"DS", &s.DS}, {"ES", &s.ES}, {"FS", &s.FS}, {"GS", &s.GS}} {
		low, high := g.seg.Limit&0xfff != 0xfff, g.seg.Limit>>20 != 0
		p.apply([]rule{
			{g.seg.Unusable == 0 && g.seg.G != 0 && low, fmt.Sprintf("%s counts its limit in pages, but %#x does not end a page", g.name, g.seg.Limit)},
			{g.seg.Unusable == 0 && g.seg.G == 0 && high, fmt.Sprintf("%s counts its limit in bytes, but %#x has more than 20 bits", g.name, g.seg.Limit)},
		})
	}
}
