package memory

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// mapAnonymous reserves size bytes without committing host memory: a guest of
// 6 GiB on a smaller host is the user's choice, and pages come when touched.
func mapAnonymous(size uint64) ([]byte, func() error, error) {
	if size > math.MaxInt {
		return nil, nil, unix.ENOMEM
	}
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, err
	}
	return b, func() error { return unix.Munmap(b) }, nil
}

// AddFile adds size bytes of f from offset (a multiple of PageSize) at base.
// With shared, guest writes reach the file; otherwise they are private to this
// guest (copy-on-write), and pages not written are shared with every other
// guest that maps the same file. f may be closed afterwards.
func (g *Guest) AddFile(base Addr, f *os.File, offset int64, size uint64, shared bool, kind Kind, readOnly bool) error {
	if size == 0 || size%PageSize != 0 || size > math.MaxInt {
		return fmt.Errorf("guest memory: map %q: size %d is not a positive multiple of %d", f.Name(), size, PageSize)
	}
	prot, flags := unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_NORESERVE
	if shared {
		flags = unix.MAP_SHARED
		if readOnly {
			prot = unix.PROT_READ
		}
	}
	b, err := unix.Mmap(int(f.Fd()), offset, int(size), prot, flags)
	if err != nil {
		return fmt.Errorf("guest memory: map %q: %w", f.Name(), err)
	}
	return g.add(Region{Base: base, Bytes: b, Kind: kind, ReadOnly: readOnly, File: f.Name(),
		unmap: func() error { return unix.Munmap(b) }})
}

// Discard gives the host pages of the n bytes at a back: the guest does not
// need their contents (a balloon, free page reporting). Both must be multiples
// of PageSize, inside RAM. What the pages hold afterwards is zero, or what the
// file has that lies under them.
func (g *Guest) Discard(a Addr, n uint64) error {
	b, err := g.discardable(a, n)
	if err != nil || n == 0 {
		return err
	}
	if err := unix.Madvise(b, unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("guest memory: discard %d bytes at %#x: %w", n, uint64(a), err)
	}
	return nil
}
