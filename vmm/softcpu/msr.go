package softcpu

import "github.com/vitrine-vmm/vitrine/vmm/x86"

// Model-specific registers (SDM vol. 4). Those that only configure caches or
// report errors are stored and have no effect.

// More MSRs than package x86 names.
const (
	msrPlatformID  = 0x17
	msrTSCAdjust   = 0x3b
	msrBIOSSignID  = 0x8b
	msrMTRRCap     = 0xfe
	msrMTRRBase    = 0x200 // and the mask of each, up to 0x20f
	msrMTRREnd     = 0x20f
	msrMTRRFix64   = 0x250
	msrMTRRFix16   = 0x258
	msrMTRRFix4    = 0x268 // up to 0x26f
	msrMTRRDef     = 0x2ff
	msrX2APIC      = 0x800
	msrX2APICEnd   = 0x8ff
	mtrrCap        = 0x508 // 8 variable ranges, fixed ranges, write-combining
	patReset       = 0x0007040600070406
	apicBaseReset  = 0xfee00000
	apicBaseBSP    = 1 << 8
	apicBaseEnable = 1 << 11
	apicBaseX2     = 1 << 10
	miscFastString = 1 << 0
)

type msrs struct {
	star, lstar, cstar, fmask uint64
	kernelGS                  uint64
	sysenterCS                uint64
	sysenterESP, sysenterEIP  uint64
	tscAux, tscOffset         uint64 // TSC = the clock's + tscOffset
	tscAdjust                 uint64
	pat, miscEnable           uint64
	apicBase                  uint64
	mtrrDef                   uint64
	mtrrVar                   [16]uint64
	mtrrFix                   [11]uint64
}

func (m *msrs) reset(bsp bool) {
	*m = msrs{pat: patReset, miscEnable: miscFastString, apicBase: apicBaseReset | apicBaseEnable}
	if bsp {
		m.apicBase |= apicBaseBSP
	}
}

// stored is the place of an MSR that is no more than a word; mask is the bits
// that may be set.
func (c *cpu) stored(index uint32) (p *uint64, mask uint64) {
	m, all := &c.msr, ^uint64(0)
	switch index {
	case x86.MSRSTAR:
		return &m.star, all
	case x86.MSRSyscallMask:
		return &m.fmask, 0xffffffff
	case x86.MSRSysenterCS:
		return &m.sysenterCS, 0xffffffff
	case x86.MSRTSCAux:
		return &m.tscAux, 0xffffffff
	case x86.MSRMiscEnable:
		return &m.miscEnable, all
	case msrMTRRDef:
		return &m.mtrrDef, 0xcff
	case msrMTRRFix64:
		return &m.mtrrFix[0], all
	case msrMTRRFix16, msrMTRRFix16 + 1:
		return &m.mtrrFix[1+index-msrMTRRFix16], all
	}
	switch {
	case index >= msrMTRRBase && index <= msrMTRREnd:
		return &m.mtrrVar[index-msrMTRRBase], physMask
	case index >= msrMTRRFix4 && index < msrMTRRFix4+8:
		return &m.mtrrFix[3+index-msrMTRRFix4], all
	}
	return nil, 0
}

// linearMSR is the place of an MSR that holds a linear address.
func (c *cpu) linearMSR(index uint32) *uint64 {
	switch index {
	case x86.MSRLSTAR:
		return &c.msr.lstar
	case x86.MSRCSTAR:
		return &c.msr.cstar
	case x86.MSRSysenterESP:
		return &c.msr.sysenterESP
	case x86.MSRSysenterEIP:
		return &c.msr.sysenterEIP
	case x86.MSRKernelGSBase:
		return &c.msr.kernelGS
	case x86.MSRFSBase:
		return &c.seg[segFS].base
	case x86.MSRGSBase:
		return &c.seg[segGS].base
	}
	return nil
}

// readMSR returns the value of an MSR; ok is false if there is none.
func (c *cpu) readMSR(index uint32) (v uint64, ok bool) {
	if p, _ := c.stored(index); p != nil {
		return *p, true
	}
	if p := c.linearMSR(index); p != nil {
		return *p, true
	}
	switch index {
	case x86.MSRTSC:
		return c.tsc(), true
	case msrTSCAdjust:
		return c.msr.tscAdjust, true
	case x86.MSRAPICBase:
		return c.msr.apicBase, true
	case x86.MSRPAT:
		return c.msr.pat, true
	case x86.MSREFER:
		return c.efer, true
	case msrMTRRCap:
		return mtrrCap, true
	case msrPlatformID, msrBIOSSignID:
		return 0, true
	}
	return c.vm.apicReadMSR(c, index)
}

