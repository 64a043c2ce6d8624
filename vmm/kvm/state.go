//go:build linux && amd64

package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// State that snapshots want beside the registers.

// Request numbers of state (include/uapi/linux/kvm.h).
const (
	ioGetLAPIC     = 0x8400ae8e
	ioSetLAPIC     = 0x4400ae8f
	ioGetMPState   = 0x8004ae98
	ioSetMPState   = 0x4004ae99
	ioGetDebugRegs = 0x8080aea1
	ioSetDebugRegs = 0x4080aea2
	ioGetSregs2    = 0x8140aecc
	ioSetSregs2    = 0x4140aecd
	ioGetTSCkHz    = 0xaea3
	ioSetTSCkHz    = 0xaea2
	ioGetClock     = 0x8030ae7c
	ioSetClock     = 0x4030ae7b
)

// lapicSize is sizeof(struct kvm_lapic_state).
const lapicSize = 1024

// LAPIC is the state of the CPU's local APIC (api.rst 4.57).
func (c *VCPU) LAPIC() (x86.LAPIC, error) {
	b := make([]byte, lapicSize)
	if _, err := ioctlBytes(c.fd, ioGetLAPIC, b); err != nil {
		return x86.LAPIC{}, fmt.Errorf("KVM_GET_LAPIC: %w", err)
	}
	return x86.LAPIC{Regs: b}, nil
}

// SetLAPIC sets the state of the CPU's local APIC. IA32_APIC_BASE, which
// SetSregs sets, comes before it, IA32_TSC_DEADLINE after it.
func (c *VCPU) SetLAPIC(s *x86.LAPIC) error {
	if len(s.Regs) != lapicSize {
		return fmt.Errorf("KVM_SET_LAPIC: %d bytes of registers, want %d", len(s.Regs), lapicSize)
	}
	if _, err := ioctlBytes(c.fd, ioSetLAPIC, slices.Clone(s.Regs)); err != nil {
		return fmt.Errorf("KVM_SET_LAPIC: %w", err)
	}
	return nil
}

// MPState says whether the CPU runs, is halted or waits to be started
// (api.rst 4.38).
func (c *VCPU) MPState() (x86.MPState, error) {
	if _, err := ioctlPtr(c.fd, ioGetMPState, &c.scratch.mp); err != nil {
		return 0, fmt.Errorf("KVM_GET_MP_STATE: %w", err)
	}
	return x86.MPState(c.scratch.mp.State), nil
}

// SetMPState sets whether the CPU runs.
func (c *VCPU) SetMPState(s x86.MPState) error {
	c.scratch.mp.State = uint32(s)
	if _, err := ioctlPtr(c.fd, ioSetMPState, &c.scratch.mp); err != nil {
		return fmt.Errorf("KVM_SET_MP_STATE %d: %w", s, err)
	}
	return nil
}

// DebugRegs returns the debug registers (api.rst 4.33).
func (c *VCPU) DebugRegs() (x86.DebugRegs, error) {
	d := new(x86.DebugRegs)
	if _, err := ioctlPtr(c.fd, ioGetDebugRegs, d); err != nil {
		return x86.DebugRegs{}, fmt.Errorf("KVM_GET_DEBUGREGS: %w", err)
	}
	return *d, nil
}

// SetDebugRegs sets the debug registers.
func (c *VCPU) SetDebugRegs(d *x86.DebugRegs) error {
	if _, err := ioctlPtr(c.fd, ioSetDebugRegs, d); err != nil {
		return fmt.Errorf("KVM_SET_DEBUGREGS: %w", err)
	}
	return nil
}

// sregs2 is struct kvm_sregs2: as kvm_sregs up to the bitmap of interrupts.
type sregs2 struct {
	_      [280]byte
	flags  uint64
	pdptrs [4]uint64
}

const sregs2PDPTRsValid = 1 << 0

// PDPTRs are the four registers that hold the top of the page tables with PAE
// paging, which need not be what memory has there (SDM vol. 3, 4.4.1). ok is
// false without PAE paging, and where KVM does not tell.
func (c *VCPU) PDPTRs() (p [4]uint64, ok bool, err error) {
	s := new(sregs2)
	switch _, err := ioctlPtr(c.fd, ioGetSregs2, s); {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL):
		return p, false, nil
	case err != nil:
		return p, false, fmt.Errorf("KVM_GET_SREGS2: %w", err)
	}
	return s.pdptrs, s.flags&sregs2PDPTRsValid != 0, nil
}

