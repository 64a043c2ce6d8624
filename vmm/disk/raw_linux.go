package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

const (
	poolWorkers = 16 // a file's own parallelism ends earlier

	rawHasHoles = true // discard and write-zeroes are offered

	// Modes of fallocate(2).
	punchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	zeroRange = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
)

// raw is a file or block device, byte for byte.
type raw struct {
	f    *os.File
	fd   int
	lock *os.File // the same file, opened once more; see lock
	info blk.Info
	size int64 // of the file: what lies behind it in the last sector is zero

	// With O_DIRECT: what offset and length, and addresses, must be
	// multiples of, and the same file through the page cache, for requests
	// that are not. The kernel keeps the two coherent.
	offAlign, memAlign int64
	buffered           *os.File

	// nonBlocking says that the file system tries before it waits
	// (RWF_NOWAIT), without which io_uring hands every request to a thread.
	nonBlocking bool
	inMemory    bool // nothing to wait for

	// lost is the first failure of a flush. The kernel reports pages that it
	// could not write once and then takes them for clean, so a later flush
	// must not succeed.
	lost atomic.Pointer[error]
}

var _ blk.NonWaiting = (*raw)(nil)

func openRaw(o Options) (_ *raw, err error) {
	r := &raw{}
	if r.lock, err = openFile(o.Path, o.ReadOnly, false); err != nil {
		return nil, err
	}
	if err := r.open(o); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

func (r *raw) open(o Options) (err error) {
	// Before the lock: who locks /dev/null locks it for everybody.
	if err := checkKind(r.lock); err != nil {
		return err
	}
	if err := lock(r.lock, !o.ReadOnly); err != nil {
		return err
	}
	if r.f, err = openFile(o.Path, o.ReadOnly, o.Direct); err != nil {
		return err
	}
	r.fd = int(r.f.Fd())
	if err := sameFile(r.lock, r.f); err != nil {
		return err
	}
	return r.prepare(o)
}

func checkKind(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if kind := info.Mode().Type(); kind != 0 && kind != os.ModeDevice {
		return errors.New("neither a file nor a block device")
	}
	return nil
}

// openFile opens path for a disk: no symbolic magic, only flags, and errors
// without the path, which the caller names.
func openFile(path string, readOnly, direct bool) (*os.File, error) {
	flags := os.O_RDWR
	if readOnly {
		flags = os.O_RDONLY
	}
	if direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(path, flags, 0)
	if err == nil {
		return f, nil
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	switch {
	case direct && errors.Is(err, unix.EINVAL):
		return nil, errors.New("its file system has no direct I/O: leave out direct")
	case !readOnly && (errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS)):
		return nil, fmt.Errorf("open for writing: %w: add ro, or change the file's permissions", err)
	}
	return nil, fmt.Errorf("open: %w", err)
}

func (r *raw) prepare(o Options) error {
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	r.info = blk.Info{ReadOnly: o.ReadOnly, Discard: !o.ReadOnly, WriteZeroes: !o.ReadOnly,
		BlockSize: blk.SectorSize, PhysicalBlock: 4096, ID: o.ID}
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		r.size = st.Size
	case unix.S_IFBLK:
		err = r.prepareBlockDevice()
	default:
		err = errors.New("neither a file nor a block device")
	}
	if err != nil {
		return err
	}
	if r.size > 1<<62 {
		return fmt.Errorf("%d bytes are too many", r.size)
	}
	// A file that ends inside a sector is read as if zeros followed; writing
	// to that sector makes the file longer.
	r.info.Size = (r.size + blk.SectorSize - 1) &^ (blk.SectorSize - 1)
	r.learnFileSystem()
	if o.Direct {
		return r.prepareDirect(o)
	}
	return nil
}

func (r *raw) prepareBlockDevice() (err error) {
	if r.size, err = r.f.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("size: %w", err)
	}
	if n, err := unix.IoctlGetInt(r.fd, unix.BLKSSZGET); err == nil && n >= blk.SectorSize {
		r.info.BlockSize = n
	}
	if n, err := unix.IoctlGetInt(r.fd, unix.BLKPBSZGET); err == nil && n >= r.info.BlockSize {
		r.info.PhysicalBlock = n
	}
	return nil
}

