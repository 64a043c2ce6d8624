package vmm

import (
	"slices"

	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

var (
	_ statefulVM  = softVM{}
	_ statefulCPU = (*softcpu.VCPU)(nil)
)

// StateMSRs are the registers of a software CPU (SDM vol. 4). The time-stamp
// counter is not among them: it is the machine's clock and IA32_TSC_ADJUST.
func (softVM) StateMSRs() ([]uint32, error) { return slices.Clone(softMSRs), nil }

var softMSRs = []uint32{
	0x3b, // IA32_TSC_ADJUST
	x86.MSRSysenterCS, x86.MSRSysenterESP, x86.MSRSysenterEIP, x86.MSRMiscEnable, x86.MSRPAT,
	// Memory-type range registers.
	0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f,
	0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f, 0x2ff,
	x86.MSRSTAR, x86.MSRLSTAR, x86.MSRCSTAR, x86.MSRSyscallMask, x86.MSRKernelGSBase, x86.MSRTSCAux,
	x86.MSRTSCDeadline,
}
