package completion

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// monitor only has to check its address: MWAIT does not wait.
func (e *Engine) monitor() verdict {
	if e.s.CPL() != 0 {
		return e.ud()
	}
	if uint32(e.r.RCX) != 0 && e.in.modRM == 0xc8 {
		return e.gp()
	}
	seg := e.in.seg
	if seg == segNone {
		seg = segDS
	}
	at, v := e.linear(seg, e.reg(0, int(e.in.addressBits(e.mode)/8)), 1, paging.Read)
	if v != done {
		return v
	}
	_, v = e.translate(at, paging.Read)
	return v
}

// xgetbv reads XCR0, or with ECX 1 the components of XCR0 that are in use (SDM
// vol. 1, 13.2).
func (e *Engine) xgetbv() verdict {
	e.op(OpXGETBV)
	if e.s.CR4&x86.CR4OSXSAVE == 0 {
		return e.ud()
	}
	which := uint32(e.r.RCX)
	if which > 1 {
		return e.gp()
	}
	x, err := e.env.XCR0()
	if err != nil {
		return e.fail(err)
	}
	if which == 1 {
		if err := e.env.XSave(e.area); err != nil {
			return e.fail(err)
		}
		x &= e.inUse()
	}
	e.r.RAX, e.r.RDX = x&0xffff_ffff, x>>32
	return done
}

func (e *Engine) xsetbv() verdict {
	e.op(OpXSETBV)
	if e.s.CR4&x86.CR4OSXSAVE == 0 {
		return e.ud()
	}
	if e.s.CPL() != 0 || uint32(e.r.RCX) != 0 {
		return e.gp()
	}
	x := e.r.RDX<<32 | e.r.RAX&0xffff_ffff
	const x87, sse, avx = 1, 2, 4
	if x&x87 == 0 || x&avx != 0 && x&sse == 0 || e.env.SetXCR0(x) != nil {
		return e.gp() // what KVM refuses, the processor would
	}
	return done
}

// swapgs exchanges the base of GS with IA32_KERNEL_GS_BASE.
func (e *Engine) swapgs() verdict {
	e.op(OpSWAPGS)
	if e.mode != mode64 {
		return e.ud()
	}
	if e.s.CPL() != 0 {
		return e.gp()
	}
	m, err := e.env.MSRs(x86.MSRKernelGSBase)
	if err != nil {
		return e.fail(err)
	}
	kernel := m[0].Data
	m[0].Data = e.s.GS.Base
	if err := e.env.SetMSRs(m); err != nil {
		return e.fail(err)
	}
	e.s.GS.Base, e.res.Sregs = kernel, true
	return done
}

func (e *Engine) rdtscp() verdict {
	e.op(OpRDTSCP)
	if e.s.CR4&x86.CR4TSD != 0 && e.s.CPL() != 0 {
		return e.gp()
	}
	m, err := e.env.MSRs(x86.MSRTSC, x86.MSRTSCAux)
	if err != nil {
		return e.fail(err)
	}
	e.r.RAX, e.r.RDX = m[0].Data&0xffff_ffff, m[0].Data>>32
	e.r.RCX = m[1].Data & 0xffff_ffff
	return done
}

func (e *Engine) rdpid() verdict {
	e.op(OpRDPID)
	m, err := e.env.MSRs(x86.MSRTSCAux)
	if err != nil {
		return e.fail(err)
	}
	*e.r.GPR(e.in.rm) = m[0].Data & 0xffff_ffff
	return done
}

// segmentBase is RDFSBASE, RDGSBASE, WRFSBASE and WRGSBASE.
func (e *Engine) segmentBase(op uint8) verdict {
	e.op([4]Op{OpRDFSBASE, OpRDGSBASE, OpWRFSBASE, OpWRGSBASE}[op])
	if e.mode != mode64 || e.s.CR4&x86.CR4FSGSBASE == 0 {
		return e.ud()
	}
	base := &e.s.FS.Base
	if op&1 != 0 {
		base = &e.s.GS.Base
	}
	size := e.in.size(e.mode)
	if size == 2 {
		size = 4 // 66 has no effect
	}
	if op < 2 {
		e.setReg(e.in.rm, size, *base)
		return done
	}
	v := e.reg(e.in.rm, size)
	if !e.cpu.Canonical(v) {
		return e.gp()
	}
	*base, e.res.Sregs = v, true
	return done
}

// invpcid checks its descriptor and asks for every translation to be
// forgotten, which is more than each of its types needs (SDM vol. 2, INVPCID).
func (e *Engine) invpcid() verdict {
	e.op(OpINVPCID)
	if e.s.CPL() != 0 {
		return e.gp()
	}
	size := 4
	if e.mode == mode64 {
		size = 8
	}
	at, v := e.operand(16, paging.Read)
	if v != done {
		return v
	}
	var b [16]byte
	if v := e.read(at, b[:]); v != done {
		return v
	}
	pcid, linear := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	const single, context, allGlobal, all = 0, 1, 2, 3
	kind := e.reg(e.in.reg, size)
	bad := kind > all || pcid>>12 != 0 && kind <= context ||
		pcid != 0 && kind <= context && e.s.CR4&x86.CR4PCIDE == 0 ||
		kind == single && !e.cpu.Canonical(linear)
	if bad {
		return e.gp()
	}
	e.res.FlushTLB = true
	return done
}
