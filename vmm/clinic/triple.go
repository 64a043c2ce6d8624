package clinic

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/arch/x86/x86asm"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

func addr(a uint64) memory.Addr { return memory.Addr(a) }

// TripleFault explains a shutdown: an exception whose delivery failed, and
// then that of the double fault too (SDM vol. 3, 6.15, interrupt 8).
func TripleFault(s State) Report {
	p := examine(s)
	first, found := p.firstException()
	if found {
		p.link("%s", first.text)
	} else {
		p.link("an exception at or before RIP; which one cannot be told from the registers%s", p.cr2Hint())
		first.vector = p.likelyVector()
	}
	p.causalChain(first.vector)
	p.checkTables()
	if s.Sregs.CR2 != 0 && s.Sregs.CR2 != p.ripLinear() && s.Sregs.CR2 != p.rspLinear() {
		p.walk("CR2", s.Sregs.CR2, paging.Read)
	}
	last := p.report.Chain[len(p.report.Chain)-1]
	if found {
		last = first.text
		if len(p.report.Chain) > 1 {
			last += "; " + p.report.Chain[1]
		}
	}
	p.report.Summary = "the CPU shut down: " + last
	return p.report
}

// causalChain follows the first exception's delivery to the double fault's.
func (p *patient) causalChain(vector uint8) {
	t := p.delivery(vector)
	if t == nil {
		p.link("%s could be delivered as far as descriptor tables and stack go: the handler itself, or an exception before RIP, failed",
			exceptionName(vector))
		if t := p.delivery(x86.VectorDF); t != nil {
			p.link("%s, which a failing handler leads to, cannot be delivered: %s", exceptionName(x86.VectorDF), t.text)
		}
		return
	}
	p.link("its delivery fails: %s", t.text)
	if !contributory(vector) && !contributory(t.vector) {
		p.link("that raises %s", exceptionName(t.vector))
	}
	df := p.delivery(x86.VectorDF)
	if df == nil {
		p.link("%s could be delivered: its handler failed", exceptionName(x86.VectorDF))
		return
	}
	if df.text == t.text {
		p.link("%s cannot be delivered for the same reason: the CPU shuts down", exceptionName(x86.VectorDF))
		return
	}
	p.link("%s cannot be delivered either: %s; the CPU shuts down", exceptionName(x86.VectorDF), df.text)
}

// contributory says whether a vector makes a double fault of another (SDM
// vol. 3, table 6-5).
func contributory(v uint8) bool {
	switch v {
	case x86.VectorDE, x86.VectorTS, x86.VectorNP, x86.VectorSS, x86.VectorGP, x86.VectorPF:
		return true
	}
	return false
}

// firstException finds what is wrong at RIP itself.
func (p *patient) firstException() (trouble, bool) {
	rip := p.ripLinear()
	if !p.paging.Canonical(rip) {
		return trouble{fmt.Sprintf("RIP %#x is not canonical: fetching there raises #GP", rip), x86.VectorGP}, true
	}
	w := p.paging.Walk(p.Mem, rip, paging.Fetch)
	if w.Cause != paging.Mapped {
		return trouble{fmt.Sprintf("the instruction at RIP %#x cannot be fetched: %s: #PF", rip, p.walkText(&w)), x86.VectorPF}, true
	}
	if _, err := p.Mem.Bytes(w.GPA, 1); err != nil {
		return trouble{fmt.Sprintf("RIP %#x is at physical %#x, outside guest memory: only ones are read there", rip, uint64(w.GPA)), x86.VectorUD}, true
	}
	if !p.Sregs.LongMode() && p.Regs.RIP > uint64(p.Sregs.CS.Limit) {
		return trouble{fmt.Sprintf("RIP %#x is beyond the limit of CS, %#x: #GP", p.Regs.RIP, p.Sregs.CS.Limit), x86.VectorGP}, true
	}
	return p.instructionException(p.fetch(rip, maxInstruction))
}

// instructionException finds what the instruction at RIP raises.
func (p *patient) instructionException(code []byte) (t trouble, found bool) {
	defer func() {
		if recover() != nil { // the disassembler's, on bytes of the guest's
			found = false
		}
	}()
	inst, err := x86asm.Decode(code, p.bits())
	if err != nil {
		if known := vectorFamily(code, p.bits()); known != "" || len(code) < maxInstruction {
			return t, false
		}
		return trouble{fmt.Sprintf("% x at RIP is no instruction: #UD", code[:min(4, len(code))]), x86.VectorUD}, true
	}
	switch inst.Op {
	case x86asm.UD0, x86asm.UD1, x86asm.UD2:
		return trouble{"the guest executed " + inst.Op.String() + ", by which programs give up: #UD", x86.VectorUD}, true
	case x86asm.INT:
		if n, ok := inst.Args[0].(x86asm.Imm); ok {
			return trouble{fmt.Sprintf("the guest executed INT %d", uint8(n)), uint8(n)}, true
		}
	case x86asm.PUSH, x86asm.CALL:
		w := p.paging.Walk(p.Mem, p.rspLinear()-8, paging.Write)
		if w.Cause != paging.Mapped && w.Cause != paging.NonCanonical {
			return trouble{fmt.Sprintf("%s at RIP stores to the stack at %#x, which cannot be written: %s: #PF",
				inst.Op, p.rspLinear()-8, p.walkText(&w)), x86.VectorPF}, true
		}
	case x86asm.DIV, x86asm.IDIV:
		if v, ok := p.register(inst.Args[0]); ok && v == 0 {
			return trouble{"the instruction at RIP divides by zero: #DE", x86.VectorDE}, true
		}
	case x86asm.LIDT, x86asm.LGDT, x86asm.HLT, x86asm.CLI, x86asm.STI:
		if p.Sregs.CPL() != 0 {
			return trouble{fmt.Sprintf("%s at CPL %d: #GP", inst.Op, p.Sregs.CPL()), x86.VectorGP}, true
		}
	}
	if t, found := p.operandException(&inst); found {
		return t, true
	}
	return p.targetException(&inst)
}

// targetException looks at where a near jump, call or return goes: Intel's
// processors raise #GP before they are there (SDM vol. 2, JMP, CALL, RET).
func (p *patient) targetException(inst *x86asm.Inst) (trouble, bool) {
	if p.bits() != 64 {
		return trouble{}, false
	}
	var target uint64
	from, read := p.rspLinear(), true
	switch inst.Op {
	case x86asm.RET:
	case x86asm.JMP, x86asm.CALL:
		if v, ok := p.register(inst.Args[0]); ok {
			target, read = v, false
			break
		}
		m, ok := inst.Args[0].(x86asm.Mem)
		if !ok {
			return trouble{}, false
		}
		from = p.address(m, inst.Len)
	default:
		return trouble{}, false
	}
	where := ""
	if read {
		b, bad := p.table(from, 8, "the target")
		if bad != nil {
			return trouble{}, false
		}
		target, where = binary.LittleEndian.Uint64(b), fmt.Sprintf(", read from %#x", from)
	}
	if p.paging.Canonical(target) {
		return trouble{}, false
	}
	return trouble{fmt.Sprintf("%s at RIP goes to %#x%s, which is not canonical: #GP", inst.Op, target, where), x86.VectorGP}, true
}

