//go:build linux && amd64

package kvm

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// msrRange is struct kvm_msr_filter_range.
type msrRange struct {
	access, count, base, _ uint32
	bitmap                 uint64 // a host address; a zero bit denies
}

// msrFilter is struct kvm_msr_filter. Its flags 0 mean: what no range has is
// allowed.
type msrFilter struct {
	_      [8]byte // flags
	ranges [16]msrRange
}

const (
	msrFilterRead      = 1 << 0
	msrFilterWrite     = 1 << 1
	msrExitOnFilter    = 1 << 2 // KVM_MSR_EXIT_REASON_FILTER
	mostMSRsInARange   = 64
	msrKVMFirst        = 0x4b564d00 // Documentation/virt/kvm/x86/msr.rst
	msrMTRRDefaultType = 0x2ff
)

// filteredMSRs are the registers, first and count, that kernels use at boot and
// when they switch tasks, and that KVM sets for the VMM as it does for the guest.
// Not among them are the TSC, whose writing means something else from outside,
// and the x2APIC's, which no filter applies to (api.rst, KVM_X86_SET_MSR_FILTER).
var filteredMSRs = [...][2]uint32{
	{x86.MSRAPICBase, 1}, {x86.MSRSysenterCS, 3}, {x86.MSRMiscEnable, 1}, {x86.MSRPAT, 1}, {msrMTRRDefaultType, 1},
	{x86.MSRTSCDeadline, 1}, {msrKVMFirst, 8}, {x86.MSREFER, 5}, {x86.MSRFSBase, 4},
}

var denied [mostMSRsInARange / 8]byte

// ExitOnMSRs says whether accesses to model-specific registers leave KVM_RUN, as
// ExitReadMSR and ExitWriteMSR, and whether writes to the local APIC's timer,
// IA32_TSC_DEADLINE, do so in any case. It may be called while CPUs run.
func (vm *VM) ExitOnMSRs(all, timer bool) error {
	var f msrFilter
	if all || timer {
		c := enableCap{cap: uint32(CapX86UserSpaceMSR), args: [4]uint64{msrExitOnFilter}}
		if _, err := ioctlPtr(vm.fd, ioEnableCap, &c); err != nil {
			return fmt.Errorf("KVM_ENABLE_CAP user-space MSRs: %w", err)
		}
	}
	switch {
	case all:
		for i, r := range filteredMSRs {
			f.ranges[i] = msrRange{access: msrFilterRead | msrFilterWrite, base: r[0], count: r[1], bitmap: hostAddress(denied[:])}
		}
	case timer:
		f.ranges[0] = msrRange{access: msrFilterWrite, base: x86.MSRTSCDeadline, count: 1, bitmap: hostAddress(denied[:])}
	}
	if _, err := ioctlPtr(vm.fd, ioSetMSRFilter, &f); err != nil {
		return fmt.Errorf("KVM_X86_SET_MSR_FILTER: %w", err)
	}
	return nil
}

// enableCap is struct kvm_enable_cap.
type enableCap struct {
	cap, _ uint32
	args   [4]uint64
	_      [64]byte
}