// SetPDPTRs sets them, after SetSregs.
func (c *VCPU) SetPDPTRs(p [4]uint64) error {
	s := new(sregs2)
	if _, err := ioctlPtr(c.fd, ioGetSregs2, s); err != nil {
		return fmt.Errorf("KVM_GET_SREGS2: %w", err)
	}
	s.flags, s.pdptrs = s.flags|sregs2PDPTRsValid, p
	if _, err := ioctlPtr(c.fd, ioSetSregs2, s); err != nil {
		return fmt.Errorf("KVM_SET_SREGS2: %w", err)
	}
	return nil
}

// TSCkHz is the rate of the CPU's time-stamp counter; 0 where KVM does not
// tell.
func (c *VCPU) TSCkHz() uint32 {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), ioGetTSCkHz, 0)
	if errno != 0 {
		return 0
	}
	return uint32(n)
}

// SetTSCkHz sets the rate; the host's processor may be unable to do that.
func (c *VCPU) SetTSCkHz(kHz uint32) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), ioSetTSCkHz, uintptr(kHz)); errno != 0 {
		return fmt.Errorf("KVM_SET_TSC_KHZ %d: %w", kHz, errno)
	}
	return nil
}

// KnownMSRs reads those of the registers that the CPU has.
func (c *VCPU) KnownMSRs(index []uint32) ([]x86.MSR, error) {
	all := make([]x86.MSR, 0, len(index))
	for len(index) > 0 {
		b := msrBuffer(len(index))
		for i, x := range index {
			binary.NativeEndian.PutUint32(b[8+i*msrEntrySize:], x)
		}
		n, err := ioctlBytes(c.fd, ioGetMSRs, b)
		if err != nil {
			return nil, fmt.Errorf("KVM_GET_MSRS: %w", err)
		}
		for i := range n {
			var m x86.MSR
			copy(bytesOf(&m), b[8+i*msrEntrySize:])
			all = append(all, m)
		}
		index = index[min(n+1, len(index)):] // the one after is not there
	}
	return all, nil
}

func msrBuffer(n int) []byte {
	b := make([]byte, 8+n*msrEntrySize)
	binary.NativeEndian.PutUint32(b, uint32(n))
	return b
}

// More MSRs that KVM's list leaves out though they are state: the memory-type
// range registers (SDM vol. 3, 12.11.2).
var rangeMSRs = []uint32{0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
	0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207,
	0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20d, 0x20e, 0x20f, 0x2ff}

// StateMSRs are the registers whose values make up a CPU's state: those that
// the host lists, and the memory-type range registers.
func (vm *VM) StateMSRs() ([]uint32, error) {
	list, err := vm.sys.MSRIndexList()
	if err != nil {
		return nil, err
	}
	for _, i := range rangeMSRs {
		if !slices.Contains(list, i) {
			list = append(list, i)
		}
	}
	return list, nil
}

// Clock is the machine's time in nanoseconds: what kvm-clock shows the guest
// (api.rst 4.29).
func (vm *VM) Clock() (uint64, error) {
	vm.scratch.clock = gokvm.ClockData{}
	if _, err := ioctlPtr(vm.fd, ioGetClock, &vm.scratch.clock); err != nil {
		return 0, fmt.Errorf("KVM_GET_CLOCK: %w", err)
	}
	return vm.scratch.clock.Clock, nil
}

// SetClock sets the machine's time, for a restore.
func (vm *VM) SetClock(ns uint64) error {
	vm.scratch.clock = gokvm.ClockData{Clock: ns}
	if _, err := ioctlPtr(vm.fd, ioSetClock, &vm.scratch.clock); err != nil {
		return fmt.Errorf("KVM_SET_CLOCK: %w", err)
	}
	return nil
}

// ClockStopped tells a guest with kvm-clock that it was stopped, so that its
// watchdogs do not take that for a hang (api.rst 4.79). A guest without does
// not hear of it.
func (c *VCPU) ClockStopped() error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), ioKVMClockCtrl, 0); errno != 0 && errno != unix.EINVAL {
		return fmt.Errorf("KVM_KVMCLOCK_CTRL: %w", errno)
	}
	return nil
}

// Settle hands what was set in the shared page to KVM and has the registers
// read from KVM again: a call that makes KVM act on its own state, as MPState
// does, must not be undone by the page.
func (c *VCPU) Settle() error {
	if !c.synced {
		return nil
	}
	dirty, page := c.run.dirtyRegs, c.run.sync
	c.synced, c.run.dirtyRegs = false, 0
	if dirty&syncSregsBit != 0 {
		if err := c.SetSregs(&page.sregs); err != nil {
			return err
		}
	}
	if dirty&syncRegsBit != 0 {
		if err := c.SetRegs(&page.regs); err != nil {
			return err
		}
	}
	if dirty&syncEventsBit != 0 {
		return c.SetEvents(&page.events)
	}
	return nil
}