// learnFileSystem finds out by trying how reads of the file behave.
func (r *raw) learnFileSystem() {
	var fs unix.Statfs_t
	if unix.Fstatfs(r.fd, &fs) == nil {
		r.inMemory = fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC
	}
	b, err := unix.Mmap(-1, 0, memory.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return
	}
	defer func() { _ = unix.Munmap(b) }()
	_, err = unix.Preadv2(r.fd, [][]byte{b}, 0, unix.RWF_NOWAIT)
	r.nonBlocking = err == nil || errors.Is(err, unix.EAGAIN)
}

// prepareDirect learns what O_DIRECT wants here (statx(2), STATX_DIOALIGN).
func (r *raw) prepareDirect(o Options) (err error) {
	r.offAlign, r.memAlign = memory.PageSize, memory.PageSize
	var st unix.Statx_t
	if unix.Statx(r.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st) == nil && st.Mask&unix.STATX_DIOALIGN != 0 {
		if st.Dio_offset_align == 0 && !r.inMemory {
			return errors.New("its file system has no direct I/O for this file: leave out direct")
		}
		r.offAlign = max(int64(st.Dio_offset_align), blk.SectorSize)
		r.memAlign = max(int64(st.Dio_mem_align), 1)
	}
	if r.info.Size%r.offAlign == 0 {
		r.info.BlockSize = max(r.info.BlockSize, int(r.offAlign))
	}
	r.info.PhysicalBlock = max(r.info.PhysicalBlock, r.info.BlockSize)
	r.buffered, err = openFile(o.Path, o.ReadOnly, false)
	if err != nil {
		return err
	}
	return sameFile(r.f, r.buffered)
}

// sameFile makes sure that a path still led to the same file.
func sameFile(a, b *os.File) error {
	sa, err := a.Stat()
	if err != nil {
		return err
	}
	sb, err := b.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(sa, sb) {
		return errors.New("the file was replaced while it was opened")
	}
	return nil
}

// backend puts an engine around the file.
func (r *raw) backend(e Engine) (blk.Backend, error) {
	switch {
	case e == EngineInline || e == EngineAuto && r.inMemory:
		return blk.Inline(r), nil
	case e == EngineIOURing:
		if err := uringUsable(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		return uringBackend{r}, nil
	case e == EngineAuto && (r.nonBlocking || r.buffered != nil) && uringUsable() == nil:
		return uringBackend{r}, nil
	}
	return blk.Pool(r, poolWorkers), nil
}

// Info implements blk.Store.
func (r *raw) Info() blk.Info { return r.info }

// fdFor returns the descriptor for a transfer: the one that goes through the
// page cache where O_DIRECT is on and does not allow this one.
func (r *raw) fdFor(vec [][]byte, off int64) int {
	if r.buffered == nil || r.aligned(vec, off) {
		return r.fd
	}
	return int(r.buffered.Fd())
}

func (r *raw) aligned(vec [][]byte, off int64) bool {
	if off%r.offAlign != 0 {
		return false
	}
	for _, b := range vec {
		if int64(len(b))%r.offAlign != 0 || int64(memory.HostAddr(b))%r.memAlign != 0 {
			return false
		}
		off += int64(len(b))
	}
	return off <= r.size // the end of the file may lie inside a block
}

// ReadVec implements blk.Store.
func (r *raw) ReadVec(vec [][]byte, off int64) error {
	return r.transfer(vec, off, false, 0)
}

// WriteVec implements blk.Store.
func (r *raw) WriteVec(vec [][]byte, off int64, durable bool) error {
	flags := 0
	if durable {
		flags = unix.RWF_DSYNC
	}
	return r.transfer(vec, off, true, flags)
}

// transfer moves all of vec, as much a system call as the kernel takes.
func (r *raw) transfer(vec [][]byte, off int64, write bool, flags int) error {
	fd := r.fdFor(vec, off)
	skip := 0 // bytes of vec[0] that are moved
	for {
		for len(vec) > 0 && skip >= len(vec[0]) {
			skip -= len(vec[0])
			vec = vec[1:]
		}
		if len(vec) == 0 {
			return nil
		}
		n, err := once(fd, vec, skip, off, write, flags)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return r.atEnd(vec, skip, off, write)
		}
		off += int64(n)
		skip += n
	}
}

