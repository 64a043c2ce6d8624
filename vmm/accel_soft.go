package vmm

import (
	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// softVM makes vmm/softcpu, which knows no interfaces, into a VM.
type softVM struct{ *softcpu.VM }

var (
	_ VM   = softVM{}
	_ VCPU = (*softcpu.VCPU)(nil)
	_ MSI  = (*softcpu.MSI)(nil)
)

func openSoft(opts softcpu.Options) (VM, error) {
	vm, err := softcpu.New(opts)
	if err != nil {
		return nil, err
	}
	return softVM{vm}, nil
}

func (v softVM) Kind() Accelerator { return AccelSoft }

func (v softVM) NewVCPU(id int, cpuid []x86.CPUIDEntry) (VCPU, error) {
	c, err := v.CreateVCPU(id, cpuid)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (v softVM) MSI() (MSI, error) {
	m, err := v.NewMSI()
	if err != nil {
		return nil, err
	}
	return m, nil
}
