package completion

import (
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// execute does what the decoded instruction says.
func (e *Engine) execute() verdict {
	in := &e.in
	if in.lock && (in.vex || in.table != map0F || in.op != 0xc7) {
		return e.ud() // LOCK, or a prefix that VEX excludes
	}
	if in.vex {
		return e.vex()
	}
	switch in.table {
	case mapOne:
		return e.oneByte()
	case map0F:
		return e.twoByte()
	case map0F38:
		return e.threeByte()
	}
	return unknown
}

func (e *Engine) oneByte() verdict {
	switch e.in.op {
	case 0x9b:
		return e.fwait()
	case 0xcc:
		return e.int3()
	case 0xcd:
		return e.softwareInterrupt()
	case 0xd9, 0xdb, 0xdd, 0xdf:
		return e.x87()
	}
	return unknown
}

// int3 is a trap: the return address is behind it.
func (e *Engine) int3() verdict {
	e.op(OpINT3)
	e.r.RIP = e.mode.ip(e.r.RIP + uint64(e.in.pos))
	return e.raise(x86.VectorBP)
}

// softwareInterrupt is INT n in protected mode; emulators have it in real mode.
// The gate's privilege is checked here, as an injected event is not asked for
// its own.
func (e *Engine) softwareInterrupt() verdict {
	e.op(OpINT)
	if e.s.CR0&x86.CR0PE == 0 || e.r.RFLAGS&x86.FlagVM != 0 {
		return unknown
	}
	vector := e.in.imm
	size := uint64(8)
	if e.s.EFER&x86.EFERLMA != 0 {
		size = 16
	}
	off := uint64(vector) * size
	const idt = 2 // error code: an entry of the IDT
	refused := uint32(vector)<<3 | idt
	if off+size-1 > uint64(e.s.IDT.Limit) {
		return e.raiseCode(x86.VectorGP, refused)
	}
	var gate [8]byte
	if v := e.copyMem(e.wrap(e.s.IDT.Base+off), gate[:], paging.Implicit); v != done {
		return v
	}
	switch {
	case gate[5]&0x1f < 5 || gate[5]>>5&3 < e.s.CPL():
		return e.raiseCode(x86.VectorGP, refused)
	case gate[5]&0x80 == 0:
		return e.raiseCode(x86.VectorNP, refused)
	}
	e.r.RIP = e.mode.ip(e.r.RIP + uint64(e.in.pos))
	e.res.Interrupt, e.res.Exception = true, Exception{Vector: vector}
	return moved
}

func (e *Engine) twoByte() verdict {
	in := &e.in
	switch in.op {
	case 0x00:
		return e.verify()
	case 0x01:
		return e.group7()
	case 0x02, 0x03:
		return e.loadRightsOrLimit()
	case 0x08, 0x09:
		e.op(OpWBINVD)
		return e.privileged(done)
	case 0x0b, 0xb9, 0xff:
		e.op(OpUD)
		return e.ud()
	case 0x0d, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f:
		// Prefetches and hints: among them ENDBR64, which without shadow
		// stacks and indirect-branch tracking is one.
		e.op(OpNOP)
		return done
	case 0xae:
		return e.group15()
	case 0xb8:
		if in.rep == 0xf3 {
			return e.popcnt()
		}
	case 0xbc, 0xbd:
		if in.rep == 0xf3 {
			return e.countZeros()
		}
	case 0xc7:
		return e.group9()
	}
	return e.sseMove()
}

// privileged is v at CPL 0 and #GP elsewhere.
func (e *Engine) privileged(v verdict) verdict {
	if e.s.CPL() != 0 {
		return e.gp()
	}
	return v
}

// group7 is 0F 01 with a register form; the memory forms are LGDT and its
// like, which every emulator has.
func (e *Engine) group7() verdict {
	in := &e.in
	switch in.modRM {
	case 0xc8, 0xfa:
		e.op(OpMONITOR)
		return e.monitor()
	case 0xc9, 0xfb:
		// Whoever waits for a store may be woken at any time, and looks
		// again: waiting no time at all is allowed (SDM vol. 2, MWAIT).
		e.op(OpMWAIT)
		return e.privileged(done)
	case 0xca, 0xcb:
		return e.setAC(in.modRM == 0xcb)
	case 0xd0:
		return e.xgetbv()
	case 0xd1:
		return e.xsetbv()
	case 0xe8:
		// Coming here and going back serialises more than enough.
		e.op(OpSERIALIZE)
		return done
	case 0xf8:
		return e.swapgs()
	case 0xf9:
		return e.rdtscp()
	case 0xfc:
		return e.clzero()
	}
	return unknown
}

// setAC is CLAC and STAC. CLAC is also where a SYSCALL that came as a page
// fault is recognised.
func (e *Engine) setAC(on bool) verdict {
	e.op(OpCLAC)
	if on {
		e.op(OpSTAC)
	}
	if e.s.CPL() != 0 {
		return e.ud()
	}
	if on {
		e.r.RFLAGS |= x86.FlagAC
		return done
	}
	if v := e.syscallEntry(); v != unknown {
		return v
	}
	e.r.RFLAGS &^= x86.FlagAC
	return done
}

// group15 is 0F AE.
func (e *Engine) group15() verdict {
	in := &e.in
	if !e.isMem() {
		return e.group15Reg()
	}
	op := in.reg & 7
	switch {
	case in.rep != 0:
		return unknown
	case op == 2 && !in.opSize:
		return e.ldmxcsr()
	case op == 3 && !in.opSize:
		return e.stmxcsr()
	case op == 4 && !in.opSize:
		return e.xsave(OpXSAVE)
	case op == 5 && !in.opSize:
		return e.xrstor(OpXRSTOR)
	case op == 6 && !in.opSize:
		return e.xsave(OpXSAVEOPT)
	case op == 6, op == 7: // CLWB; CLFLUSH, CLFLUSHOPT
		e.op(OpCLFlush)
		return e.touch()
	}
	return unknown
}

// touch is an access that only has to be allowed: the cache is the host's.
func (e *Engine) touch() verdict {
	at, v := e.operand(1, 0)
	if v != done {
		return v
	}
	_, v = e.translate(at, 0)
	return v
}

func (e *Engine) group15Reg() verdict {
	in := &e.in
	op := in.reg & 7
	switch {
	case in.rep == 0xf3 && op < 4:
		return e.segmentBase(op)
	case in.rep == 0 && !in.opSize && op >= 5: // LFENCE, MFENCE, SFENCE
		e.op(OpNOP)
		return done
	}
	return unknown
}

// group9 is 0F C7.
func (e *Engine) group9() verdict {
	in := &e.in
	op := in.reg & 7
	if in.lock && (op != 1 || !e.isMem()) {
		return e.ud()
	}
	switch {
	case e.isMem() && op == 1 && in.rexW:
		return e.cmpxchg16b()
	case e.isMem() && op == 3 && in.rep == 0:
		return e.xrstor(OpXRSTORS)
	case e.isMem() && op == 4 && in.rep == 0:
		return e.xsave(OpXSAVEC)
	case e.isMem() && op == 5 && in.rep == 0:
		return e.xsave(OpXSAVES)
	case !e.isMem() && op == 7 && in.rep == 0xf3:
		return e.rdpid()
	case !e.isMem() && op >= 6 && in.rep == 0:
		return e.rdrand(op == 7)
	}
	return unknown
}

// threeByte is 0F 38.
func (e *Engine) threeByte() verdict {
	in := &e.in
	switch in.op {
	case 0x82:
		if in.opSize && e.isMem() {
			return e.invpcid()
		}
	case 0xf0, 0xf1:
		if in.rep == 0xf2 {
			return e.crc32()
		}
		if in.rep == 0 && e.isMem() {
			return e.movbe()
		}
	case 0xf6:
		return e.addCarry()
	case 0xf8:
		if in.opSize && in.rep == 0 && e.isMem() {
			return e.movdir64b()
		}
	case 0xf9:
		if !in.opSize && in.rep == 0 && e.isMem() {
			e.op(OpMOVDIRI)
			size := in.size(e.mode)
			return e.store(e.reg(in.reg, size), size)
		}
	}
	return unknown
}
