package softcpu

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// State that snapshots and debuggers want beside the registers.

// XSaveSize is the size of a CPU's XSAVE area in bytes.
func (vm *VM) XSaveSize() int { return xsaveSize }

// XSave copies the XSAVE area (standard format, SDM vol. 1, 13.4) to p.
func (v *VCPU) XSave(p []byte) error {
	if len(p) < xsaveSize {
		return fmt.Errorf("XSAVE area: %d bytes given, it has %d", len(p), xsaveSize)
	}
	c := v.c
	clear(p)
	c.fpu.putFX(p, true)
	binary.LittleEndian.PutUint32(p[24:], c.sse.mxcsr)
	binary.LittleEndian.PutUint32(p[28:], mxcsrMask)
	c.sse.putXMM(p, 16)
	binary.LittleEndian.PutUint64(p[fxsaveSize:], xcr0Mask)
	return nil
}

// SetXSave loads the XSAVE area from p. State of components that this CPU does
// not have is an error, not lost.
func (v *VCPU) SetXSave(p []byte) error {
	if len(p) < xsaveSize {
		return fmt.Errorf("XSAVE area: %d bytes given, it has %d", len(p), xsaveSize)
	}
	bv := binary.LittleEndian.Uint64(p[fxsaveSize:])
	mxcsr := binary.LittleEndian.Uint32(p[24:])
	switch {
	case bv&^xcr0Mask != 0:
		return fmt.Errorf("XSAVE area: has components %#x, this CPU has only x87 and SSE", bv)
	case mxcsr&^mxcsrMask != 0:
		return fmt.Errorf("XSAVE area: MXCSR %#x has reserved bits set", mxcsr)
	}
	c := v.c
	c.fpu, c.sse = fpu{}, sse{}
	c.fpu.reset()
	c.sse.reset()
	if bv&xcr0X87 != 0 {
		c.fpu.getFX(p)
	}
	if bv&xcr0SSE != 0 {
		c.sse.getXMM(p, 16)
		c.sse.mxcsr = mxcsr
	}
	return nil
}

// XCR0 is extended control register 0.
func (v *VCPU) XCR0() (uint64, error) { return v.c.xcr0, nil }

// SetXCR0 sets extended control register 0.
func (v *VCPU) SetXCR0(x uint64) error {
	if x&xcr0X87 == 0 || x&^xcr0Mask != 0 {
		return fmt.Errorf("XCR0 %#x: this CPU has only x87 and SSE (%#x)", x, xcr0Mask)
	}
	v.c.xcr0 = x
	return nil
}

// DebugRegs returns the debug registers.
func (v *VCPU) DebugRegs() (x86.DebugRegs, error) {
	d := &v.c.dr
	return x86.DebugRegs{DB: [4]uint64(d[:4]), DR6: d[6], DR7: d[7]}, nil
}

// SetDebugRegs sets the debug registers.
func (v *VCPU) SetDebugRegs(r *x86.DebugRegs) error {
	d := &v.c.dr
	copy(d[:4], r.DB[:])
	d[6], d[7] = r.DR6&math.MaxUint32|dr6Ones, r.DR7&math.MaxUint32|dr7Ones
	v.c.debugChanged()
	return nil
}

// injection is an event that SetEvents has left to be delivered.
type injection struct {
	valid  bool
	vector uint8
	ev     event
}

// validPayload is KVM_VCPUEVENT_VALID_PAYLOAD; the others are named likewise
// in linux/kvm.h.
const (
	validNMIPending = 1 << 0
	validSIPI       = 1 << 1
	validShadow     = 1 << 2
	validPayload    = 1 << 4
)

// Events returns what is pending or being delivered. An exception of this
// CPU's own is always delivered with its instruction, except the one of a
// single step, which waits for the next.
func (v *VCPU) Events() (x86.Events, error) {
	c := v.c
	e := x86.Events{SIPIVector: c.sipi.Load(), Flags: validNMIPending | validSIPI | validShadow}
	if c.event.inhibit != 0 {
		e.Interrupt.Shadow = 1
	}
	if c.event.nmiBlocked {
		e.NMI.Masked = 1
	}
	if c.attn.Load()&attnNMI != 0 {
		e.NMI.Pending = 1
	}
	switch j := c.event.inject; {
	case j.valid && j.ev.kind == eventHardware && j.vector == vectorNMI:
		e.NMI.Injected = 1
	case j.valid && (j.ev.kind == eventHardware || j.ev.kind == eventSoft):
		e.Interrupt.Injected, e.Interrupt.Nr = 1, j.vector
		if j.ev.kind == eventSoft {
			e.Interrupt.Soft = 1
		}
	case j.valid:
		e.Exception.Injected, e.Exception.Nr, e.Exception.ErrorCode = 1, j.vector, j.ev.code
		if j.ev.hasCode {
			e.Exception.HasErrorCode = 1
		}
	case c.event.trap:
		e.Exception.Pending, e.Exception.Nr = 1, vectorDB
		e.ExceptionHasPayload, e.ExceptionPayload = 1, dr6BS
		e.Flags |= validPayload
	}
	return e, nil
}

