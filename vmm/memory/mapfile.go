package memory

import (
	"fmt"
	"io"
	"os"
)

// minMapped is the smallest piece of a file worth a mapping: below it, copying
// costs less than the system call and the faults.
const minMapped = 16 * PageSize

// MapFile puts the n bytes of f from offset at a, inside RAM, as if they had
// been copied there. Where the address and the offset agree within a page,
// whole pages are mapped instead, copy-on-write: the host's page cache is then
// the memory of every guest that maps the same file, until it writes. Heads and
// tails of less than a page are copied, and all of it where the system or the
// region's memory allows no mapping.
//
// A mapped file must not be overwritten or truncated in place while the guest
// runs (replacing it by rename is fine): the guest would see the new contents,
// and the VMM would get SIGBUS past a new end. f may be closed afterwards.
func (g *Guest) MapFile(a Addr, f *os.File, offset int64, n uint64) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("guest memory: map %q: %w", f.Name(), err)
	}
	if size := info.Size(); offset < 0 || offset > size || n > uint64(size-offset) {
		return fmt.Errorf("guest memory: map %q: %w: it has %d bytes, not %d at offset %d",
			f.Name(), io.ErrUnexpectedEOF, size, n, offset)
	}
	if n == 0 {
		return nil
	}
	b, err := g.WritableBytes(a, n)
	if err != nil {
		return err
	}
	head := min(n, -uint64(a)%PageSize)
	pages := (n - head) &^ (PageSize - 1)
	if uint64(a)%PageSize != uint64(offset)%PageSize || pages < minMapped || !g.mappable(a) ||
		mapOver(b[head:head+pages], f, offset+int64(head)) != nil {
		return readInto(b, f, offset)
	}
	if err := readInto(b[:head], f, offset); err != nil {
		return err
	}
	return readInto(b[head+pages:], f, offset+int64(head+pages))
}

// mappable says whether the memory at a may be replaced page by page: private
// memory that this package has mapped itself. A region of the caller's may be
// on the Go heap; one backed by a file would lose its tie to it.
func (g *Guest) mappable(a Addr) bool {
	for _, r := range g.Regions() {
		if a >= r.Base && a < r.End() {
			return r.unmap != nil && r.File == "" && !r.ReadOnly
		}
	}
	return false
}

func readInto(b []byte, f *os.File, offset int64) error {
	if len(b) == 0 {
		return nil
	}
	if n, err := f.ReadAt(b, offset); n < len(b) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("guest memory: read %q: %w", f.Name(), err)
	}
	return nil
}
