package share

import (
	"golang.org/x/sys/unix"

	"github.com/hugelgupf/p9/linux"
)

// maxBufs is how many buffers a system call takes (IOV_MAX).
const maxBufs = 1024

// ReadAt implements p9.File.
func (n *node) ReadAt(p []byte, off int64) (int, error) { return n.ReadVec([][]byte{p}, off) }

// WriteAt implements p9.File.
func (n *node) WriteAt(p []byte, off int64) (int, error) { return n.WriteVec([][]byte{p}, off) }

// ReadVec fills bufs, which it cuts, from the file: less is there only at its
// end.
func (n *node) ReadVec(bufs [][]byte, off int64) (int, error) {
	f, err := n.opened()
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, linux.EINVAL
	}
	fd, done := int(f.Fd()), 0
	for bufs = advance(bufs, 0); len(bufs) > 0; {
		k, err := readv(fd, bufs[:min(len(bufs), maxBufs)], off+int64(done))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return done, fail(err)
		case k == 0:
			return done, nil
		}
		done += k
		bufs = advance(bufs, k)
	}
	return done, nil
}

// WriteVec writes bufs to the file, or what it takes of them at once.
func (n *node) WriteVec(bufs [][]byte, off int64) (int, error) {
	f, err := n.opened()
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, linux.EINVAL
	}
	for {
		k, err := writev(int(f.Fd()), bufs[:min(len(bufs), maxBufs)], off)
		if err != unix.EINTR {
			return max(k, 0), fail(err)
		}
	}
}

func readv(fd int, bufs [][]byte, off int64) (int, error) {
	if len(bufs) == 1 {
		return unix.Pread(fd, bufs[0], off)
	}
	return unix.Preadv(fd, bufs, off)
}

func writev(fd int, bufs [][]byte, off int64) (int, error) {
	if len(bufs) == 1 {
		return unix.Pwrite(fd, bufs[0], off)
	}
	return unix.Pwritev(fd, bufs, off)
}

// advance drops the first n bytes of bufs, and buffers without any.
func advance(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

// FSync implements p9.File: data and metadata are durable when it returns.
func (n *node) FSync() error {
	f, err := n.opened()
	if err != nil {
		return err
	}
	return fail(f.Sync())
}
