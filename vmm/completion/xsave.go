package completion

import (
	"encoding/binary"
	"errors"

	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// The XSAVE area (SDM vol. 1, 13.4):
//
//	  0…511  legacy region: x87, MXCSR, XMM, as FXSAVE has them
//	512…519  XSTATE_BV: the components that are in the area
//	520…527  XCOMP_BV: bit 63 compacted format, and then which components have room
//	528…575  zero
//	576…     extended region: each component at the place that CPUID 0xD names,
//	         or, compacted, one after the other
const (
	offXStateBV  = 512
	offXCompBV   = 520
	offExtended  = 576
	minXSaveArea = 4096 // struct kvm_xsave

	compacted = 1 << 63
)

// State components (SDM vol. 1, 13.1).
const (
	compX87 = 1 << 0
	compSSE = 1 << 1
	compAVX = 1 << 2
)

const initialMXCSR = 0x1f80

// component is where an extended state component lies (CPUID leaf 0xD).
type component struct {
	off, size uint32 // in the standard format
	align     bool   // to 64 bytes in the compacted format
}

type layout [63]component

func layoutOf(cpuid []x86.CPUIDEntry) (l layout) {
	for _, e := range cpuid {
		if e.Function == 0xd && e.Index >= 2 && e.Index < 63 && e.ECX&1 == 0 {
			l[e.Index] = component{off: e.EBX, size: e.EAX, align: e.ECX&2 != 0}
		}
	}
	return l
}

// place is a component's offset in a compacted area with the components of
// comp.
func (l *layout) place(comp uint64, n int) uint32 {
	off := uint32(offExtended)
	for i := 2; i <= n; i++ {
		if comp>>i&1 == 0 {
			continue
		}
		if l[i].align {
			off = (off + 63) &^ 63
		}
		if i == n {
			break
		}
		off += l[i].size
	}
	return off
}

// data is component n in the engine's own area, which is in the standard
// format; ok is false for one that the area does not hold.
func (e *Engine) data(n int) (p []byte, ok bool) {
	c := e.layout[n]
	if c.size == 0 || uint64(c.off)+uint64(c.size) > uint64(len(e.area)) || c.off < offExtended {
		return nil, false
	}
	return e.area[c.off : c.off+c.size], true
}

func (e *Engine) inUse() uint64 { return binary.LittleEndian.Uint64(e.area[offXStateBV:]) }

func (e *Engine) setInUse(v uint64) { binary.LittleEndian.PutUint64(e.area[offXStateBV:], v) }

// errSupervisorState is about XSAVES and XRSTORS with state that IA32_XSS
// enables: KVM's interface does not carry it.
var errSupervisorState = errors.New("IA32_XSS enables state that the host does not hand out")

const msrXSS = 0xda0

// xsaveCheck does what all of the family do first. It returns the requested
// components that XCR0 enables, XCR0, and the area's address.
func (e *Engine) xsaveCheck(op Op, a paging.Access) (rfbm, xcr0, at uint64, v verdict) {
	e.op(op)
	switch {
	case e.s.CR4&x86.CR4OSXSAVE == 0:
		return 0, 0, 0, e.ud()
	case e.s.CR0&x86.CR0TS != 0:
		return 0, 0, 0, e.raise(x86.VectorNM)
	}
	if op == OpXSAVES || op == OpXRSTORS {
		if e.s.CPL() != 0 {
			return 0, 0, 0, e.gp()
		}
		if m, err := e.env.MSRs(msrXSS); err == nil && m[0].Data != 0 {
			return 0, 0, 0, e.fail(errSupervisorState)
		}
	}
	at, v = e.operand(offExtended, a)
	if v != done {
		return 0, 0, 0, v
	}
	if at&63 != 0 {
		return 0, 0, 0, e.gp()
	}
	xcr0, err := e.env.XCR0()
	if err != nil {
		return 0, 0, 0, e.fail(err)
	}
	return (e.r.RDX<<32 | e.r.RAX&0xffff_ffff) & xcr0, xcr0, at, done
}

// xsave is XSAVE, XSAVEOPT, XSAVEC and XSAVES (SDM vol. 1, 13.7 to 13.11).
func (e *Engine) xsave(op Op) verdict {
	rfbm, _, at, v := e.xsaveCheck(op, paging.Write)
	if v != done {
		return v
	}
	if _, v := e.translate(at, paging.Write); v != done {
		return v // a fault is reported at the start of the area
	}
	if err := e.env.XSave(e.area); err != nil {
		return e.fail(err)
	}
	saved := e.inUse() & rfbm
	if rfbm&compSSE != 0 && binary.LittleEndian.Uint32(e.area[offMXCSR:]) != initialMXCSR {
		saved |= compSSE
	}
	if op == OpXSAVEC || op == OpXSAVES {
		return e.saveCompacted(at, rfbm, saved)
	}
	return e.saveStandard(op, at, rfbm, saved)
}

// saveLegacy writes the parts of the legacy region that components stand for.
func (e *Engine) saveLegacy(at, comps uint64, mxcsr bool) verdict {
	binary.LittleEndian.PutUint32(e.area[offMXCSRMask:], e.mxcsrMask())
	type part struct {
		wanted   bool
		from, to uint64
	}
	for _, p := range [...]part{
		{comps&compX87 != 0, 0, offMXCSR},
		{mxcsr, offMXCSR, offST},
		{comps&compX87 != 0, offST, offXMM},
		{comps&compSSE != 0, offXMM, offLegacyEnd},
	} {
		if !p.wanted {
			continue
		}
		if v := e.write(at+p.from, e.area[p.from:p.to]); v != done {
			return v
		}
	}
	return done
}

func (e *Engine) saveStandard(op Op, at, rfbm, saved uint64) verdict {
	var header [8]byte
	if v := e.read(at+offXStateBV, header[:]); v != done {
		return v
	}
	legacy, extended := rfbm, rfbm
	if op == OpXSAVEOPT {
		legacy, extended = saved, saved
	}
	if v := e.saveLegacy(at, legacy, rfbm&(compSSE|compAVX) != 0); v != done {
		return v
	}
	for n := 2; n < len(e.layout); n++ {
		p, ok := e.data(n)
		if extended>>n&1 == 0 || !ok {
			continue
		}
		if v := e.write(at+uint64(e.layout[n].off), p); v != done {
			return v
		}
	}
	old := binary.LittleEndian.Uint64(header[:])
	binary.LittleEndian.PutUint64(header[:], old&^rfbm|saved)
	return e.write(at+offXStateBV, header[:])
}

func (e *Engine) saveCompacted(at, rfbm, saved uint64) verdict {
	if v := e.saveLegacy(at, saved, saved&compSSE != 0); v != done {
		return v
	}
	for n := 2; n < len(e.layout); n++ {
		p, ok := e.data(n)
		if saved>>n&1 == 0 || !ok {
			continue
		}
		if v := e.write(at+uint64(e.layout.place(rfbm, n)), p); v != done {
			return v
		}
	}
	var header [16]byte
	binary.LittleEndian.PutUint64(header[:], saved)
	binary.LittleEndian.PutUint64(header[8:], rfbm|compacted)
	return e.write(at+offXStateBV, header[:])
}

// xrstor is XRSTOR and XRSTORS (SDM vol. 1, 13.8 and 13.12).
func (e *Engine) xrstor(op Op) verdict {
	rfbm, xcr0, at, v := e.xsaveCheck(op, paging.Read)
	if v != done {
		return v
	}
	var header [64]byte
	if v := e.read(at+offXStateBV, header[:]); v != done {
		return v
	}
	stateBV, compBV := binary.LittleEndian.Uint64(header[:]), binary.LittleEndian.Uint64(header[8:])
	if !headerValid(&header, stateBV, compBV, xcr0, op == OpXRSTORS) {
		return e.gp()
	}
	// What is not asked for stays as it is.
	if err := e.env.XSave(e.area); err != nil {
		return e.fail(err)
	}
	if v := e.restoreLegacy(at, rfbm, stateBV, compBV); v != done {
		return v
	}
	for n := 2; n < len(e.layout); n++ {
		p, ok := e.data(n)
		if rfbm>>n&1 == 0 || !ok {
			continue
		}
		if stateBV>>n&1 == 0 {
			clear(p)
			continue
		}
		off := e.layout[n].off
		if compBV&compacted != 0 {
			off = e.layout.place(compBV, n)
		}
		if v := e.read(at+uint64(off), p); v != done {
			return v
		}
	}
	e.setInUse(e.inUse()&^rfbm | stateBV&rfbm)
	binary.LittleEndian.PutUint64(e.area[offXCompBV:], 0)
	// MXCSR counts as part of the SSE state for the host, in whatever way
	// the guest came to set it.
	if rfbm&(compSSE|compAVX) != 0 {
		return e.putState(compSSE)
	}
	return e.putState(0)
}

func headerValid(h *[64]byte, stateBV, compBV, xcr0 uint64, onlyCompacted bool) bool {
	var rest byte
	for _, b := range h[16:] {
		rest |= b
	}
	if compBV&compacted == 0 {
		return !onlyCompacted && compBV == 0 && rest == 0 && stateBV&^xcr0 == 0
	}
	room := compBV &^ compacted
	return rest == 0 && room&^xcr0 == 0 && stateBV&^room == 0
}

// restoreLegacy loads the x87 and SSE components and MXCSR, or initialises
// them.
func (e *Engine) restoreLegacy(at, rfbm, stateBV, compBV uint64) verdict {
	a := e.area
	var in [offLegacyEnd]byte
	if v := e.read(at, in[:]); v != done {
		return v
	}
	compact := compBV&compacted != 0
	mxcsr := binary.LittleEndian.Uint32(in[offMXCSR:])
	switch {
	case compact && rfbm&compSSE != 0 && stateBV&compSSE == 0:
		binary.LittleEndian.PutUint32(a[offMXCSR:], initialMXCSR)
	case compact && rfbm&compSSE != 0, !compact && rfbm&(compSSE|compAVX) != 0:
		if mxcsr&^e.mxcsrMask() != 0 {
			return e.gp()
		}
		binary.LittleEndian.PutUint32(a[offMXCSR:], mxcsr)
	}
	if rfbm&compX87 != 0 {
		if stateBV&compX87 == 0 {
			clear(in[:offMXCSR])
			clear(in[offST:offXMM])
			in[offFCW], in[offFCW+1] = 0x7f, 0x03
		}
		copy(a[:offMXCSR], in[:])
		copy(a[offST:offXMM], in[offST:])
	}
	if rfbm&compSSE != 0 {
		if stateBV&compSSE == 0 {
			clear(in[offXMM:])
		}
		copy(a[offXMM:offLegacyEnd], in[offXMM:])
	}
	return done
}
