package completion

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// descriptor is an entry of the GDT or LDT (SDM vol. 3, 3.4.5):
//
//	63…56    55 54 53 52 51…48      47 46…45 44 43…40 39…32      31…16   15…0
//	base     G  DB L  AVL limit     P  DPL   S  type  base       base    limit
type descriptor uint64

func (d descriptor) kind() uint8   { return uint8(d>>40) & 15 }
func (d descriptor) system() bool  { return d>>44&1 == 0 }
func (d descriptor) dpl() uint8    { return uint8(d>>45) & 3 }
func (d descriptor) code() bool    { return !d.system() && d.kind()&8 != 0 }
func (d descriptor) conform() bool { return d.code() && d.kind()&4 != 0 }

// readable and writable are what VERR and VERW ask (SDM vol. 2, VERR).
func (d descriptor) readable() bool {
	return !d.system() && (d.kind()&8 == 0 || d.kind()&2 != 0)
}

func (d descriptor) writable() bool { return !d.system() && d.kind()&8 == 0 && d.kind()&2 != 0 }

// limit is the limit in bytes.
func (d descriptor) limit() uint32 {
	l := uint32(d)&0xffff | uint32(d>>32)&0xf_0000
	if d>>55&1 != 0 {
		l = l<<12 | 0xfff
	}
	return l
}

// Types of system descriptors of which LAR and LSL speak, as bit sets, outside
// and inside IA-32e mode (SDM vol. 2, tables 3-57 and 3-63).
const (
	larTypes     = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<9 | 1<<11 | 1<<12
	larTypesLong = 1<<2 | 1<<9 | 1<<11 | 1<<12
	lslTypes     = 1<<1 | 1<<2 | 1<<3 | 1<<9 | 1<<11
	lslTypesLong = 1<<2 | 1<<9 | 1<<11
)

// protectedOnly refuses instructions that real and virtual-8086 mode lack.
func (e *Engine) protectedOnly() bool {
	return e.s.CR0&x86.CR0PE != 0 && e.r.RFLAGS&x86.FlagVM == 0
}

// verify is VERR and VERW: 0F 00 /4 and /5.
func (e *Engine) verify() verdict {
	in := &e.in
	switch in.reg & 7 {
	case 4:
		e.op(OpVERR)
	case 5:
		e.op(OpVERW)
	default:
		return unknown
	}
	if !e.protectedOnly() {
		return e.ud()
	}
	selector, v := e.source(2)
	if v != done {
		return v
	}
	d, found, v := e.descriptor(uint16(selector))
	if v != done {
		return v
	}
	ok := found && e.visible(d, uint16(selector))
	if e.res.Op == OpVERR {
		ok = ok && d.readable()
	} else {
		ok = ok && d.writable()
	}
	e.setFlags(x86.FlagZF, flagIf(x86.FlagZF, ok))
	return done
}

// loadRightsOrLimit is LAR and LSL: 0F 02 and 0F 03.
func (e *Engine) loadRightsOrLimit() verdict {
	in := &e.in
	lar := in.op == 0x02
	e.op(OpLSL)
	if lar {
		e.op(OpLAR)
	}
	if !e.protectedOnly() {
		return e.ud()
	}
	selector, v := e.source(2)
	if v != done {
		return v
	}
	d, found, v := e.descriptor(uint16(selector))
	if v != done {
		return v
	}
	ok := found && e.visible(d, uint16(selector)) && (!d.system() || e.systemType(d, lar))
	if ok {
		size := in.size(e.mode)
		value := uint64(d>>32) & 0x00ff_ff00
		if !lar {
			value = uint64(d.limit())
		}
		e.setReg(in.reg, size, value&sizeMask(size))
	}
	e.setFlags(x86.FlagZF, flagIf(x86.FlagZF, ok))
	return done
}

func (e *Engine) systemType(d descriptor, lar bool) bool {
	types := uint32(lslTypes)
	long := e.s.EFER&x86.EFERLMA != 0
	switch {
	case lar && long:
		types = larTypesLong
	case lar:
		types = larTypes
	case long:
		types = lslTypesLong
	}
	return types>>d.kind()&1 != 0
}

// visible checks privilege: conforming code is for everybody, anything else
// for CPL and RPL up to its DPL.
func (e *Engine) visible(d descriptor, selector uint16) bool {
	return d.conform() || d.dpl() >= e.s.CPL() && d.dpl() >= uint8(selector&3)
}

// descriptor reads the descriptor that a selector names. found is false for
// the null selector and beyond the table's limit.
func (e *Engine) descriptor(selector uint16) (d descriptor, found bool, v verdict) {
	const ti = 4
	base, limit := e.s.GDT.Base, uint32(e.s.GDT.Limit)
	if selector&ti != 0 {
		base, limit = e.s.LDT.Base, e.s.LDT.Limit
		if e.s.LDT.Unusable != 0 || e.s.LDT.Present == 0 {
			return 0, false, done
		}
	}
	off := uint32(selector &^ 7)
	if selector&^3 == 0 || off+7 > limit {
		return 0, false, done
	}
	at := e.wrap(base + uint64(off))
	var b [8]byte
	if v := e.copyMem(at, b[:], paging.Implicit); v != done {
		return 0, false, v
	}
	return descriptor(binary.LittleEndian.Uint64(b[:])), true, done
}
