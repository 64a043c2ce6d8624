//go:build linux && amd64

package kvm

import (
	"encoding/binary"
	"fmt"
)

// What KVM_SET_GUEST_DEBUG can be asked for (KVM_GUESTDBG_*, api.rst 4.87).
const (
	DebugEnable      = 1 << 0
	DebugSingleStep  = 1 << 1
	DebugSoftware    = 1 << 16 // INT3 leaves the guest
	DebugHardware    = 1 << 17 // the debug registers are the debugger's
	DebugInjectINT3  = 1 << 19 // raise #BP in the guest, once
	DebugNoInterrupt = 1 << 20 // hold interrupts back
)

// SetGuestDebug sets what the debugger wants of this CPU, in place of what it
// wanted before. dr7 and db are the debug registers while DebugHardware is set.
func (c *VCPU) SetGuestDebug(control uint32, db [4]uint64, dr7 uint64) error {
	b := &c.scratch.guestDB
	*b = [72]byte{}
	binary.NativeEndian.PutUint32(b[0:], control)
	for i, a := range db {
		binary.NativeEndian.PutUint64(b[8+8*i:], a)
	}
	binary.NativeEndian.PutUint64(b[8+8*7:], dr7)
	if _, err := ioctlPtr(c.fd, ioSetGuestDebug, b); err != nil {
		return fmt.Errorf("KVM_SET_GUEST_DEBUG: %w", err)
	}
	return nil
}
