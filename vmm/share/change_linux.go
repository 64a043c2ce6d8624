package share

import (
	"os"

	"github.com/hugelgupf/p9/linux"
	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"
)

// openKept are the flags of the guest's open(2) that have a meaning for us. It
// follows links, keeps positions and signals itself.
const openKept = unix.O_ACCMODE | unix.O_TRUNC | unix.O_APPEND | unix.O_DSYNC | unix.O_SYNC

// openFlags makes flags for the host of a guest's. Opening never waits, and
// never makes a terminal ours.
func (s *Share) openFlags(f p9.OpenFlags) (int, error) {
	flags := int(f)&openKept | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY
	if flags&unix.O_ACCMODE == unix.O_ACCMODE {
		return 0, linux.EINVAL
	}
	if flags&(unix.O_ACCMODE|unix.O_TRUNC) != 0 {
		return flags, s.change()
	}
	return flags, nil
}

// Open implements p9.File: files and directories can be opened. Pipes, sockets
// and devices are handled by the guest itself, and would be the host's here.
func (n *node) Open(mode p9.OpenFlags) (p9.QID, uint32, error) {
	flags, err := n.s.openFlags(mode)
	if err != nil {
		return p9.QID{}, 0, err
	}
	switch n.kind() {
	case unix.S_IFDIR:
		flags |= unix.O_DIRECTORY
	case unix.S_IFREG:
	default:
		return p9.QID{}, 0, linux.EPERM
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil || n.closed {
		return p9.QID{}, 0, linux.EBADF
	}
	fd, err := unix.Open(n.path(), flags, 0)
	if err != nil {
		return p9.QID{}, 0, fail(err)
	}
	n.file = os.NewFile(uintptr(fd), "share")
	qid, err := n.ownQID()
	return qid, 0, err
}

// Create implements p9.File. A file that is there already is opened, if that
// is what the guest asked for, and it is a file.
func (n *node) Create(name string, mode p9.OpenFlags, perm p9.FileMode, _ p9.UID, _ p9.GID) (p9.File, p9.QID, uint32, error) {
	if err := n.begin(name); err != nil {
		return nil, p9.QID{}, 0, err
	}
	flags, err := n.s.openFlags(mode)
	if err != nil {
		return nil, p9.QID{}, 0, err
	}
	fd, err := unix.Openat(n.fd, name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, uint32(perm)&filePerm)
	if err == unix.EEXIST && mode&unix.O_EXCL == 0 {
		return n.openExisting(name, mode)
	}
	if err != nil {
		return nil, p9.QID{}, 0, fail(err)
	}
	c, err := n.s.newNode(fd)
	if err != nil {
		return nil, p9.QID{}, 0, err
	}
	c.file = os.NewFile(uintptr(fd), "share")
	c.mode |= createdHere
	qid, err := c.ownQID()
	if err != nil {
		_ = c.Close()
		return nil, p9.QID{}, 0, err
	}
	return c, qid, 0, nil
}

func (n *node) openExisting(name string, mode p9.OpenFlags) (p9.File, p9.QID, uint32, error) {
	c, err := n.child(name)
	if err != nil {
		return nil, p9.QID{}, 0, err
	}
	qid, unit, err := c.Open(mode)
	if err == nil && c.kind() != unix.S_IFREG {
		err = linux.EISDIR
	}
	if err != nil {
		_ = c.Close()
		return nil, p9.QID{}, 0, err
	}
	return c, qid, unit, nil
}

// Permissions that a guest can give: no setuid or setgid programs. On
// directories these bits only pass groups on.
const (
	filePerm = 0o1777
	dirPerm  = 0o3777
)

// begin is what all operations do first that change entries of a directory.
func (n *node) begin(names ...string) error {
	if err := n.s.change(); err != nil {
		return err
	}
	return n.enter(names...)
}

// entryQID is the QID of an entry that was just made.
func (n *node) entryQID(name string) (p9.QID, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(n.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return p9.QID{}, fail(err)
	}
	return n.s.qid(&st), nil
}

// Mkdir implements p9.File.
func (n *node) Mkdir(name string, perm p9.FileMode, _ p9.UID, _ p9.GID) (p9.QID, error) {
	if err := n.begin(name); err != nil {
		return p9.QID{}, err
	}
	if err := unix.Mkdirat(n.fd, name, uint32(perm)&dirPerm); err != nil {
		return p9.QID{}, fail(err)
	}
	return n.entryQID(name)
}

// Symlink implements p9.File. What it points to is nobody's business here: it
// is never followed.
func (n *node) Symlink(target, name string, _ p9.UID, _ p9.GID) (p9.QID, error) {
	if err := n.begin(name); err != nil {
		return p9.QID{}, err
	}
	if err := unix.Symlinkat(target, n.fd, name); err != nil {
		return p9.QID{}, fail(err)
	}
	return n.entryQID(name)
}

// Link implements p9.File.
func (n *node) Link(target p9.File, name string) error {
	if err := n.begin(name); err != nil {
		return err
	}
	t, ok := target.(*node)
	if !ok || t.s != n.s {
		return linux.EXDEV
	}
	if t.isDir() || t.kind() == unix.S_IFLNK {
		return linux.EPERM
	}
	return fail(unix.Linkat(unix.AT_FDCWD, t.path(), n.fd, name, unix.AT_SYMLINK_FOLLOW))
}

// Mknod implements p9.File: files, pipes and sockets, but no devices, which
// would be the host's.
func (n *node) Mknod(name string, mode p9.FileMode, _, _ uint32, _ p9.UID, _ p9.GID) (p9.QID, error) {
	if err := n.begin(name); err != nil {
		return p9.QID{}, err
	}
	switch uint32(mode) & unix.S_IFMT {
	case 0, unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return p9.QID{}, linux.EPERM
	}
	if err := unix.Mknodat(n.fd, name, uint32(mode)&(unix.S_IFMT|filePerm), 0); err != nil {
		return p9.QID{}, fail(err)
	}
	return n.entryQID(name)
}

// RenameAt implements p9.File.
func (n *node) RenameAt(oldName string, newDir p9.File, newName string) error {
	if err := n.begin(oldName); err != nil {
		return err
	}
	to, ok := newDir.(*node)
	if !ok || to.s != n.s {
		return linux.EXDEV
	}
	if err := to.enter(newName); err != nil {
		return err
	}
	return fail(unix.Renameat(n.fd, oldName, to.fd, newName))
}

// UnlinkAt implements p9.File.
func (n *node) UnlinkAt(name string, flags uint32) error {
	if err := n.begin(name); err != nil {
		return err
	}
	if flags&^unix.AT_REMOVEDIR != 0 {
		return linux.EINVAL
	}
	return fail(unix.Unlinkat(n.fd, name, int(flags)))
}

// SetAttr implements p9.File.
func (n *node) SetAttr(valid p9.SetAttrMask, a p9.SetAttr) error {
	if err := n.s.change(); err != nil {
		return err
	}
	if valid.UID || valid.GID {
		if err := n.setOwner(valid, a); err != nil {
			return err
		}
	}
	if valid.Permissions {
		if err := n.setMode(uint32(a.Permissions)); err != nil {
			return err
		}
	}
	if valid.Size {
		if err := n.setSize(a.Size); err != nil {
			return err
		}
	}
	if valid.ATime || valid.MTime {
		return n.setTimes(valid, a)
	}
	return nil
}

func (n *node) setOwner(valid p9.SetAttrMask, a p9.SetAttr) error {
	uid, gid := -1, -1
	if valid.UID {
		uid = int(int32(a.UID))
	}
	if valid.GID {
		gid = int(int32(a.GID))
	}
	return fail(unix.Fchownat(n.fd, "", uid, gid, unix.AT_EMPTY_PATH))
}

func (n *node) setMode(perm uint32) error {
	switch n.kind() {
	case unix.S_IFLNK:
		return linux.EOPNOTSUPP
	case unix.S_IFDIR:
		perm &= dirPerm
	default:
		perm &= filePerm
	}
	return fail(unix.Chmod(n.path(), perm))
}

func (n *node) setSize(size uint64) error {
	if n.kind() != unix.S_IFREG || size > 1<<63-1 {
		return linux.EINVAL
	}
	if f, err := n.opened(); err == nil {
		if err := unix.Ftruncate(int(f.Fd()), int64(size)); err != unix.EINVAL && err != unix.EBADF {
			return fail(err) // otherwise the file is open for reading only
		}
	}
	return fail(unix.Truncate(n.path(), int64(size)))
}

// setTimes sets times to what the guest says, or to now.
func (n *node) setTimes(valid p9.SetAttrMask, a p9.SetAttr) error {
	if n.kind() == unix.S_IFLNK {
		return linux.EOPNOTSUPP
	}
	pick := func(set, given bool, sec, nsec uint64) unix.Timespec {
		switch {
		case !set:
			return unix.Timespec{Nsec: unix.UTIME_OMIT}
		case !given:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		}
		return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
	}
	ts := []unix.Timespec{
		pick(valid.ATime, valid.ATimeNotSystemTime, a.ATimeSeconds, a.ATimeNanoSeconds),
		pick(valid.MTime, valid.MTimeNotSystemTime, a.MTimeSeconds, a.MTimeNanoSeconds),
	}
	return fail(unix.UtimesNanoAt(unix.AT_FDCWD, n.path(), ts, 0))
}

// Lock implements p9.File with locks of the open file, which exclude other fids
// and the host's programs. It never waits: a guest that wants to asks again.
func (n *node) Lock(_ int, kind p9.LockType, _ p9.LockFlags, start, length uint64, _ string) (p9.LockStatus, error) {
	f, err := n.opened()
	if err != nil {
		return p9.LockStatusError, err
	}
	types := map[p9.LockType]int16{p9.ReadLock: unix.F_RDLCK, p9.WriteLock: unix.F_WRLCK, p9.Unlock: unix.F_UNLCK}
	t, ok := types[kind]
	if !ok || start > 1<<63-1 || length > 1<<63-1 {
		return p9.LockStatusError, linux.EINVAL
	}
	l := unix.Flock_t{Type: t, Start: int64(start), Len: int64(length)}
	switch err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err {
	case nil:
		return p9.LockStatusOK, nil
	case unix.EAGAIN, unix.EACCES:
		return p9.LockStatusBlocked, nil
	default:
		return p9.LockStatusError, fail(err)
	}
}
