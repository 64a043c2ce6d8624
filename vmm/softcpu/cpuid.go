package softcpu

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// TSCFrequency is that of the time-stamp counter, in Hz: one tick is one
// nanosecond. The local APIC's timer has the same clock.
const TSCFrequency = 1_000_000_000

// The CPU model: family 6, model 28, an in-order core that does not speculate,
// so that kernels switch their mitigations off: rightly, as there is nothing
// to mitigate in an interpreter. The features are this package's own.
const (
	signature   = 0x000106ca
	vendor      = "GenuineIntel"
	brand       = "Vitrine software CPU"
	hypervisor  = "VitrineSoft\x00"
	maxBasic    = 0x16
	maxExtended = 0x80000008
)

// cpuidModel is the table of the CPU, without what depends on topology (SDM
// vol. 2, CPUID).
func cpuidModel() []x86.CPUIDEntry {
	const sub = x86.CPUIDSignificantIndex
	v := func(s string, i int) uint32 { return binary.LittleEndian.Uint32([]byte(s)[i:]) }
	t := []x86.CPUIDEntry{
		{Function: 0, EAX: maxBasic, EBX: v(vendor, 0), EDX: v(vendor, 4), ECX: v(vendor, 8)},
		{Function: 1, EAX: signature, EBX: 8 << 8, ECX: features1C, EDX: features1D},
		{Function: 2, EAX: 1},
		// L1 data, L1 instruction, L2: what the host has does not show.
		{Function: 4, Index: 0, Flags: sub, EAX: 0x121, EBX: 7<<22 | 63, ECX: 63},
		{Function: 4, Index: 1, Flags: sub, EAX: 0x122, EBX: 7<<22 | 63, ECX: 63},
		{Function: 4, Index: 2, Flags: sub, EAX: 0x143, EBX: 15<<22 | 63, ECX: 1023},
		{Function: 6, EAX: 1 << 2}, // ARAT
		{Function: 7, Index: 0, Flags: sub, EBX: features7B, ECX: features7C, EDX: features7D},
		{Function: 0xb, Index: 0, Flags: sub, EBX: 1, ECX: 0x100},
		{Function: 0xd, Index: 0, Flags: sub, EAX: xcr0Mask, EBX: xsaveSize, ECX: xsaveSize},
		{Function: 0xd, Index: 1, Flags: sub},
		{Function: 0x15, EAX: 1, EBX: 1, ECX: TSCFrequency},
		{Function: 0x16, EAX: TSCFrequency / 1e6, EBX: TSCFrequency / 1e6, ECX: 100},
		{Function: 0x40000000, EAX: 0x40000000, EBX: v(hypervisor, 0), ECX: v(hypervisor, 4), EDX: v(hypervisor, 8)},
		{Function: 0x80000000, EAX: maxExtended},
		{Function: 0x80000001, EAX: signature, ECX: featuresExtC, EDX: featuresExtD},
		{Function: 0x80000006, ECX: 1024<<16 | 8<<12 | 64},
		{Function: 0x80000007, EDX: 1 << 8}, // invariant TSC
		{Function: 0x80000008, EAX: 48<<8 | physBits},
	}
	name := make([]byte, 48)
	copy(name, brand)
	for i := range uint32(3) {
		b := name[16*i:]
		t = append(t, x86.CPUIDEntry{Function: 0x80000002 + i,
			EAX: binary.LittleEndian.Uint32(b), EBX: binary.LittleEndian.Uint32(b[4:]),
			ECX: binary.LittleEndian.Uint32(b[8:]), EDX: binary.LittleEndian.Uint32(b[12:])})
	}
	return t
}

// Feature bits, by the names of the manual.
const (
	features1C = 1<<0 | // SSE3
		1<<9 | // SSSE3
		1<<13 | // CMPXCHG16B
		1<<17 | // PCID
		1<<19 | // SSE4.1
		1<<20 | // SSE4.2
		1<<21 | // x2APIC
		1<<22 | // MOVBE
		1<<23 | // POPCNT
		1<<24 | // TSC-Deadline
		1<<26 | // XSAVE
		1<<30 | // RDRAND
		1<<31 // hypervisor
	features1D = 1<<0 | // FPU
		1<<2 | // DE
		1<<3 | // PSE
		1<<4 | // TSC
		1<<5 | // MSR
		1<<6 | // PAE
		1<<8 | // CMPXCHG8B
		1<<9 | // APIC
		1<<11 | // SYSENTER
		1<<12 | // MTRR
		1<<13 | // PGE
		1<<15 | // CMOV
		1<<16 | // PAT
		1<<17 | // PSE-36
		1<<19 | // CLFLUSH
		1<<23 | // MMX
		1<<24 | // FXSR
		1<<25 | // SSE
		1<<26 // SSE2
	features7B = 1<<0 | // FSGSBASE
		1<<1 | // TSC_ADJUST
		1<<3 | // BMI1
		1<<7 | // SMEP
		1<<8 | // BMI2
		1<<9 | // ERMS
		1<<10 | // INVPCID
		1<<18 | // RDSEED
		1<<19 | // ADX
		1<<20 | // SMAP
		1<<23 // CLFLUSHOPT
	features7C   = 1<<2 | 1<<22 // UMIP, RDPID
	features7D   = 1 << 4       // FSRM
	featuresExtC = 1<<0 | 1<<5 | 1<<8
	featuresExtD = 1<<11 | 1<<20 | 1<<26 | 1<<27 | 1<<29

	osxsave = 1 << 27 // leaf 1, ECX: CR4.OSXSAVE
)

// opCpuid is CPUID. A leaf above the largest gives the largest basic leaf's
// data on this vendor's processors; zeros are what hypervisors give.
func opCpuid(c *cpu, in *inst) bool {
	leaf, index := uint32(c.regs[rAX]), uint32(c.regs[rCX])
	var e x86.CPUIDEntry
	for i := range c.cpuid {
		t := &c.cpuid[i]
		if t.Function == leaf && (t.Flags&x86.CPUIDSignificantIndex == 0 || t.Index == index) {
			e = *t
			break
		}
	}
	if leaf == 1 && c.cr4&x86.CR4OSXSAVE != 0 {
		e.ECX |= osxsave
	}
	c.regs[rAX], c.regs[rBX] = uint64(e.EAX), uint64(e.EBX)
	c.regs[rCX], c.regs[rDX] = uint64(e.ECX), uint64(e.EDX)
	if f := c.debug.system; f != nil {
		f(System{SystemCPUID, c.ipAt(in.off), leaf, index, [4]uint32{e.EAX, e.EBX, e.ECX, e.EDX}})
	}
	return true
}
