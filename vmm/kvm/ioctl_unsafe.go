//go:build linux && amd64

package kvm

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Request numbers that gokvm lacks (include/uapi/linux/kvm.h).
const (
	ioSetIdentityMapAddr = 0x4008ae48
	ioGetSupportedCPUID  = 0xc008ae05
	ioGetCPUID2          = 0xc008ae91
	ioSetCPUID2          = 0x4008ae90
	ioGetMSRIndexList    = 0xc004ae02
	ioGetMSRs            = 0xc008ae88
	ioSetMSRs            = 0x4008ae89
	ioSetGSIRouting      = 0x4008ae6a
	ioIRQFD              = 0x4020ae76
	ioIOEventFD          = 0x4040ae79
	ioGetVCPUEvents      = 0x8040ae9f
	ioSetVCPUEvents      = 0x4040aea0
	ioGetXSAVE2          = 0x9000aecf
	ioGetXSAVE           = 0x9000aea4
	ioSetXSAVE           = 0x5000aea5
	ioGetXCRS            = 0x8188aea6
	ioSetXCRS            = 0x4188aea7
	ioEnableCap          = 0x4068aea3
	ioSetGuestDebug      = 0x4048ae9b
	ioNMI                = 0xae9a
	ioKVMClockCtrl       = 0xaead
	ioSetMSRFilter       = 0x4188aec6
	ioRun                = 0xae80
)

// ioctlPtr issues an ioctl whose argument is *arg. The conversion to uintptr
// stands in the argument list of the system call, as package unsafe asks.
func ioctlPtr[T any](fd int, req uintptr, arg *T) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return 0, os.NewSyscallError("ioctl", errno)
	}
	return int(r), nil
}

// ioctlBytes is ioctlPtr for a structure with a variable tail, laid out in b.
func ioctlBytes(fd int, req uintptr, b []byte) (int, error) {
	return ioctlPtr(fd, req, unsafe.SliceData(b))
}

// reinterpret views a value as another type of the same size and layout: the
// structures of vmm/x86 and gokvm both mirror linux/kvm.h.
func reinterpret[To, From any](v *From) *To {
	var to To
	if unsafe.Sizeof(to) != unsafe.Sizeof(*v) {
		panic("kvm: layouts differ")
	}
	return (*To)(unsafe.Pointer(v))
}

// bytesOf views a value as its bytes.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// hostAddress is where a slice lies in this process, for a memory slot.
func hostAddress(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }
