package clinic

import (
	"encoding/binary"
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// trouble is why an event could not be delivered: the sentence, and the
// exception that the attempt raises.
type trouble struct {
	text   string
	vector uint8
}

// delivery follows what the processor does to deliver a vector (SDM vol. 3,
// 6.12 and 6.14): descriptor-table entry, code segment, stack. It returns nil
// where nothing is in the way.
func (p *patient) delivery(vector uint8) *trouble {
	s := &p.Sregs
	if s.CR0&x86.CR0PE == 0 {
		return p.realDelivery(vector)
	}
	long := s.EFER&x86.EFERLMA != 0
	size := uint64(8)
	if long {
		size = 16
	}
	off := uint64(vector) * size
	if off+size-1 > uint64(s.IDT.Limit) {
		return &trouble{fmt.Sprintf("the IDT at %#x has limit %#x: no entry for vector %d",
			s.IDT.Base, s.IDT.Limit, vector), x86.VectorGP}
	}
	raw, t := p.table(s.IDT.Base+off, int(size), fmt.Sprintf("IDT entry %d", vector))
	if t != nil {
		return t
	}
	g := gateOf(raw)
	if t := g.check(vector, long); t != nil {
		return t
	}
	cs, t := p.codeSegment(g.selector, vector, long)
	if t != nil {
		return t
	}
	return p.deliveryStack(g, cs, long)
}

// realDelivery is through the interrupt vector table (SDM vol. 3, 21.1.4).
func (p *patient) realDelivery(vector uint8) *trouble {
	s := &p.Sregs
	if uint32(vector)*4+3 > uint32(s.IDT.Limit) {
		return &trouble{fmt.Sprintf("the interrupt vector table at %#x has limit %#x: no entry for vector %d",
			s.IDT.Base, s.IDT.Limit, vector), x86.VectorGP}
	}
	if sp := uint16(p.Regs.RSP); sp < 6 && sp != 0 {
		return &trouble{fmt.Sprintf("the stack pointer is %#x: no room for the return address", sp), x86.VectorSS}
	}
	if _, err := p.Mem.Bytes(addr(s.IDT.Base+uint64(vector)*4), 4); err != nil {
		return &trouble{fmt.Sprintf("the interrupt vector table at %#x is outside guest memory", s.IDT.Base), x86.VectorGP}
	}
	return nil
}

// table reads from a descriptor table or task-state segment.
func (p *patient) table(linear uint64, n int, what string) ([]byte, *trouble) {
	if !p.Sregs.LongMode() && p.Sregs.EFER&x86.EFERLMA == 0 {
		linear = uint64(uint32(linear))
	}
	w := p.paging.Walk(p.Mem, linear, paging.Implicit)
	switch {
	case w.Cause == paging.NonCanonical:
		return nil, &trouble{fmt.Sprintf("%s is at %#x, which is not canonical", what, linear), x86.VectorGP}
	case w.Cause != paging.Mapped:
		p.walk(what+":", linear, paging.Implicit)
		return nil, &trouble{fmt.Sprintf("%s is at %#x, which cannot be read: %s", what, linear, p.walkText(&w)), x86.VectorPF}
	}
	b, err := p.Mem.Bytes(w.GPA, uint64(n))
	if err != nil {
		return nil, &trouble{fmt.Sprintf("%s is at %#x, physical %#x: outside guest memory", what, linear, uint64(w.GPA)), x86.VectorGP}
	}
	return append([]byte(nil), b...), nil
}

// walkText is the reason for which a walk failed, with its level.
func (p *patient) walkText(w *paging.Walk) string {
	if w.Depth == 0 {
		return w.Cause.String()
	}
	l := &w.Levels[w.Depth-1]
	if l.Absent && w.Depth == 1 {
		return fmt.Sprintf("CR3 %#x points outside guest memory", p.Sregs.CR3)
	}
	return fmt.Sprintf("%s (%s entry %d at %#x is %#x)", w.Cause, l.Table, l.Index, uint64(l.Addr), l.Entry)
}

// gate is an entry of the IDT (SDM vol. 3, 6.11 and 6.14.1).
type gate struct {
	selector uint16
	offset   uint64
	kind     uint8 // 5 task gate, 6 and 7 16-bit, 14 interrupt, 15 trap
	system   bool
	present  bool
	ist      uint8
	zero     bool // the entry is all zero
}

func gateOf(b []byte) gate {
	lo := binary.LittleEndian.Uint64(b)
	g := gate{selector: uint16(lo >> 16), offset: lo&0xffff | lo>>48<<16, kind: uint8(lo>>40) & 15,
		system: lo>>44&1 == 0, present: lo>>47&1 != 0, ist: uint8(lo>>32) & 7, zero: lo == 0}
	if len(b) >= 16 {
		g.offset |= binary.LittleEndian.Uint64(b[8:]) << 32
	}
	return g
}

func (g *gate) check(vector uint8, long bool) *trouble {
	const task = 5
	ok := g.system && (g.kind == 14 || g.kind == 15 || !long && (g.kind == task || g.kind == 6 || g.kind == 7))
	switch {
	case g.zero:
		return &trouble{fmt.Sprintf("IDT entry %d is empty", vector), x86.VectorGP}
	case !ok:
		return &trouble{fmt.Sprintf("IDT entry %d is not a gate: type %#x", vector, g.kind), x86.VectorGP}
	case !g.present:
		return &trouble{fmt.Sprintf("IDT entry %d is not present", vector), x86.VectorNP}
	}
	return nil
}

// codeSegment checks the segment that a gate leads to and returns its
// descriptor.
func (p *patient) codeSegment(selector uint16, vector uint8, long bool) (uint64, *trouble) {
	what := fmt.Sprintf("selector %#x of IDT entry %d", selector, vector)
	if selector&^3 == 0 {
		return 0, &trouble{what + " is null", x86.VectorGP}
	}
	base, limit, name := p.Sregs.GDT.Base, uint32(p.Sregs.GDT.Limit), "GDT"
	if selector&4 != 0 {
		base, limit, name = p.Sregs.LDT.Base, p.Sregs.LDT.Limit, "LDT"
	}
	off := uint32(selector &^ 7)
	if off+7 > limit {
		return 0, &trouble{fmt.Sprintf("%s is beyond the %s at %#x with limit %#x", what, name, base, limit), x86.VectorGP}
	}
	raw, t := p.table(base+uint64(off), 8, fmt.Sprintf("%s entry %#x", name, off))
	if t != nil {
		return 0, t
	}
	d := binary.LittleEndian.Uint64(raw)
	code := d>>44&1 != 0 && d>>43&1 != 0
	switch {
	case !code:
		return 0, &trouble{fmt.Sprintf("%s names no code segment: %s entry is %#016x", what, name, d), x86.VectorGP}
	case d>>47&1 == 0:
		return 0, &trouble{fmt.Sprintf("%s names a segment that is not present", what), x86.VectorNP}
	case long && (d>>53&1 == 0 || d>>54&1 != 0):
		return 0, &trouble{fmt.Sprintf("%s names a segment that is not 64-bit code: %s entry is %#016x", what, name, d), x86.VectorGP}
	case uint8(d>>45)&3 > p.Sregs.CPL():
		return 0, &trouble{fmt.Sprintf("%s names a segment with DPL %d, less privileged than CPL %d", what, d>>45&3, p.Sregs.CPL()), x86.VectorGP}
	}
	return d, nil
}

// deliveryStack checks that the return frame can be pushed.
func (p *patient) deliveryStack(g gate, cs uint64, long bool) *trouble {
	const task = 5
	if g.kind == task {
		return nil // the stack is the task's
	}
	sp, from, t := p.newStack(g, cs, long)
	if t != nil {
		return t
	}
	frame := uint64(20)
	if long {
		sp &^= 15
		frame = 48
	} else {
		sp = uint64(uint32(sp))
	}
	cpu := p.paging
	cpu.CPL = uint8(cs>>45) & 3
	w := cpu.Walk(p.Mem, sp-frame, paging.Write)
	switch {
	case w.Cause == paging.NonCanonical:
		return &trouble{fmt.Sprintf("the stack pointer %#x (%s) is not canonical", sp, from), x86.VectorSS}
	case w.Cause != paging.Mapped:
		p.walk("stack", sp-frame, paging.Write)
		return &trouble{fmt.Sprintf("the stack at %#x (%s) cannot be written: %s", sp-frame, from, p.walkText(&w)), x86.VectorPF}
	}
	return nil
}

// newStack is the stack on which the frame is pushed: the interrupt stack
// table's, that of a higher privilege, or the one in use.
func (p *patient) newStack(g gate, cs uint64, long bool) (sp uint64, from string, t *trouble) {
	conforming := cs>>42&1 != 0
	target := uint8(cs>>45) & 3
	var off uint64
	switch {
	case long && g.ist != 0:
		off, from = 0x24+8*uint64(g.ist-1), fmt.Sprintf("interrupt stack %d", g.ist)
	case p.Sregs.CPL() != 0 && target < p.Sregs.CPL() && !conforming && long:
		off, from = 4+8*uint64(target), fmt.Sprintf("RSP%d of the TSS", target)
	case p.Sregs.CPL() != 0 && target < p.Sregs.CPL() && !conforming:
		off, from = 4+8*uint64(target), fmt.Sprintf("ESP%d of the TSS", target)
	default:
		if long {
			return p.Regs.RSP, "RSP", nil
		}
		return p.rspLinear(), "SS:ESP", nil
	}
	tr := &p.Sregs.TR
	if tr.Present == 0 || tr.Unusable != 0 || off+7 > uint64(tr.Limit) {
		return 0, "", &trouble{fmt.Sprintf("%s is wanted, but TR (base %#x, limit %#x) has none", from, tr.Base, tr.Limit), x86.VectorTS}
	}
	n := 8
	if !long {
		n = 4
	}
	raw, t := p.table(tr.Base+off, n, from)
	if t != nil {
		return 0, "", t
	}
	if long {
		return binary.LittleEndian.Uint64(raw), from, nil
	}
	return uint64(binary.LittleEndian.Uint32(raw)), from, nil
}

// checkDelivery adds to the report what is in the way of a vector's delivery.
func (p *patient) checkDelivery(vector uint8) {
	if t := p.delivery(vector); t != nil {
		p.link("%s cannot be delivered: %s", exceptionName(vector), t.text)
		return
	}
	p.link("%s can be delivered as far as descriptor tables and stack go", exceptionName(vector))
}
