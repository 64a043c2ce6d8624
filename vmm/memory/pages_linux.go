package memory

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// mapPages is mapAnonymous with huge pages. Reserved ones are taken at once:
// a guest must not die because others took them later.
func mapPages(size uint64, pages Pages) ([]byte, func() error, error) {
	if size > math.MaxInt {
		return nil, nil, unix.ENOMEM
	}
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	if pages == Huge2M {
		flags = unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_HUGETLB | 21<<unix.MAP_HUGE_SHIFT
	}
	b, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, flags)
	if pages == Huge2M && errors.Is(err, unix.ENOMEM) {
		return nil, nil, fmt.Errorf("%w: reserve huge pages first: sysctl vm.nr_hugepages=%d", err, size/hugePage)
	}
	if err != nil {
		return nil, nil, err
	}
	unmap := func() error { return unix.Munmap(b) }
	if pages == Transparent {
		if err := unix.Madvise(b, unix.MADV_HUGEPAGE); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("%w: this host has no transparent huge pages", err), unmap())
		}
	}
	return b, unmap, nil
}
