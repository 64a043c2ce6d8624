package ninep

import (
	"encoding/binary"
	"errors"
	"io"
	"math"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Vectored is a p9.File that moves data between itself and several buffers at
// once, which it may cut. A read that returns less than there is room for has
// met the end of the file. Files without it are read and written buffer by
// buffer.
type Vectored interface {
	ReadVec(bufs [][]byte, off int64) (int, error)
	WriteVec(bufs [][]byte, off int64) (int, error)
}

// way is where the data of a call goes.
type way uint8

const (
	notMoved way = iota // it has none, or is no message of the protocol
	toGuest             // Tread
	toFile              // Twrite
)

// data is what a Tread or Twrite moves: the server has that message without
// count and data, and a number of the call for an offset. So the server finds
// the file by its fid, and checks that it is open for that, as ever; then the
// file, which is ours, moves the data.
type data struct {
	way   way
	off   uint64 // in the file
	bufs  [][]byte
	moved uint32
}

// plan reads a T-message of size bytes that begins with start, and finds the
// parts of guest memory for its data. What is malformed is left to the server.
func (d *data) plan(start *[ioLen]byte, size uint32, c *virtio.Chain, msize uint32) {
	le := binary.LittleEndian
	count := le.Uint32(start[headerLen+countAt:])
	d.way, d.off, d.bufs, d.moved = notMoved, le.Uint64(start[headerLen+offsetAt:]), d.bufs[:0], 0
	switch {
	case size < ioLen:
	case start[4] == typeRead:
		d.way = toGuest
		count = min(count, dataRoom(msize), dataRoom(c.WritableLen()))
		d.bufs = appendRange(d.bufs, c.Writable(), dataLen, count)
	case start[4] == typeWrite && count == size-ioLen:
		d.way = toFile
		d.bufs = appendRange(d.bufs, c.Readable(), ioLen, count)
	}
}

// appendRange appends n bytes of segs to bufs, after the first skip ones.
func appendRange(bufs, segs [][]byte, skip, n uint32) [][]byte {
	for _, s := range segs {
		if uint64(len(s)) <= uint64(skip) {
			skip -= uint32(len(s))
			continue
		}
		s = s[skip:]
		skip = 0
		if uint64(len(s)) > uint64(n) {
			s = s[:n:n]
		}
		if len(s) == 0 {
			break
		}
		bufs = append(bufs, s)
		n -= uint32(len(s))
	}
	return bufs
}

// move moves the data of call head between f and guest memory.
func (s *session) move(f p9.File, head int64, way way) (int, error) {
	d, err := s.beginMove(head, way)
	if err != nil {
		return 0, err
	}
	moved := 0
	defer func() { s.endMove(d, moved) }()
	if d.off > math.MaxInt64 {
		return 0, linux.EINVAL
	}
	moved, err = transfer(f, d.bufs, int64(d.off), way)
	return moved, err
}

// beginMove returns the data of a call whose chain stays ours until endMove.
func (s *session) beginMove(head int64, way way) (*data, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || head < 0 || head >= int64(len(s.calls)) {
		return nil, linux.EIO
	}
	c := &s.calls[head]
	if c.chain == nil || c.data.way != way {
		return nil, linux.EIO
	}
	s.moving++
	return &c.data, nil
}

func (s *session) endMove(d *data, moved int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d.moved = uint32(moved)
	if s.moving--; s.moving == 0 {
		s.idle.Broadcast()
	}
}

func transfer(f p9.File, bufs [][]byte, off int64, way way) (n int, err error) {
	if v, ok := f.(Vectored); ok {
		if way == toGuest {
			return v.ReadVec(bufs, off)
		}
		return v.WriteVec(bufs, off)
	}
	at := f.ReadAt
	if way == toFile {
		at = f.WriteAt
	}
	for _, b := range bufs {
		k, err := at(b, off+int64(n))
		n += k
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil || k < len(b) {
			return n, err
		}
	}
	return n, nil
}

// attacher is the files as the server of a session sees them.
type attacher struct {
	s     *session
	files p9.Attacher
}

// Attach implements p9.Attacher.
func (a attacher) Attach() (p9.File, error) {
	f, err := a.files.Attach()
	return a.s.wrap(f), err
}

// file is a file that the server has: reads and writes are calls of the
// session's.
type file struct {
	p9.File
	s *session
}

func (s *session) wrap(f p9.File) p9.File {
	if f == nil {
		return nil
	}
	return &file{f, s}
}

// unwrap gives a file back to those who made it.
func unwrap(f p9.File) p9.File {
	if w, ok := f.(*file); ok {
		return w.File
	}
	return f
}

// ReadAt implements p9.File. Nothing is read to the server's buffer.
func (f *file) ReadAt(_ []byte, head int64) (int, error) {
	_, err := f.s.move(f.File, head, toGuest)
	return 0, err
}

// WriteAt implements p9.File.
func (f *file) WriteAt(_ []byte, head int64) (int, error) {
	return f.s.move(f.File, head, toFile)
}

// Walk implements p9.File.
func (f *file) Walk(names []string) ([]p9.QID, p9.File, error) {
	qids, to, err := f.File.Walk(names)
	return qids, f.s.wrap(to), err
}

// WalkGetAttr implements p9.File.
func (f *file) WalkGetAttr(names []string) ([]p9.QID, p9.File, p9.AttrMask, p9.Attr, error) {
	qids, to, mask, attr, err := f.File.WalkGetAttr(names)
	return qids, f.s.wrap(to), mask, attr, err
}

// Create implements p9.File.
func (f *file) Create(name string, flags p9.OpenFlags, perm p9.FileMode, uid p9.UID, gid p9.GID) (p9.File, p9.QID, uint32, error) {
	made, qid, unit, err := f.File.Create(name, flags, perm, uid, gid)
	return f.s.wrap(made), qid, unit, err
}

// Link implements p9.File.
func (f *file) Link(target p9.File, name string) error { return f.File.Link(unwrap(target), name) }

// Rename implements p9.File.
func (f *file) Rename(dir p9.File, name string) error { return f.File.Rename(unwrap(dir), name) }

// RenameAt implements p9.File.
func (f *file) RenameAt(name string, dir p9.File, newName string) error {
	return f.File.RenameAt(name, unwrap(dir), newName)
}

// Renamed implements p9.File.
func (f *file) Renamed(dir p9.File, name string) { f.File.Renamed(unwrap(dir), name) }
