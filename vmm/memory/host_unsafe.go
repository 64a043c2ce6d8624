package memory

import (
	"sync/atomic"
	"unsafe"
)

// HostAddr is the address of b in this process, as system calls and alignment
// checks want it. b must not be empty, and must be used afterwards, or lie
// outside Go's heap: a number does not keep memory alive.
func HostAddr(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// Word returns the 32-bit word at off in b, which the kernel or another
// process changes at the same time. b is a mapping; off must be a multiple of
// 4 inside it, otherwise Word panics.
func Word(b []byte, off uint32) *atomic.Uint32 {
	w := b[off : off+4 : off+4]
	if HostAddr(w)%4 != 0 {
		panic("memory: word is not aligned")
	}
	return (*atomic.Uint32)(unsafe.Pointer(unsafe.SliceData(w)))
}
