package softcpu

import "github.com/vitrine-vmm/vitrine/vmm/x86"

// File reads the registers into f.
func (v *VCPU) File(f *x86.File) {
	c := v.c
	copy(f[:16], c.regs[:16])
	f[x86.RegRIP], f[x86.RegRFLAGS] = c.rip, c.rflags()
	for i := range c.seg {
		f[x86.RegES+i] = uint64(c.seg[i].sel)
	}
	f[x86.RegFSBase], f[x86.RegGSBase] = c.seg[segFS].base, c.seg[segGS].base
	f[x86.RegCR0], f[x86.RegCR2], f[x86.RegCR3], f[x86.RegCR4] = c.cr0, c.cr2, c.cr3, c.cr4
	f[x86.RegEFER], f[x86.RegMXCSR] = c.efer, uint64(c.sse.mxcsr)
	for i := range c.sse.xmm {
		f[x86.RegXMM+2*i], f[x86.RegXMM+2*i+1] = c.sse.xmm[i][0], c.sse.xmm[i][1]
	}
}

// Mode is how the CPU decodes instructions now: with code of so many bits, at
// the privilege level cpl.
func (v *VCPU) Mode() (m x86.Mode, bits, cpl uint8) {
	c := v.c
	bits = 16 << (c.mode & modeSize)
	switch {
	case !c.protected():
		m = x86.ModeReal
	case c.vm86():
		m = x86.ModeVM86
	case !c.long():
		m = x86.ModeProtected
	case bits != 64:
		m = x86.ModeCompat
	default:
		m = x86.ModeLong
	}
	return m, bits, c.cpl
}

// Instructions is how many instructions the CPU has executed, with a delivery
// of an exception or interrupt counting as one.
func (v *VCPU) Instructions() uint64 { return v.c.icount }
