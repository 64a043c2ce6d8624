package completion

import (
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Kernels touch vector registers rarely, and then mostly to move or clear
// them. These moves are completed on the state in the XSAVE area; arithmetic
// on vectors is not.

// vectorMove is a move between vector registers, or between one and memory.
type vectorMove struct {
	load    bool // the register is the destination
	aligned bool // memory must be aligned to the operand's size
	xor     bool // xorps, pxor: completed only where it clears a register
}

// vectorMoveOf finds the move, by opcode and prefix (SDM vol. 2, MOVAPS,
// MOVUPS, MOVDQA, MOVDQU, MOVNTPS, XORPS, PXOR).
func vectorMoveOf(in *inst) (m vectorMove, ok bool) {
	scalar := in.rep != 0
	switch in.op {
	case 0x10, 0x11:
		return vectorMove{load: in.op == 0x10}, !scalar
	case 0x28, 0x29, 0x2b:
		return vectorMove{load: in.op == 0x28, aligned: true}, !scalar && (in.op != 0x2b || in.mod != 3)
	case 0x6f, 0x7f:
		if !in.opSize && in.rep != 0xf3 {
			return m, false // MMX
		}
		return vectorMove{load: in.op == 0x6f, aligned: in.rep == 0}, true
	case 0xe7:
		return vectorMove{aligned: true}, in.opSize && in.mod != 3
	case 0x57:
		return vectorMove{load: true, xor: true}, !scalar && in.clears()
	case 0xef:
		return vectorMove{load: true, xor: true}, in.opSize && in.clears()
	}
	return m, false
}

// clears says whether an exclusive or is of a register with itself.
func (in *inst) clears() bool {
	if in.mod != 3 {
		return false
	}
	if in.vex {
		return in.vvvv == in.rm
	}
	return in.reg == in.rm
}

// sseMove completes a move of whole vector registers.
func (e *Engine) sseMove() verdict {
	in := &e.in
	if in.table != map0F {
		return unknown
	}
	m, ok := vectorMoveOf(in)
	if !ok {
		return unknown
	}
	e.op(OpSSEMove)
	if v := e.vectorsUsable(); v != done {
		return v
	}
	if err := e.env.XSave(e.area); err != nil {
		return e.fail(err)
	}
	size := 16
	if in.long {
		size = 32
	}
	var val [32]byte
	if m.load {
		if v := e.vectorSource(val[:size], m); v != done {
			return v
		}
		return e.putVector(in.reg, val[:], size)
	}
	e.vector(in.reg, val[:size])
	if !e.isMem() {
		return e.putVector(in.rm, val[:], size)
	}
	at, v := e.vectorAddress(size, m, paging.Write)
	if v != done {
		return v
	}
	return e.write(at, val[:size])
}

func (e *Engine) vectorsUsable() verdict {
	if !e.in.vex {
		return e.sseUsable()
	}
	if e.s.CR4&x86.CR4OSXSAVE == 0 {
		return e.ud()
	}
	xcr0, err := e.env.XCR0()
	if err != nil {
		return e.fail(err)
	}
	const need = compSSE | compAVX
	switch {
	case xcr0&need != need:
		return e.ud()
	case e.s.CR0&x86.CR0TS != 0:
		return e.raise(x86.VectorNM)
	}
	return done
}

func (e *Engine) vectorSource(p []byte, m vectorMove) verdict {
	switch {
	case m.xor:
		return done // p is zero
	case !e.isMem():
		e.vector(e.in.rm, p)
		return done
	}
	at, v := e.vectorAddress(len(p), m, paging.Read)
	if v != done {
		return v
	}
	return e.read(at, p)
}

func (e *Engine) vectorAddress(size int, m vectorMove, a paging.Access) (uint64, verdict) {
	at, v := e.operand(uint64(size), a)
	if v == done && m.aligned && at&uint64(size-1) != 0 {
		return 0, e.gp()
	}
	return at, v
}

// Components beyond XMM: the upper halves of YMM0-15 and of ZMM0-15.
const (
	compAVXIndex = 2
	compZMMIndex = 6
)

// vector copies register n, 16 or 32 bytes of it.
func (e *Engine) vector(n uint8, p []byte) {
	copy(p, e.area[offXMM+16*int(n):][:16])
	if high, ok := e.data(compAVXIndex); ok && len(p) > 16 {
		copy(p[16:], high[16*int(n):][:16])
	}
}

// putVector sets register n. A VEX-coded instruction clears what is above its
// size.
func (e *Engine) putVector(n uint8, val []byte, size int) verdict {
	copy(e.area[offXMM+16*int(n):][:16], val)
	comps := uint64(compSSE)
	if high, ok := e.data(compAVXIndex); ok && e.in.vex {
		clear(val[size:])
		copy(high[16*int(n):][:16], val[16:])
		comps |= compAVX
		if zmm, ok := e.data(compZMMIndex); ok {
			clear(zmm[32*int(n):][:32])
		}
	}
	return e.putState(comps)
}

// vzero is VZEROUPPER, and VZEROALL with VEX.L.
func (e *Engine) vzero() verdict {
	e.op(OpVZEROUPPER)
	if v := e.vectorsUsable(); v != done {
		return v
	}
	if err := e.env.XSave(e.area); err != nil {
		return e.fail(err)
	}
	registers := 16
	if e.mode != mode64 {
		registers = 8
	}
	if high, ok := e.data(compAVXIndex); ok {
		clear(high[:16*registers])
	}
	if zmm, ok := e.data(compZMMIndex); ok {
		clear(zmm[:32*registers])
	}
	if e.in.long {
		clear(e.area[offXMM : offXMM+16*registers])
		return e.putState(compSSE | compAVX)
	}
	return e.putState(compAVX)
}
