//go:build linux

package memory

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapOver replaces the pages of b, part of an anonymous mapping of this
// package, by pages of f. Unmapping the region later takes these mappings with
// it, for munmap(2) works on addresses. On an error b is as it was.
func mapOver(b []byte, f *os.File, offset int64) error {
	_, err := unix.MmapPtr(int(f.Fd()), offset, unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return err
}
