package share

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"
)

// maxNodes bounds the descriptors that a guest can hold, which the whole VMM
// shares.
const maxNodes = 1 << 15

// Share is a folder that is shown. It is a p9.Attacher.
type Share struct {
	dir      string
	root     int // O_PATH
	readOnly bool
	limit    int64
	nodes    atomic.Int64

	mu      sync.Mutex
	devices map[uint64]uint64 // file systems seen below the folder, numbered
}

var _ p9.Attacher = (*Share)(nil)

// Open shows the folder dir.
func Open(dir string, readOnly bool) (*Share, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("share %s: %w", dir, err)
	}
	s := &Share{dir: dir, root: fd, readOnly: readOnly, limit: maxNodes, devices: make(map[uint64]uint64)}
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
		// Each node has up to two descriptors; a half is left to the rest.
		s.limit = min(s.limit, int64(r.Cur/4))
	}
	return s, nil
}

// Close releases the folder. No file of it may be in use.
func (s *Share) Close() error { return unix.Close(s.root) }

// ReadOnly says whether the guest may only read.
func (s *Share) ReadOnly() bool { return s.readOnly }

// Attach implements p9.Attacher.
func (s *Share) Attach() (p9.File, error) {
	fd, err := unix.FcntlInt(uintptr(s.root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fail(err)
	}
	return s.newNode(fd)
}

// node is a file, directory or symbolic link of the share: one fid.
type node struct {
	p9.DefaultWalkGetAttr
	s    *Share
	fd   int // O_PATH, or that of file
	mode uint32

	mu      sync.Mutex
	file    *os.File // when opened
	entries []p9.Dirent
	closed  bool
}

var _ p9.File = (*node)(nil)

// newNode takes fd over.
func (s *Share) newNode(fd int) (*node, error) {
	if s.nodes.Add(1) > s.limit {
		s.nodes.Add(-1)
		_ = unix.Close(fd)
		return nil, linux.ENFILE
	}
	n := &node{s: s, fd: fd}
	st, err := n.stat()
	if err != nil {
		_ = n.Close()
		return nil, err
	}
	n.mode = st.Mode
	return n, nil
}

// fail makes the protocol's error of a system call's.
func fail(err error) error {
	var e unix.Errno
	if errors.As(err, &e) {
		return linux.Errno(e)
	}
	return err
}

// checkName refuses what is not the name of one entry. The server has checked
// it already; the promise of the package rests on it.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return linux.EINVAL
	}
	return nil
}

func (n *node) kind() uint32 { return n.mode & unix.S_IFMT }

func (n *node) isDir() bool { return n.kind() == unix.S_IFDIR }

// path is a name of the node itself for system calls that want one: the kernel
// goes from it straight to the node, whatever its name is now. Only what is
// not a symbolic link is reached so.
func (n *node) path() string { return fmt.Sprintf("/proc/self/fd/%d", n.fd) }

func (n *node) stat() (st unix.Stat_t, err error) {
	return st, fail(unix.Fstat(n.fd, &st))
}

// change refuses what a read-only share does not allow.
func (s *Share) change() error {
	if s.readOnly {
		return linux.EROFS
	}
	return nil
}

// enter checks what every operation on an entry of a directory needs.
func (n *node) enter(names ...string) error {
	if !n.isDir() {
		return linux.ENOTDIR
	}
	for _, name := range names {
		if err := checkName(name); err != nil {
			return err
		}
	}
	return nil
}

// qid names a file for the guest: its inode number, and above it the number of
// its file system among those seen.
func (s *Share) qid(st *unix.Stat_t) p9.QID {
	s.mu.Lock()
	i, ok := s.devices[st.Dev]
	if !ok {
		i = uint64(len(s.devices))
		s.devices[st.Dev] = i
	}
	s.mu.Unlock()
	return p9.QID{
		Type:    p9.FileMode(st.Mode).QIDType(),
		Version: uint32(st.Mtim.Nsec) ^ uint32(st.Mtim.Sec)<<8 ^ uint32(st.Size),
		Path:    st.Ino ^ i<<48,
	}
}

func (n *node) ownQID() (p9.QID, error) {
	st, err := n.stat()
	if err != nil {
		return p9.QID{}, err
	}
	return n.s.qid(&st), nil
}

