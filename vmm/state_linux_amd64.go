package vmm

import "github.com/vitrine-vmm/vitrine/vmm/kvm"

var (
	_ statefulVM   = kvmVM{}
	_ statefulCPU  = (*kvm.VCPU)(nil)
	_ msrKnower    = (*kvm.VCPU)(nil)
	_ pdptrKeeper  = (*kvm.VCPU)(nil)
	_ tscKeeper    = (*kvm.VCPU)(nil)
	_ clockStopper = (*kvm.VCPU)(nil)
	_ pageSettler  = (*kvm.VCPU)(nil)
)