// writeMSR sets an MSR; ok is false if there is none or v is not allowed.
func (c *cpu) writeMSR(index uint32, v uint64) (ok bool) {
	if p, mask := c.stored(index); p != nil {
		if v&^mask != 0 {
			return false
		}
		*p = v
		return true
	}
	if p := c.linearMSR(index); p != nil {
		if uint64(int64(v<<16)>>16) != v {
			return false
		}
		*p = v
		c.regs[rSeg+segFS], c.regs[rSeg+segGS] = c.seg[segFS].base, c.seg[segGS].base
		return true
	}
	switch index {
	case x86.MSRTSC:
		d := v - c.tsc()
		c.msr.tscOffset += d
		c.msr.tscAdjust += d
	case msrTSCAdjust:
		c.msr.tscOffset += v - c.msr.tscAdjust
		c.msr.tscAdjust = v
	case x86.MSRAPICBase:
		return c.setAPICBase(v)
	case x86.MSRPAT:
		return c.setPAT(v)
	case x86.MSREFER:
		return c.setEFER(v)
	case msrBIOSSignID:
	default:
		return c.vm.apicWriteMSR(c, index, v)
	}
	return true
}

func (c *cpu) setPAT(v uint64) bool {
	for i := range 8 {
		if t := v >> (8 * i) & 0xff; t > 7 || t == 2 || t == 3 {
			return false
		}
	}
	c.msr.pat = v
	return true
}

func (c *cpu) setEFER(v uint64) bool {
	const settable = x86.EFERSCE | x86.EFERLME | x86.EFERNXE
	if v&^(settable|x86.EFERLMA) != 0 {
		return false
	}
	if (v^c.efer)&x86.EFERLME != 0 && c.cr0&x86.CR0PG != 0 {
		return false
	}
	if (v^c.efer)&x86.EFERNXE != 0 {
		c.tlb.flushAll()
	}
	c.efer = v&settable | c.efer&x86.EFERLMA
	return true
}

// setAPICBase keeps the local APIC where it is; xAPIC, x2APIC and off are its
// modes (SDM vol. 3, 11.12.1).
func (c *cpu) setAPICBase(v uint64) bool {
	if v&^(physMask&^pageMask|apicBaseBSP|apicBaseEnable|apicBaseX2) != 0 || v&(apicBaseEnable|apicBaseX2) == apicBaseX2 {
		return false
	}
	if !c.vm.apicSetBase(c, v) {
		return false
	}
	c.msr.apicBase = v&^apicBaseBSP | c.msr.apicBase&apicBaseBSP
	return true
}

func opRdmsr(c *cpu, in *inst) bool {
	v, ok := c.readMSR(uint32(c.regs[rCX]))
	if !ok {
		return c.raiseCode(vectorGP, 0)
	}
	c.regs[rAX], c.regs[rDX] = v&0xffffffff, v>>32
	c.tellSystem(in, SystemReadMSR, uint32(c.regs[rCX]), v)
	return true
}

func opWrmsr(c *cpu, in *inst) bool {
	v := c.regs[rAX]&0xffffffff | c.regs[rDX]<<32
	if !c.writeMSR(uint32(c.regs[rCX]), v) {
		return c.raiseCode(vectorGP, 0)
	}
	c.setMode()
	c.tellSystem(in, SystemWriteMSR, uint32(c.regs[rCX]), v)
	return c.done(in)
}

// tsc is the time-stamp counter.
func (c *cpu) tsc() uint64 { return c.vm.now() + c.msr.tscOffset }

// opRdtsc is RDTSC, and RDTSCP with op 1.
func opRdtsc(c *cpu, in *inst) bool {
	if c.cpl != 0 && c.cr4&x86.CR4TSD != 0 {
		return c.raiseCode(vectorGP, 0)
	}
	t := c.tsc()
	c.regs[rAX], c.regs[rDX] = t&0xffffffff, t>>32
	if in.op == 1 {
		c.regs[rCX] = c.msr.tscAux
	}
	return true
}

func opRdpid(c *cpu, in *inst) bool {
	c.regs[in.rm&31] = c.msr.tscAux
	return true
}

// opRdpmc: there are no performance counters.
func opRdpmc(c *cpu, in *inst) bool { return c.raiseCode(vectorGP, 0) }

// opRdseed is RDSEED, and RDPID with F3.
func opRdseed(c *cpu, in *inst) bool {
	if in.rep == 0xf3 {
		return opRdpid(c, in)
	}
	return opRdrand(c, in)
}

// opRdrand is RDRAND.
func opRdrand(c *cpu, in *inst) bool {
	c.setGPR(in.rm, in.size, c.vm.random())
	c.setArith(x86.FlagCF)
	return true
}