// Walk implements p9.File.
func (n *node) Walk(names []string) ([]p9.QID, p9.File, error) {
	fd, err := unix.FcntlInt(uintptr(n.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fail(err)
	}
	at, err := n.s.newNode(fd)
	if err != nil {
		return nil, nil, err
	}
	var qids []p9.QID
	for _, name := range names {
		next, err := at.child(name)
		_ = at.Close()
		if err != nil {
			return nil, nil, err
		}
		at = next
		qid, err := at.ownQID()
		if err != nil {
			_ = at.Close()
			return nil, nil, err
		}
		qids = append(qids, qid)
	}
	return qids, at, nil
}

// child finds an entry of a directory. One name, and O_NOFOLLOW: the result is
// what that directory holds and nothing that it points to.
func (n *node) child(name string) (*node, error) {
	if err := n.enter(name); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(n.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fail(err)
	}
	return n.s.newNode(fd)
}

// GetAttr implements p9.File.
func (n *node) GetAttr(p9.AttrMask) (p9.QID, p9.AttrMask, p9.Attr, error) {
	st, err := n.stat()
	if err != nil {
		return p9.QID{}, p9.AttrMask{}, p9.Attr{}, err
	}
	valid := p9.AttrMask{Mode: true, NLink: true, UID: true, GID: true, RDev: true, ATime: true,
		MTime: true, CTime: true, INo: true, Size: true, Blocks: true}
	return n.s.qid(&st), valid, p9.Attr{
		Mode: p9.FileMode(st.Mode), UID: p9.UID(st.Uid), GID: p9.GID(st.Gid), NLink: p9.NLink(st.Nlink),
		RDev: p9.Dev(st.Rdev), Size: uint64(st.Size), BlockSize: uint64(st.Blksize), Blocks: uint64(st.Blocks),
		ATimeSeconds: uint64(st.Atim.Sec), ATimeNanoSeconds: uint64(st.Atim.Nsec),
		MTimeSeconds: uint64(st.Mtim.Sec), MTimeNanoSeconds: uint64(st.Mtim.Nsec),
		CTimeSeconds: uint64(st.Ctim.Sec), CTimeNanoSeconds: uint64(st.Ctim.Nsec),
	}, nil
}

// StatFS implements p9.File.
func (n *node) StatFS() (p9.FSStat, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(n.fd, &st); err != nil {
		return p9.FSStat{}, fail(err)
	}
	return p9.FSStat{
		Type:      0x01021997, // V9FS_MAGIC
		BlockSize: uint32(st.Bsize), Blocks: st.Blocks, BlocksFree: st.Bfree, BlocksAvailable: st.Bavail,
		Files: st.Files, FilesFree: st.Ffree, NameLength: uint32(st.Namelen),
	}, nil
}

// Close implements p9.File.
func (n *node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	n.s.nodes.Add(-1)
	var err error
	if n.file != nil {
		err = n.file.Close()
	}
	if n.fd >= 0 && (n.file == nil || !n.shared()) {
		err = errors.Join(err, unix.Close(n.fd))
	}
	n.fd = -1
	return err
}

// shared says that fd is file's.
func (n *node) shared() bool { return n.mode&createdHere != 0 }

// createdHere marks in mode a node that Create made: it has one descriptor.
const createdHere = 1 << 31

// Readlink implements p9.File.
func (n *node) Readlink() (string, error) {
	if n.kind() != unix.S_IFLNK {
		return "", linux.EINVAL
	}
	b := make([]byte, unix.PathMax)
	k, err := unix.Readlinkat(n.fd, "", b)
	if err != nil {
		return "", fail(err)
	}
	return string(b[:k]), nil
}

// Renamed implements p9.File. Descriptors do not care about names.
func (n *node) Renamed(p9.File, string) {}

// Rename implements p9.File; the server uses RenameAt.
func (n *node) Rename(p9.File, string) error { return linux.ENOSYS }

// SetXattr implements p9.File: there are no extended attributes.
func (n *node) SetXattr(string, []byte, p9.XattrFlags) error { return linux.EOPNOTSUPP }

// GetXattr implements p9.File.
func (n *node) GetXattr(string) ([]byte, error) { return nil, linux.EOPNOTSUPP }

// ListXattrs implements p9.File.
func (n *node) ListXattrs() ([]string, error) { return nil, linux.EOPNOTSUPP }

// RemoveXattr implements p9.File.
func (n *node) RemoveXattr(string) error { return linux.EOPNOTSUPP }

var errNotOpen = linux.EBADF

// opened returns the open file.
func (n *node) opened() (*os.File, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil || n.closed {
		return nil, errNotOpen
	}
	return n.file, nil
}
