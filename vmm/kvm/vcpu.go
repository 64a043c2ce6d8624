//go:build linux && amd64

package kvm

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// VCPU is a virtual CPU. All methods but Kick are for the goroutine that
// created it, which must be locked to its thread.
type VCPU struct {
	fd    int
	tid   int
	page  []byte
	run   *runPage
	moved atomic.Bool // a Kick waits to be seen

	// Registers through the shared page (SYNC_REGS) cost every exit a copy
	// and save the exits that need them two ioctls. syncCredit is how many
	// more exits the copying goes on for.
	hasSync    bool
	keepRegs   atomic.Bool // an observer wants the registers after every exit
	syncCredit int
	synced     bool // the page holds the registers of this exit

	scratch struct {
		regs    gokvm.Regs
		sregs   gokvm.Sregs
		events  x86.Events
		mp      gokvm.MPState
		lapic   gokvm.LAPICState
		debug   gokvm.DebugRegs
		xcrs    [392]byte
		guestDB [72]byte
	}
}

// syncRun is for how many exits the registers are kept in the shared page
// after an exit that needed them. Hosts on which the VMM completes
// instructions have such exits by the thousand and close together; elsewhere
// there are none, and nothing is copied.
const syncRun = 32

// CreateVCPU makes the virtual CPU with this APIC id and CPUID table, bound to
// the calling thread.
func (vm *VM) CreateVCPU(id int, cpuid []x86.CPUIDEntry) (*VCPU, error) {
	var fd uintptr
	err := retryInterrupted(func() (err error) {
		fd, err = gokvm.CreateVCPU(uintptr(vm.fd), id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("KVM_CREATE_VCPU %d: %w", id, err)
	}
	c := &VCPU{fd: int(fd), tid: unix.Gettid(), hasSync: vm.hasSync}
	if c.page, c.run, err = mapRunPage(c.fd, vm.mmapSize); err != nil {
		_ = unix.Close(c.fd)
		return nil, fmt.Errorf("vcpu %d: map run page: %w", id, err)
	}
	if err := c.setCPUID(cpuid); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("vcpu %d: %w", id, err)
	}
	return c, nil
}

func (c *VCPU) setCPUID(entries []x86.CPUIDEntry) error {
	b := make([]byte, 8, 8+len(entries)*cpuidEntrySize)
	binary.NativeEndian.PutUint32(b, uint32(len(entries)))
	for i := range entries {
		b = append(b, bytesOf(&entries[i])...)
	}
	if _, err := ioctlBytes(c.fd, ioSetCPUID2, b); err != nil {
		return fmt.Errorf("KVM_SET_CPUID2: %w", err)
	}
	return nil
}

// CPUID is the table as the guest sees it. It differs from what was set where
// the host forces bits of its own.
func (c *VCPU) CPUID() ([]x86.CPUIDEntry, error) { return getCPUID(c.fd, ioGetCPUID2) }

// Adopt binds the CPU to the calling thread, to which Kick then goes.
func (c *VCPU) Adopt() { c.tid = unix.Gettid() }

// Run enters the guest and returns the reason for which it left. A signal is
// not an error: it is the exit ExitInterrupted.
func (c *VCPU) Run() (x86.Exit, error) {
	c.prepareSync()
	errno := enter(c.fd)
	c.synced = c.run.validRegs != 0
	switch errno {
	case 0:
		return c.decode(), nil
	case unix.EINTR, unix.EAGAIN:
		// EAGAIN: a CPU that waited for INIT or SIPI was woken.
		if c.moved.Swap(false) {
			setImmediateExit(c.run, false)
		}
		return x86.Exit{Reason: x86.ExitInterrupted}, nil
	}
	return x86.Exit{}, fmt.Errorf("KVM_RUN: %w", errno)
}

func (c *VCPU) prepareSync() {
	switch {
	case c.syncCredit > 0:
		c.syncCredit--
		c.run.validRegs = syncAll
	case c.hasSync && c.keepRegs.Load():
		c.run.validRegs = syncAll
	case c.run.validRegs != 0:
		c.run.validRegs = 0
	}
	c.synced = false
}

// KeepRegs says whether the registers are to be at hand after every exit, so
// that reading them costs no system call. It may be called from any goroutine.
func (c *VCPU) KeepRegs(on bool) { c.keepRegs.Store(on) }

// Kick makes the Run under way, or the next one, return ExitInterrupted. The
// flag covers a Run that has not begun, the signal one that has (api.rst 5,
// immediate_exit). SIGURG is the signal that Go's runtime uses for itself on
// every thread, so that no handler of ours is needed.
func (c *VCPU) Kick() error {
	setImmediateExit(c.run, true)
	c.moved.Store(true) // after the flag: Run clears the flag only when it sees this
	if err := unix.Tgkill(unix.Getpid(), c.tid, unix.SIGURG); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kick vcpu: %w", err)
	}
	return nil
}

