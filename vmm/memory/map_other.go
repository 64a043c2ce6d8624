//go:build !linux

package memory

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"
)

// mapAnonymous uses the Go heap where there is no mmap that this package
// knows: large slices come page-aligned and zeroed from the system.
func mapAnonymous(size uint64) ([]byte, func() error, error) {
	if size > math.MaxInt {
		return nil, nil, syscall.ENOMEM
	}
	return make([]byte, size), func() error { return nil }, nil
}

// AddFile adds size bytes of f from offset at base. Without a memory mapping
// the contents are read at once; shared writable files are refused.
func (g *Guest) AddFile(base Addr, f *os.File, offset int64, size uint64, shared bool, kind Kind, readOnly bool) error {
	if shared && !readOnly {
		return fmt.Errorf("guest memory: map %q: shared writable files need Linux", f.Name())
	}
	b, unmap, err := mapAnonymous(size)
	if err != nil {
		return err
	}
	if _, err := f.ReadAt(b, offset); err != nil && err != io.EOF {
		return fmt.Errorf("guest memory: read %q: %w", f.Name(), err)
	}
	return g.add(Region{Base: base, Bytes: b, Kind: kind, ReadOnly: readOnly, File: f.Name(), unmap: unmap})
}

// mapOver always fails: MapFile copies.
func mapOver([]byte, *os.File, int64) error { return errors.ErrUnsupported }

// Discard says that the guest does not need the contents of the n bytes at a.
// Both must be multiples of PageSize, inside RAM. The host keeps the memory,
// zeroed.
func (g *Guest) Discard(a Addr, n uint64) error {
	b, err := g.discardable(a, n)
	clear(b)
	return err
}
