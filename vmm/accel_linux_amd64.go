package vmm

import (
	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// kvmVM makes vmm/kvm, which knows no interfaces, into a VM.
type kvmVM struct {
	*kvm.VM
	sys *kvm.System
}

var (
	_ VM   = kvmVM{}
	_ VCPU = (*kvm.VCPU)(nil)
	_ MSI  = (*kvm.MSI)(nil)
)

func openKVM() (VM, error) {
	sys, err := kvm.Open()
	if err != nil {
		return nil, err
	}
	vm, err := sys.CreateVM()
	if err != nil {
		_ = sys.Close()
		return nil, err
	}
	return kvmVM{vm, sys}, nil
}

func (v kvmVM) NewVCPU(id int, cpuid []x86.CPUIDEntry) (VCPU, error) {
	c, err := v.CreateVCPU(id, cpuid)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (v kvmVM) SupportedCPUID() ([]x86.CPUIDEntry, error) { return v.sys.SupportedCPUID() }

func (v kvmVM) MSI() (MSI, error) {
	m, err := v.NewMSI()
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (v kvmVM) Close() error {
	err := v.VM.Close()
	if e := v.sys.Close(); err == nil {
		err = e
	}
	return err
}
