//go:build !linux

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
)

// raw is a file, byte for byte, by the means that every system has. There are
// no locks, no direct I/O and no holes; those need Linux.
type raw struct {
	f    *os.File
	info blk.Info
	size int64
}

var _ blk.Store = (*raw)(nil)

const (
	poolWorkers = 16
	rawHasHoles = false // see the one of Linux
)

func openRaw(o Options) (*raw, error) {
	if o.Direct {
		return nil, errors.New("direct I/O needs Linux: leave out direct")
	}
	flags := os.O_RDWR
	if o.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(o.Path, flags, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a file")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &raw{f: f, size: info.Size(), info: blk.Info{
		Size:     (info.Size() + blk.SectorSize - 1) &^ (blk.SectorSize - 1),
		ReadOnly: o.ReadOnly, PhysicalBlock: 4096, ID: o.ID,
	}}, nil
}

func (r *raw) backend(e Engine) (blk.Backend, error) {
	switch e {
	case EngineInline:
		return blk.Inline(r), nil
	case EngineIOURing:
		return nil, errors.Join(errors.New("io_uring needs Linux"), r.Close())
	}
	return blk.Pool(r, poolWorkers), nil
}

// Info implements blk.Store.
func (r *raw) Info() blk.Info { return r.info }

// ReadVec implements blk.Store.
func (r *raw) ReadVec(vec [][]byte, off int64) error {
	for _, b := range vec {
		n, err := r.f.ReadAt(b, off)
		if err == io.EOF && off+int64(n) >= r.size {
			clear(b[n:])
			err = nil
		}
		if err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

// WriteVec implements blk.Store.
func (r *raw) WriteVec(vec [][]byte, off int64, durable bool) error {
	for _, b := range vec {
		if _, err := r.f.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	if durable {
		return r.Flush()
	}
	return nil
}

// Flush implements blk.Store.
func (r *raw) Flush() error {
	if r.info.ReadOnly {
		return nil
	}
	return r.f.Sync()
}

// Discard implements blk.Store: nothing happens.
func (r *raw) Discard(_, _ int64) error { return nil }

// WriteZeroes implements blk.Store.
func (r *raw) WriteZeroes(off, n int64, _, durable bool) error {
	zeros := make([]byte, min(n, 64<<10))
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if err := r.WriteVec([][]byte{zeros[:k]}, off, false); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	if durable {
		return r.Flush()
	}
	return nil
}

// Close implements blk.Store.
func (r *raw) Close() error { return r.f.Close() }

func reflink(path, base string) error {
	return fmt.Errorf("share the blocks of %s with %s: this needs Linux", base, path)
}
