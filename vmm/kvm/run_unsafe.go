//go:build linux && amd64

package kvm

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// runPage is the start of struct kvm_run, which KVM shares with the VMM.
type runPage struct {
	requestInterruptWindow uint8
	immediateExit          uint8
	_                      [6]uint8
	exitReason             uint32
	readyForInterrupt      uint8
	ifFlag                 uint8
	flags                  uint16
	cr8                    uint64
	apicBase               uint64
	exit                   [256]byte // the union, by exitReason
	validRegs              uint64
	dirtyRegs              uint64
	sync                   syncRegs
}

// syncRegs is struct kvm_sync_regs of x86.
type syncRegs struct {
	regs   x86.Regs
	sregs  x86.Sregs
	events x86.Events
}

// Bits of validRegs and dirtyRegs (KVM_SYNC_X86_*).
const (
	syncRegsBit   = 1 << 0
	syncSregsBit  = 1 << 1
	syncEventsBit = 1 << 2
	syncAll       = syncRegsBit | syncSregsBit | syncEventsBit
)

// Views of the union. Offsets are from linux/kvm.h; all fields of a view are
// naturally aligned, so Go lays them out as C does.
type (
	exitIO struct {
		direction, size uint8
		port            uint16
		count           uint32
		dataOffset      uint64
	}
	exitMMIO struct {
		addr    uint64
		data    [8]byte
		len     uint32
		isWrite uint8
	}
	exitInternal struct {
		suberror, ndata uint32
		data            [16]uint64
	}
	exitFailEntry struct {
		reason uint64
		_      uint32 // the host's CPU
	}
	exitSystemEvent struct {
		kind uint32
		_    uint32
		_    [16]uint64
	}
	exitDebug struct {
		exception, _ uint32
		pc, dr6, _   uint64
	}
	exitMSR struct {
		fail  uint8
		_     [7]uint8
		_     uint32 // why: only filtered accesses get here
		index uint32
		data  uint64
	}
)

func mapRunPage(fd, size int) ([]byte, *runPage, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return b, (*runPage)(unsafe.Pointer(unsafe.SliceData(b))), nil
}

// union views the exit union as T.
func union[T any](p *runPage) *T { return (*T)(unsafe.Pointer(&p.exit)) }

// setImmediateExit may be called from any goroutine, while KVM reads the byte:
// it goes through the aligned word around it.
func setImmediateExit(p *runPage, on bool) {
	w := (*uint32)(unsafe.Pointer(p))
	const bit = 1 << 8 // byte 1 of the page
	if on {
		atomic.OrUint32(w, bit)
	} else {
		atomic.AndUint32(w, ^uint32(bit))
	}
}

// enter is KVM_RUN.
func enter(fd int) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioRun, 0)
	return errno
}
