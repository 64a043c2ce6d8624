package vmm

import "github.com/vitrine-vmm/vitrine/vmm/softcpu"

var (
	_ statefulVM  = softVM{}
	_ statefulCPU = (*softcpu.VCPU)(nil)
	_ msrKnower   = (*softcpu.VCPU)(nil)
	_ tscKeeper   = (*softcpu.VCPU)(nil)
)
