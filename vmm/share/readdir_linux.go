package share

import (
	"bytes"
	"encoding/binary"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"
)

// maxEntries bounds what a directory's listing takes of the VMM's memory.
const maxEntries = 1 << 20

// minEntry is the size of an entry with a name of one byte in an answer.
const minEntry = 13 + 8 + 1 + 2 + 1

// Readdir implements p9.File. The listing is read whole when it begins, and
// positions are numbers in it, so that they stay right while the directory
// changes.
func (n *node) Readdir(offset uint64, count uint32) (p9.Dirents, error) {
	f, err := n.opened()
	if err != nil {
		return nil, err
	}
	if !n.isDir() {
		return nil, linux.ENOTDIR
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if offset == 0 || n.entries == nil {
		if n.entries, err = n.list(int(f.Fd())); err != nil {
			return nil, err
		}
	}
	if offset >= uint64(len(n.entries)) {
		return nil, nil
	}
	rest := n.entries[offset:]
	return rest[:min(len(rest), int(count/minEntry)+1)], nil
}

// list reads a directory from its start.
func (n *node) list(fd int) ([]p9.Dirent, error) {
	var self unix.Stat_t
	if err := unix.Fstat(fd, &self); err != nil {
		return nil, fail(err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return nil, fail(err)
	}
	out := []p9.Dirent{}
	buf := make([]byte, 64<<10)
	for {
		k, err := unix.Getdents(fd, buf)
		if err != nil {
			return nil, fail(err)
		}
		if k <= 0 {
			return out, nil
		}
		for b := buf[:k]; len(b) > 0; {
			var e p9.Dirent
			if e, b = n.parseEntry(b, &self); e.Name == "" {
				continue
			}
			if len(out) == maxEntries {
				return nil, linux.EOVERFLOW
			}
			e.Offset = uint64(len(out) + 1)
			out = append(out, e)
		}
	}
}

// parseEntry takes a struct linux_dirent64: ino u64, off u64, reclen u16, type
// u8, name. A directory's parent is shown as the directory itself: the root's
// is none of the guest's business.
func (n *node) parseEntry(b []byte, self *unix.Stat_t) (e p9.Dirent, rest []byte) {
	const fixed = 19
	ne := binary.NativeEndian
	if len(b) < fixed {
		return e, nil
	}
	size := int(ne.Uint16(b[16:]))
	if size < fixed || size > len(b) {
		return e, nil
	}
	name, _, _ := bytes.Cut(b[fixed:size], []byte{0})
	st := *self
	st.Ino, st.Mode = ne.Uint64(b), uint32(b[18])<<12
	if s := string(name); s == ".." {
		st.Ino = self.Ino
	}
	qid := n.s.qid(&st)
	return p9.Dirent{QID: qid, Type: dirType(b[18]), Name: string(name)}, b[size:]
}

// dirType is the type field of an entry, which Linux guests take for a DT_*
// value.
func dirType(dt byte) p9.QIDType { return p9.QIDType(dt) }
