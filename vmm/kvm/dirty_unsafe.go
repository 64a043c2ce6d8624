//go:build linux && amd64

package kvm

import (
	"math/bits"
	"unsafe"

	gokvm "github.com/bobuhiro11/gokvm/kvm"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// dirtyLog reads and clears the dirty bitmap of one slot (api.rst 4.8).
func dirtyLog(fd int, slot uint32, base, size uint64, d *memory.Dirty) error {
	words := make([]uint64, (size/memory.PageSize+63)/64)
	log := &gokvm.DirtyLog{Slot: slot, BitMap: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(words))))}
	if err := gokvm.GetDirtyLog(uintptr(fd), log); err != nil {
		return err
	}
	for i, w := range words {
		for ; w != 0; w &= w - 1 {
			page := uint64(i)*64 + uint64(bits.TrailingZeros64(w))
			d.Mark(memory.Addr(base+page*memory.PageSize), memory.PageSize)
		}
	}
	return nil
}
