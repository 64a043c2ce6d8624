package memory

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// The rings of a virtqueue and the words of a descriptor table are shared with
// vCPUs that run at the same time, so their indices are loaded and stored with
// the CPU's own atomicity and ordering (virtio 1.2 §2.7.13). Values are
// little-endian.

// LoadUint16 loads the aligned 16-bit value at a with acquire ordering. Go has
// no 16-bit atomics: the aligned 32-bit word around it is loaded, which stays
// inside the same page.
func (g *Guest) LoadUint16(a Addr) (uint16, error) {
	b, err := g.Bytes(a&^3, 4)
	if err != nil || a&1 != 0 {
		return 0, &RangeError{a, 2}
	}
	w := le32(atomic.LoadUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(b)))))
	return uint16(w >> (8 * uint(a&2))), nil
}

// StoreUint16 stores v at the aligned address a with release ordering and
// leaves its neighbour in the 32-bit word as it is, also when the guest
// changes that at the same time.
func (g *Guest) StoreUint16(a Addr, v uint16) error {
	b, err := g.WritableBytes(a&^3, 4)
	if err != nil || a&1 != 0 {
		return &RangeError{a, 2}
	}
	p, shift := (*uint32)(unsafe.Pointer(unsafe.SliceData(b))), 8*uint(a&2)
	for {
		old := atomic.LoadUint32(p)
		w := le32(old)&^(0xffff<<shift) | uint32(v)<<shift
		if atomic.CompareAndSwapUint32(p, old, le32(w)) {
			return nil
		}
	}
}

// LoadUint32 loads the aligned 32-bit value at a with acquire ordering.
func (g *Guest) LoadUint32(a Addr) (uint32, error) {
	b, err := g.Bytes(a, 4)
	if err != nil || a&3 != 0 {
		return 0, &RangeError{a, 4}
	}
	return le32(atomic.LoadUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(b))))), nil
}

// StoreUint32 stores v at the aligned address a with release ordering.
func (g *Guest) StoreUint32(a Addr, v uint32) error {
	b, err := g.WritableBytes(a, 4)
	if err != nil || a&3 != 0 {
		return &RangeError{a, 4}
	}
	atomic.StoreUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(b))), le32(v))
	return nil
}

// LoadUint64 loads the aligned 64-bit value at a with acquire ordering.
func (g *Guest) LoadUint64(a Addr) (uint64, error) {
	b, err := g.Bytes(a, 8)
	if err != nil || a&7 != 0 {
		return 0, &RangeError{a, 8}
	}
	return le64(atomic.LoadUint64((*uint64)(unsafe.Pointer(unsafe.SliceData(b))))), nil
}

// CompareAndSwapUint64 is an atomic compare-and-swap of the aligned 64-bit
// value at a; the page walker sets accessed and dirty bits with it.
func (g *Guest) CompareAndSwapUint64(a Addr, old, new uint64) (swapped bool, err error) {
	b, err := g.WritableBytes(a, 8)
	if err != nil || a&7 != 0 {
		return false, &RangeError{a, 8}
	}
	return atomic.CompareAndSwapUint64((*uint64)(unsafe.Pointer(unsafe.SliceData(b))), le64(old), le64(new)), nil
}

// le32 and le64 convert between host and little-endian order: nothing on the
// machines that Vitrine is built for, but right on any.
func le32(v uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	return binary.NativeEndian.Uint32(b[:])
}

func le64(v uint64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	return binary.NativeEndian.Uint64(b[:])
}