// once makes one system call, for what vec has behind its first skip bytes.
func once(fd int, vec [][]byte, skip int, off int64, write bool, flags int) (int, error) {
	switch {
	case len(vec) == 1 && flags == 0 && write:
		return unix.Pwrite(fd, vec[0][skip:], off)
	case len(vec) == 1 && flags == 0:
		return unix.Pread(fd, vec[0][skip:], off)
	}
	t := iovecs.Get().(*iovecTable)
	defer iovecs.Put(t)
	nr := uintptr(unix.SYS_PREADV2)
	if write {
		nr = unix.SYS_PWRITEV2
	}
	t.vec = vec
	count := fillIovecs(t.iov[:], vec, skip)
	// The upper half of the offset counts where a register has 32 bits.
	n, _, errno := unix.Syscall6(nr, uintptr(fd), memory.HostAddr(t.iov[:]), uintptr(count), uintptr(off), uintptr(uint64(off)>>32), uintptr(flags))
	t.vec = nil
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// iovecTable is an array of struct iovec, and the buffers that it refers to:
// being referred to from here, they live, and are on no stack, which may move.
type iovecTable struct {
	iov [slotBytes]byte
	vec [][]byte
}

// iovecs are the tables that are not in use.
var iovecs = sync.Pool{New: func() any { return new(iovecTable) }}

// ReadNow implements blk.NonWaiting: it reads what is in the host's page cache.
func (r *raw) ReadNow(vec [][]byte, off int64) bool {
	flags := unix.RWF_NOWAIT
	switch {
	case r.inMemory:
		flags = 0
	case r.buffered != nil || !r.nonBlocking:
		return false
	}
	want := 0
	for _, b := range vec {
		want += len(b)
	}
	n, err := once(r.fd, vec, 0, off, false, flags)
	return err == nil && n == want
}

// atEnd ends a transfer that reached the end of the file at off. That is right
// for a read of the last sector of a file that ends inside it.
func (r *raw) atEnd(vec [][]byte, skip int, off int64, write bool) error {
	if write || off < r.size {
		return io.ErrUnexpectedEOF
	}
	clear(vec[0][skip:])
	for _, b := range vec[1:] {
		clear(b)
	}
	return nil
}

// Flush implements blk.Store.
func (r *raw) Flush() error {
	if r.info.ReadOnly {
		return nil
	}
	return r.flushed(ignoringEINTR(func() error { return unix.Fdatasync(r.fd) }))
}

// flushed takes the result of fdatasync(2) and returns the flush's.
func (r *raw) flushed(err error) error {
	if err != nil && r.buffered == nil {
		r.lost.CompareAndSwap(nil, &err)
	}
	if first := r.lost.Load(); first != nil {
		return *first
	}
	return err
}

// Discard implements blk.Store. It is advice: where holes cannot be punched
// nothing happens.
func (r *raw) Discard(off, n int64) error {
	err := r.fallocate(punchHole, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// WriteZeroes implements blk.Store.
func (r *raw) WriteZeroes(off, n int64, unmap, durable bool) error {
	mode := uint32(zeroRange)
	if unmap {
		mode = punchHole
	}
	err := r.fallocate(mode, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = r.writeZeroData(off, n)
	}
	if err != nil || !durable {
		return err
	}
	return r.Flush()
}

func (r *raw) fallocate(mode uint32, off, n int64) error {
	return ignoringEINTR(func() error { return unix.Fallocate(r.fd, mode, off, n) })
}

// zeros is what writeZeroData writes; nobody changes it.
var zeros = make([]byte, 64<<10)

func (r *raw) writeZeroData(off, n int64) error {
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if err := r.WriteVec([][]byte{zeros[:k]}, off, false); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

func ignoringEINTR(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

// Close implements blk.Store. What was not flushed is left to the host, as
// with a disk whose power fails.
func (r *raw) Close() error {
	var err error
	for _, f := range []*os.File{r.f, r.buffered, r.lock} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}
