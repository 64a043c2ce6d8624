package completion

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Offsets in the legacy region of an XSAVE area (SDM vol. 1, table 13-1).
const (
	offFCW       = 0
	offFSW       = 2
	offMXCSR     = 24
	offMXCSRMask = 28
	offST        = 32
	offXMM       = 160
	offLegacyEnd = 416
)

// Bits of the x87 status word.
const (
	fswExceptions = 0x7f
	fswES         = 1 << 7 // an unmasked exception waits
	fswBusy       = 1 << 15
)

// fwait raises what waits of the x87's exceptions.
func (e *Engine) fwait() verdict {
	e.op(OpFWAIT)
	if e.s.CR0&(x86.CR0MP|x86.CR0TS) == x86.CR0MP|x86.CR0TS {
		return e.raise(x86.VectorNM)
	}
	if err := e.env.XSave(e.area); err != nil {
		return e.fail(err)
	}
	if e.half(offFSW)&fswES != 0 && e.s.CR0&x86.CR0NE != 0 {
		return e.raise(x86.VectorMF)
	}
	return done
}

func (e *Engine) half(off int) uint16 { return binary.LittleEndian.Uint16(e.area[off:]) }

func (e *Engine) setHalf(off int, v uint16) { binary.LittleEndian.PutUint16(e.area[off:], v) }

// putState writes the area back with the given components in use.
func (e *Engine) putState(components uint64) verdict {
	e.setInUse(e.inUse() | components)
	if err := e.env.SetXSave(e.area); err != nil {
		return e.fail(err)
	}
	return done
}

// x87 is the handful of control instructions that kernels use: FNCLEX, FNSTSW,
// FNSTCW and FLDCW.
func (e *Engine) x87() verdict {
	in := &e.in
	switch {
	case in.op == 0xdb && in.modRM == 0xe2:
		e.op(OpFNCLEX)
	case in.op == 0xdf && in.modRM == 0xe0, in.op == 0xdd && e.isMem() && in.reg&7 == 7:
		e.op(OpFNSTSW)
	case in.op == 0xd9 && e.isMem() && in.reg&7 == 7:
		e.op(OpFNSTCW)
	case in.op == 0xd9 && e.isMem() && in.reg&7 == 5:
		e.op(OpFLDCW)
	default:
		return unknown
	}
	if e.s.CR0&(x86.CR0EM|x86.CR0TS) != 0 {
		return e.raise(x86.VectorNM)
	}
	if err := e.env.XSave(e.area); err != nil {
		return e.fail(err)
	}
	return e.x87Control()
}

func (e *Engine) x87Control() verdict {
	switch e.res.Op {
	case OpFNCLEX:
		e.setHalf(offFSW, e.half(offFSW)&^(fswExceptions|fswES|fswBusy))
		return e.putState(compX87)
	case OpFNSTSW:
		if e.isMem() {
			return e.store(uint64(e.half(offFSW)), 2)
		}
		e.setReg(0, 2, uint64(e.half(offFSW)))
		return done
	case OpFNSTCW:
		return e.store(uint64(e.half(offFCW)), 2)
	}
	if e.half(offFSW)&fswES != 0 && e.s.CR0&x86.CR0NE != 0 {
		return e.raise(x86.VectorMF)
	}
	x, v := e.source(2)
	if v != done {
		return v
	}
	e.loadControlWord(uint16(x))
	return e.putState(compX87)
}

// loadControlWord sets FCW; an exception that this unmasks and that has
// happened waits from now on (SDM vol. 2, FLDCW).
func (e *Engine) loadControlWord(cw uint16) {
	e.setHalf(offFCW, cw&0x1f3f|0x40)
	sw := e.half(offFSW) &^ (fswES | fswBusy)
	if sw&^cw&0x3f != 0 {
		sw |= fswES | fswBusy
	}
	e.setHalf(offFSW, sw)
}

// sseUsable checks what every SSE instruction needs; it returns done or the
// exception.
func (e *Engine) sseUsable() verdict {
	switch {
	case e.s.CR0&x86.CR0EM != 0 || e.s.CR4&x86.CR4OSFXSR == 0:
		return e.ud()
	case e.s.CR0&x86.CR0TS != 0:
		return e.raise(x86.VectorNM)
	}
	return done
}

func (e *Engine) ldmxcsr() verdict {
	e.op(OpLDMXCSR)
	if v := e.sseUsable(); v != done {
		return v
	}
	x, v := e.source(4)
	if v != done {
		return v
	}
	if err := e.env.XSave(e.area); err != nil {
		return e.fail(err)
	}
	if uint32(x)&^e.mxcsrMask() != 0 {
		return e.gp()
	}
	binary.LittleEndian.PutUint32(e.area[offMXCSR:], uint32(x))
	return e.putState(compSSE)
}

// mxcsrMask is the bits of MXCSR that exist (SDM vol. 1, 11.6.6). The host does
// not always say; every 64-bit processor has denormals-are-zeros.
func (e *Engine) mxcsrMask() uint32 {
	if m := binary.LittleEndian.Uint32(e.area[offMXCSRMask:]); m != 0 {
		return m
	}
	return 0xffff
}

func (e *Engine) stmxcsr() verdict {
	e.op(OpSTMXCSR)
	if v := e.sseUsable(); v != done {
		return v
	}
	if err := e.env.XSave(e.area); err != nil {
		return e.fail(err)
	}
	return e.store(uint64(binary.LittleEndian.Uint32(e.area[offMXCSR:])), 4)
}
