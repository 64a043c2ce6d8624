package completion

import (
	"encoding/binary"
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// isMem says whether the instruction's r/m operand is in memory.
func (e *Engine) isMem() bool { return e.in.mod != 3 }

// reg returns a general register, cut to size bytes. Byte registers are those
// of an instruction with or without REX (SDM vol. 2, table 3-1).
func (e *Engine) reg(n uint8, size int) uint64 {
	if size == 1 && !e.in.hasREX && n >= 4 && n < 8 {
		return *e.r.GPR(n - 4) >> 8 & 0xff
	}
	return *e.r.GPR(n) & sizeMask(size)
}

// setReg stores to a general register: four bytes clear the upper half, two
// leave what is above.
func (e *Engine) setReg(n uint8, size int, v uint64) {
	p := e.r.GPR(n)
	switch size {
	case 2:
		*p = *p&^0xffff | v&0xffff
	case 4:
		*p = v & 0xffff_ffff
	default:
		*p = v
	}
}

func sizeMask(size int) uint64 {
	if size >= 8 {
		return ^uint64(0)
	}
	return 1<<(8*size) - 1
}

// setFlags replaces the flags in mask.
func (e *Engine) setFlags(mask, v uint64) { e.r.RFLAGS = e.r.RFLAGS&^mask | v&mask }

// offset is the effective address of the memory operand, and its segment.
func (e *Engine) offset() (off uint64, seg uint8) {
	in := &e.in
	off = uint64(in.disp)
	if in.base != noReg {
		off += *e.r.GPR(in.base)
	}
	if in.index != noReg {
		off += *e.r.GPR(in.index) << in.scale
	}
	if in.relative {
		off += e.r.RIP + uint64(in.pos)
	}
	switch in.addressBits(e.mode) {
	case 16:
		off = uint64(uint16(off))
	case 32:
		off = uint64(uint32(off))
	}
	seg = in.seg
	if seg == segNone {
		seg = segDS
		if in.base == 4 || in.base == 5 {
			seg = segSS
		}
	}
	return off, seg
}

// operand is the linear address of the memory operand, of which n bytes are
// accessed.
func (e *Engine) operand(n uint64, a paging.Access) (uint64, verdict) {
	off, seg := e.offset()
	return e.linear(seg, off, n, a)
}

func (e *Engine) segment(n uint8) *x86.Segment {
	switch n {
	case segES:
		return &e.s.ES
	case segCS:
		return &e.s.CS
	case segSS:
		return &e.s.SS
	case segFS:
		return &e.s.FS
	case segGS:
		return &e.s.GS
	}
	return &e.s.DS
}

// linear applies segmentation and its checks to an address (SDM vol. 3, 5.3
// and 3.3.7.1).
func (e *Engine) linear(seg uint8, off, n uint64, a paging.Access) (uint64, verdict) {
	s := e.segment(seg)
	refuse := func() (uint64, verdict) {
		if seg == segSS {
			return 0, e.raiseCode(x86.VectorSS, 0)
		}
		return 0, e.gp()
	}
	if e.mode == mode64 {
		if seg == segFS || seg == segGS {
			off += s.Base
		}
		if !e.cpu.Canonical(off) || !e.cpu.Canonical(off+n-1) {
			return refuse()
		}
		return off, done
	}
	if !segmentAllows(s, off, n, a&paging.Write != 0, e.s.CR0&x86.CR0PE != 0) {
		return refuse()
	}
	return uint64(uint32(s.Base + off)), done
}

func segmentAllows(s *x86.Segment, off, n uint64, write, protected bool) bool {
	const code, writable, readable, expandDown = 8, 2, 2, 4
	last := off + n - 1
	if protected {
		switch {
		case s.Unusable != 0 || s.Present == 0:
			return false
		case s.Type&code != 0 && (write || s.Type&readable == 0):
			return false
		case s.Type&code == 0 && write && s.Type&writable == 0:
			return false
		}
		if s.Type&(code|expandDown) == expandDown {
			top := uint64(0xffff)
			if s.DB != 0 {
				top = 0xffff_ffff
			}
			return off > uint64(s.Limit) && last <= top
		}
	}
	return last <= uint64(s.Limit)
}

// wrap is a linear address as wide as the mode has it.
func (e *Engine) wrap(linear uint64) uint64 {
	if e.mode == mode64 {
		return linear
	}
	return uint64(uint32(linear))
}

// translate turns a linear address into a physical one, or raises the page
// fault.
func (e *Engine) translate(linear uint64, a paging.Access) (memory.Addr, verdict) {
	gpa, code, ok := e.cpu.Translate(e.mem, linear, a)
	if ok {
		return gpa, done
	}
	if !e.cpu.Canonical(linear) {
		return 0, e.gp()
	}
	e.s.CR2, e.res.Sregs = linear, true
	return 0, e.raiseCode(x86.VectorPF, code)
}

// copyMem moves bytes between p and guest memory at a linear address.
func (e *Engine) copyMem(linear uint64, p []byte, a paging.Access) verdict {
	write := a&paging.Write != 0
	// A store that two pages share is not made by half.
	if last := linear + uint64(len(p)) - 1; write && (linear^last)&^(memory.PageSize-1) != 0 {
		if _, v := e.translate(e.wrap(last&^(memory.PageSize-1)), a); v != done {
			return v
		}
	}
	for len(p) > 0 {
		linear = e.wrap(linear)
		gpa, v := e.translate(linear, a)
		if v != done {
			return v
		}
		n := min(uint64(len(p)), memory.PageSize-linear%memory.PageSize)
		var b []byte
		var err error
		if write {
			if b, err = e.mem.WritableBytes(gpa, n); err == nil {
				copy(b, p[:n])
			}
		} else {
			if b, err = e.mem.Bytes(gpa, n); err == nil {
				copy(p, b)
			}
		}
		if err != nil {
			return e.fail(fmt.Errorf("its operand at %#x is not in memory: %w", linear, err))
		}
		p, linear = p[n:], linear+n
	}
	return done
}

func (e *Engine) read(linear uint64, p []byte) verdict { return e.copyMem(linear, p, paging.Read) }

func (e *Engine) write(linear uint64, p []byte) verdict { return e.copyMem(linear, p, paging.Write) }

// source reads the r/m operand.
func (e *Engine) source(size int) (uint64, verdict) {
	if !e.isMem() {
		return e.reg(e.in.rm, size), done
	}
	at, v := e.operand(uint64(size), paging.Read)
	if v != done {
		return 0, v
	}
	var b [8]byte
	if v := e.read(at, b[:size]); v != done {
		return 0, v
	}
	return binary.LittleEndian.Uint64(b[:]), done
}

// store writes the r/m operand, which is in memory.
func (e *Engine) store(v uint64, size int) verdict {
	at, verd := e.operand(uint64(size), paging.Write)
	if verd != done {
		return verd
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	return e.write(at, b[:size])
}