// SetEvents sets what is pending or being delivered. What is "injected" is
// delivered by the next Run before its first instruction.
func (v *VCPU) SetEvents(e *x86.Events) error {
	c := v.c
	if e.SMI.SMM != 0 {
		return fmt.Errorf("events: system-management mode is not provided")
	}
	if e.Exception.Nr > 31 {
		return fmt.Errorf("events: exception %d: there are 0 to 31", e.Exception.Nr)
	}
	c.event.inject, c.event.trap = injection{}, false
	code := event{hasCode: e.Exception.HasErrorCode != 0, code: e.Exception.ErrorCode}
	switch {
	case e.Exception.Pending != 0 && e.Exception.Nr == vectorDB && e.ExceptionHasPayload != 0:
		c.event.trap = true
	case e.Exception.Injected != 0 || e.Exception.Pending != 0:
		c.event.inject = injection{true, e.Exception.Nr, code}
	case e.NMI.Injected != 0:
		c.event.inject = injection{true, vectorNMI, event{kind: eventHardware}}
	case e.Interrupt.Injected != 0 && e.Interrupt.Soft != 0:
		c.event.inject = injection{true, e.Interrupt.Nr, event{kind: eventSoft}}
	case e.Interrupt.Injected != 0:
		c.event.inject = injection{true, e.Interrupt.Nr, event{kind: eventHardware}}
	}
	c.event.nmiBlocked = e.NMI.Masked != 0
	if e.Flags&validNMIPending != 0 {
		c.attn.And(^uint32(attnNMI))
		if e.NMI.Pending != 0 {
			c.attn.Or(attnNMI)
		}
	}
	if e.Flags&validSIPI != 0 {
		c.sipi.Store(e.SIPIVector & 0xff)
	}
	c.event.inhibit = 0
	c.attn.And(^uint32(attnShadow))
	if e.Interrupt.Shadow != 0 {
		c.event.inhibit = 2
		c.attn.Or(attnShadow)
	}
	c.attn.Or(attnEvent)
	return nil
}

// injected delivers what SetEvents left. It returns false to leave Run.
func (c *cpu) injected() bool {
	c.attn.And(^uint32(attnEvent))
	j := c.event.inject
	c.event.inject = injection{}
	if !j.valid {
		return true
	}
	c.halted = false
	if j.vector == vectorNMI && j.ev.kind == eventHardware {
		c.event.nmiBlocked = true
	}
	return c.deliver(j.vector, j.ev)
}

// MPState says whether the CPU runs, is halted or waits to be started.
func (v *VCPU) MPState() (x86.MPState, error) {
	switch {
	case v.c.event.waitSIPI:
		return x86.MPInitReceived, nil
	case v.c.halted:
		return x86.MPHalted, nil
	}
	return x86.MPRunnable, nil
}

// SetMPState sets whether the CPU runs.
func (v *VCPU) SetMPState(s x86.MPState) error {
	c := v.c
	switch s {
	case x86.MPRunnable, x86.MPHalted, x86.MPInitReceived, x86.MPUninitialized:
	case x86.MPSIPIReceived:
		c.event.waitSIPI, c.halted = true, false
		c.attn.Or(attnHalt)
		c.signal(attnSIPI)
		return nil
	default:
		return fmt.Errorf("MP state %d: not known", s)
	}
	c.event.waitSIPI = s == x86.MPInitReceived || s == x86.MPUninitialized
	c.halted = s == x86.MPHalted
	if c.halted || c.event.waitSIPI {
		c.attn.Or(attnHalt)
		return nil
	}
	c.vm.turns.wake(c)
	return nil
}

// StateMSRs are the registers that make up a CPU's state, beside those that
// Sregs has, in the order in which they are to be restored.
func (vm *VM) StateMSRs() ([]uint32, error) {
	list := []uint32{x86.MSRTSC, msrTSCAdjust, x86.MSRSysenterCS, x86.MSRSysenterESP, x86.MSRSysenterEIP,
		x86.MSRMiscEnable, x86.MSRPAT, x86.MSRSTAR, x86.MSRLSTAR, x86.MSRCSTAR, x86.MSRSyscallMask,
		x86.MSRKernelGSBase, x86.MSRTSCAux, msrMTRRFix64, msrMTRRFix16, msrMTRRFix16 + 1}
	for i := range uint32(8) {
		list = append(list, msrMTRRFix4+i)
	}
	for i := uint32(msrMTRRBase); i <= msrMTRREnd; i++ {
		list = append(list, i)
	}
	return append(list, msrMTRRDef, x86.MSRTSCDeadline), nil
}

// KnownMSRs reads those of the registers that the CPU has.
func (v *VCPU) KnownMSRs(index []uint32) ([]x86.MSR, error) {
	list := make([]x86.MSR, 0, len(index))
	for _, i := range index {
		if val, ok := v.c.readMSR(i); ok {
			list = append(list, x86.MSR{Index: i, Data: val})
		}
	}
	return list, nil
}

// TSCkHz is the rate of the time-stamp counter.
func (v *VCPU) TSCkHz() uint32 { return TSCFrequency / 1000 }

// SetTSCkHz accepts no other rate.
func (v *VCPU) SetTSCkHz(kHz uint32) error {
	if kHz != TSCFrequency/1000 {
		return fmt.Errorf("time-stamp counter at %d kHz: the software CPU's has %d kHz", kHz, TSCFrequency/1000)
	}
	return nil
}