// operandException looks at the memory operands of the instruction.
func (p *patient) operandException(inst *x86asm.Inst) (trouble, bool) {
	for i, a := range inst.Args {
		m, ok := a.(x86asm.Mem)
		if !ok || inst.Op == x86asm.LEA || inst.Op == x86asm.NOP {
			continue
		}
		linear := p.address(m, inst.Len)
		access := paging.Read
		if i == 0 && inst.Op != x86asm.CMP && inst.Op != x86asm.TEST && inst.Op != x86asm.JMP && inst.Op != x86asm.CALL &&
			inst.Op != x86asm.PUSH && inst.Op != x86asm.LGDT && inst.Op != x86asm.LIDT {
			access = paging.Write
		}
		w := p.paging.Walk(p.Mem, linear, access)
		switch w.Cause {
		case paging.Mapped:
			continue
		case paging.NonCanonical:
			return trouble{fmt.Sprintf("%s at RIP uses the address %#x, which is not canonical: #GP", inst.Op, linear), x86.VectorGP}, true
		}
		return trouble{fmt.Sprintf("%s at RIP uses the address %#x: %s: #PF", inst.Op, linear, p.walkText(&w)), x86.VectorPF}, true
	}
	return trouble{}, false
}

// address is the linear address of a memory operand.
func (p *patient) address(m x86asm.Mem, length int) uint64 {
	a := uint64(m.Disp)
	if m.Base == x86asm.RIP {
		a += p.Regs.RIP + uint64(length)
	} else if v, ok := p.register(m.Base); ok {
		a += v
	}
	if v, ok := p.register(m.Index); ok {
		a += v * uint64(m.Scale)
	}
	s := &p.Sregs
	seg := &s.DS
	switch m.Segment {
	case x86asm.FS:
		seg = &s.FS
	case x86asm.GS:
		seg = &s.GS
	case x86asm.SS:
		seg = &s.SS
	case x86asm.ES:
		seg = &s.ES
	case x86asm.CS:
		seg = &s.CS
	}
	if s.LongMode() {
		if m.Segment == x86asm.FS || m.Segment == x86asm.GS {
			a += seg.Base
		}
		return a
	}
	return uint64(uint32(a + seg.Base))
}

// register is the value of a general register.
func (p *patient) register(a x86asm.Arg) (uint64, bool) {
	r, ok := a.(x86asm.Reg)
	switch {
	case !ok:
		return 0, false
	case r >= x86asm.RAX && r <= x86asm.R15:
		return *p.Regs.GPR(uint8(r - x86asm.RAX)), true
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return uint64(uint32(*p.Regs.GPR(uint8(r - x86asm.EAX)))), true
	case r >= x86asm.AX && r <= x86asm.R15W:
		return uint64(uint16(*p.Regs.GPR(uint8(r - x86asm.AX)))), true
	}
	return 0, false
}

func (p *patient) cr2Hint() string {
	if p.Sregs.CR2 == 0 {
		return ""
	}
	return fmt.Sprintf("; the last page fault was at %#x (CR2)", p.Sregs.CR2)
}

// likelyVector is the exception to follow where RIP tells nothing.
func (p *patient) likelyVector() uint8 {
	if p.Sregs.CR2 != 0 {
		w := p.paging.Walk(p.Mem, p.Sregs.CR2, paging.Read)
		if w.Cause != paging.Mapped {
			return x86.VectorPF
		}
	}
	return x86.VectorGP
}

// checkTables notes what is wrong with the descriptor tables as such.
func (p *patient) checkTables() {
	s := &p.Sregs
	if s.CR0&x86.CR0PE == 0 {
		return
	}
	if s.IDT.Limit == 0 {
		p.note("there is no IDT: its limit is 0, so that every exception is fatal")
	}
	if w := p.paging.Walk(p.Mem, p.ripLinear(), paging.Read); w.Depth == 1 && w.Levels[0].Absent {
		p.note("CR3 %#x points outside guest memory", s.CR3)
	}
	for _, r := range []struct {
		name     string
		selector uint16
	}{{"CS", s.CS.Selector}, {"SS", s.SS.Selector}} {
		if r.selector&4 == 0 && r.selector&^3 != 0 && uint32(r.selector&^7)+7 > uint32(s.GDT.Limit) {
			p.note("%s is %#x, beyond the GDT's limit %#x: it was loaded from another table, and cannot be again", r.name, r.selector, s.GDT.Limit)
		}
	}
	if _, t := p.table(s.GDT.Base, 8, "the GDT"); t != nil {
		p.note("%s", t.text)
	}
}
