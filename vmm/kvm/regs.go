//go:build linux && amd64

package kvm

import (
	"encoding/binary"
	"fmt"

	gokvm "github.com/bobuhiro11/gokvm/kvm"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Regs returns the general registers: from the shared page where this exit
// left them there, through KVM_GET_REGS otherwise.
func (c *VCPU) Regs() (x86.Regs, error) {
	if c.synced {
		return c.run.sync.regs, nil
	}
	r, err := gokvm.GetRegs(uintptr(c.fd))
	if err != nil {
		return x86.Regs{}, fmt.Errorf("KVM_GET_REGS: %w", err)
	}
	return x86.Regs(*r), nil
}

// SetRegs sets the general registers, with the next Run where the shared page
// is in use.
func (c *VCPU) SetRegs(r *x86.Regs) error {
	if c.synced {
		c.run.sync.regs = *r
		c.run.dirtyRegs |= syncRegsBit
		return nil
	}
	c.scratch.regs = gokvm.Regs(*r)
	if err := gokvm.SetRegs(uintptr(c.fd), &c.scratch.regs); err != nil {
		return fmt.Errorf("KVM_SET_REGS: %w", err)
	}
	return nil
}

// Sregs returns the system registers.
func (c *VCPU) Sregs() (x86.Sregs, error) {
	if c.synced {
		return c.run.sync.sregs, nil
	}
	s, err := gokvm.GetSregs(uintptr(c.fd))
	if err != nil {
		return x86.Sregs{}, fmt.Errorf("KVM_GET_SREGS: %w", err)
	}
	return *reinterpret[x86.Sregs](s), nil
}

// SetSregs sets the system registers.
func (c *VCPU) SetSregs(s *x86.Sregs) error {
	if c.synced {
		c.run.sync.sregs = *s
		c.run.dirtyRegs |= syncSregsBit
		return nil
	}
	c.scratch.sregs = *reinterpret[gokvm.Sregs](s)
	if err := gokvm.SetSregs(uintptr(c.fd), &c.scratch.sregs); err != nil {
		return fmt.Errorf("KVM_SET_SREGS: %w", err)
	}
	return nil
}

// Events returns what is pending or being delivered (api.rst 4.31).
func (c *VCPU) Events() (x86.Events, error) {
	if c.synced {
		return c.run.sync.events, nil
	}
	if _, err := ioctlPtr(c.fd, ioGetVCPUEvents, &c.scratch.events); err != nil {
		return x86.Events{}, fmt.Errorf("KVM_GET_VCPU_EVENTS: %w", err)
	}
	return c.scratch.events, nil
}

// SetEvents sets what is pending or being delivered.
func (c *VCPU) SetEvents(e *x86.Events) error {
	if c.synced {
		c.run.sync.events = *e
		c.run.dirtyRegs |= syncEventsBit
		return nil
	}
	c.scratch.events = *e
	if _, err := ioctlPtr(c.fd, ioSetVCPUEvents, &c.scratch.events); err != nil {
		return fmt.Errorf("KVM_SET_VCPU_EVENTS: %w", err)
	}
	return nil
}

const msrEntrySize = 16

// MSRs reads model-specific registers. One that KVM does not know is an error
// that names it.
func (c *VCPU) MSRs(index ...uint32) ([]x86.MSR, error) {
	b := make([]byte, 8+len(index)*msrEntrySize)
	binary.NativeEndian.PutUint32(b, uint32(len(index)))
	for i, x := range index {
		binary.NativeEndian.PutUint32(b[8+i*msrEntrySize:], x)
	}
	n, err := ioctlBytes(c.fd, ioGetMSRs, b)
	if err != nil {
		return nil, fmt.Errorf("KVM_GET_MSRS: %w", err)
	}
	if n < len(index) {
		return nil, fmt.Errorf("KVM_GET_MSRS: no MSR %#x", index[n])
	}
	msrs := make([]x86.MSR, len(index))
	for i := range msrs {
		copy(bytesOf(&msrs[i]), b[8+i*msrEntrySize:])
	}
	return msrs, nil
}

// SetMSRs writes model-specific registers in the given order. One that KVM
// refuses is an error that names it; those before it have been set.
func (c *VCPU) SetMSRs(msrs []x86.MSR) error {
	b := make([]byte, 8, 8+len(msrs)*msrEntrySize)
	binary.NativeEndian.PutUint32(b, uint32(len(msrs)))
	for i := range msrs {
		b = append(b, bytesOf(&msrs[i])...)
	}
	n, err := ioctlBytes(c.fd, ioSetMSRs, b)
	if err != nil {
		return fmt.Errorf("KVM_SET_MSRS: %w", err)
	}
	if n < len(msrs) {
		return fmt.Errorf("KVM_SET_MSRS: MSR %#x refuses %#x", msrs[n].Index, msrs[n].Data)
	}
	return nil
}

// xsaveSize is the size of struct kvm_xsave; state beyond it (AMX) needs
// KVM_GET_XSAVE2 and a larger buffer.
const xsaveSize = 4096

// XSave copies the XSAVE area (standard format, SDM vol. 1, 13.4) to p, whose
// length is XSaveSize of the VM.
func (c *VCPU) XSave(p []byte) error {
	req := uintptr(ioGetXSAVE)
	if len(p) > xsaveSize {
		req = ioGetXSAVE2
	}
	if _, err := ioctlBytes(c.fd, req, p); err != nil {
		return fmt.Errorf("KVM_GET_XSAVE: %w", err)
	}
	return nil
}

// SetXSave loads the XSAVE area from p.
func (c *VCPU) SetXSave(p []byte) error {
	if _, err := ioctlBytes(c.fd, ioSetXSAVE, p); err != nil {
		return fmt.Errorf("KVM_SET_XSAVE: %w", err)
	}
	return nil
}

// XSaveSize is the size of a vCPU's XSAVE area in bytes.
func (vm *VM) XSaveSize() int { return max(xsaveSize, vm.sys.Check(CapXSave2)) }

// XCR0 returns extended control register 0.
func (c *VCPU) XCR0() (uint64, error) {
	if _, err := ioctlPtr(c.fd, ioGetXCRS, &c.scratch.xcrs); err != nil {
		return 0, fmt.Errorf("KVM_GET_XCRS: %w", err)
	}
	n := binary.NativeEndian.Uint32(c.scratch.xcrs[:])
	for i := uint32(0); i < min(n, 16); i++ {
		if e := c.scratch.xcrs[8+16*i:]; binary.NativeEndian.Uint32(e) == 0 {
			return binary.NativeEndian.Uint64(e[8:]), nil
		}
	}
	return 1, nil
}

// SetXCR0 sets extended control register 0.
func (c *VCPU) SetXCR0(v uint64) error {
	c.scratch.xcrs = [392]byte{}
	binary.NativeEndian.PutUint32(c.scratch.xcrs[0:], 1)
	binary.NativeEndian.PutUint64(c.scratch.xcrs[16:], v)
	if _, err := ioctlPtr(c.fd, ioSetXCRS, &c.scratch.xcrs); err != nil {
		return fmt.Errorf("KVM_SET_XCRS: %w", err)
	}
	return nil
}