// KVM_EXIT_* (linux/kvm.h).
const (
	kvmExitDebug         = 4
	kvmExitIO            = 2
	kvmExitHLT           = 5
	kvmExitMMIO          = 6
	kvmExitShutdown      = 8
	kvmExitFailEntry     = 9
	kvmExitIntr          = 10
	kvmExitInternalError = 17
	kvmExitSystemEvent   = 24
	kvmExitRDMSR         = 29
	kvmExitWRMSR         = 30
)

func (c *VCPU) decode() x86.Exit {
	switch c.run.exitReason {
	case kvmExitIO:
		e := union[exitIO](c.run)
		n := uint64(e.size) * uint64(e.count)
		return x86.Exit{Reason: x86.ExitIO, Write: e.direction != 0, Size: e.size, Port: e.port,
			Count: e.count, Data: c.page[e.dataOffset : e.dataOffset+n]}
	case kvmExitMMIO:
		e := union[exitMMIO](c.run)
		return x86.Exit{Reason: x86.ExitMMIO, Write: e.isWrite != 0, Size: uint8(e.len), Addr: e.addr,
			Count: 1, Data: e.data[:min(e.len, 8)]}
	case kvmExitInternalError:
		if c.hasSync {
			c.syncCredit = syncRun
		}
		return c.decodeInternalError()
	case kvmExitHLT:
		return x86.Exit{Reason: x86.ExitHLT}
	case kvmExitShutdown:
		return x86.Exit{Reason: x86.ExitShutdown}
	case kvmExitFailEntry:
		return x86.Exit{Reason: x86.ExitFailEntry, Hardware: union[exitFailEntry](c.run).reason}
	case kvmExitSystemEvent:
		return x86.Exit{Reason: x86.ExitSystemEvent, SubError: union[exitSystemEvent](c.run).kind}
	case kvmExitIntr:
		return x86.Exit{Reason: x86.ExitInterrupted}
	case kvmExitDebug:
		e := union[exitDebug](c.run)
		return x86.Exit{Reason: x86.ExitDebug, Exception: e.exception, Addr: e.pc, DR6: e.dr6}
	case kvmExitRDMSR, kvmExitWRMSR:
		return c.decodeMSR()
	}
	return x86.Exit{Reason: x86.ExitUnknown, Hardware: uint64(c.run.exitReason)}
}

func (c *VCPU) decodeMSR() x86.Exit {
	e := union[exitMSR](c.run)
	reason := x86.ExitReadMSR
	if c.run.exitReason == kvmExitWRMSR {
		reason = x86.ExitWriteMSR
	}
	return x86.Exit{Reason: reason, MSR: e.index, MSRData: &e.data, MSRFail: &e.fail}
}

// decodeInternalError finds the instruction bytes of an emulation failure:
// flags in data[0], then a length byte and up to 15 bytes (api.rst 5,
// emulation_failure).
func (c *VCPU) decodeInternalError() x86.Exit {
	e := union[exitInternal](c.run)
	x := x86.Exit{Reason: x86.ExitInternalError, SubError: e.suberror, Internal: e.data[:min(e.ndata, 16)]}
	const hasInstructionBytes = 1 << 0
	if e.suberror == x86.InternalErrorEmulation && e.ndata >= 3 && e.data[0]&hasInstructionBytes != 0 {
		b := bytesOf(&e.data)[8:24]
		x.Instruction = b[1 : 1+min(b[0], 15)]
	}
	return x
}

// Close unmaps the run page and closes the CPU.
func (c *VCPU) Close() error {
	if c.page != nil {
		_ = unix.Munmap(c.page)
		c.page, c.run = nil, nil
	}
	return unix.Close(c.fd)
}
