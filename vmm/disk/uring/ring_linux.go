// Package uring is Linux's io_uring (io_uring(7)), as far as a disk needs it:
// one submission and one completion queue, shared with the kernel.
package uring

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Opcodes (linux/io_uring.h).
const (
	OpNop       = 0
	OpReadv     = 1
	OpWritev    = 2
	OpFsync     = 3
	OpFallocate = 17
	OpRead      = 22
	OpWrite     = 23
)

// FsyncDatasync is the flag of OpFsync for fdatasync(2).
const FsyncDatasync = 1

const (
	offSQRing, offSQEs = 0, 0x1000_0000 // IORING_OFF_*
	paramsLen          = 120            // struct io_uring_params
	sqeLen, cqeLen     = 64, 16
	featSingleMmap     = 1 << 0
	featNoDrop         = 1 << 1
	featRWCurPos       = 1 << 3 // Linux 5.6, which brought all the opcodes above
	registerEventfd    = 4
	eventfdDisabled    = 1 << 0 // in the completion queue's flags
)

// Op is a submission queue entry (io_uring_enter(2)).
type Op struct {
	Code  uint8
	FD    int32
	Off   uint64
	Addr  uint64 // of a buffer, of iovecs, or a length (OpFallocate)
	Len   uint32
	Flags uint32 // of the operation: RWF_*, FsyncDatasync
	Data  uint64 // given back with the completion
}

// Completion is a completion queue entry.
type Completion struct {
	Data uint64
	Res  int32 // a count, or a negative errno
}

// Ring is one io_uring. It does not lock: Push and Submit belong to one
// goroutine at a time, Reap to one at a time.
type Ring struct {
	fd       int
	ring     []byte // both rings
	sqes     []byte
	sqTail   *atomic.Uint32
	sqHead   *atomic.Uint32
	sqMask   uint32
	cqHead   *atomic.Uint32
	cqTail   *atomic.Uint32
	cqFlags  *atomic.Uint32 // nil before Linux 5.8
	cqMask   uint32
	cqes     []byte
	tail     uint32 // of the submission queue, not yet published
	event    *os.File
	released bool
}

// New makes a ring for up to entries operations in flight. It fails where the
// kernel has no io_uring, or forbids it.
func New(entries int) (_ *Ring, err error) {
	r := &Ring{fd: -1}
	defer func() {
		if err != nil {
			_ = r.Close()
		}
	}()
	if entries < 1 || entries > 4096 {
		return nil, fmt.Errorf("io_uring of %d entries", entries)
	}
	// The parameters lie in a mapping, since only those have an address that
	// is a plain number.
	p, err := unix.Mmap(-1, 0, memory.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("io_uring: %w", err)
	}
	defer func() { _ = unix.Munmap(p) }()
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), memory.HostAddr(p), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r.fd = int(fd)
	unix.CloseOnExec(r.fd)
	if err := r.mapRings(parseParams(p)); err != nil {
		return nil, err
	}
	return r, r.openEvent(p)
}

// params is what of struct io_uring_params the kernel fills in.
type params struct {
	sqEntries, cqEntries, features uint32
	sq                             [8]uint32 // head, tail, ring_mask, ring_entries, flags, dropped, array, –
	cq                             [8]uint32 // head, tail, ring_mask, ring_entries, overflow, cqes, flags, –
}

func parseParams(b []byte) (p params) {
	le := binary.NativeEndian
	p.sqEntries, p.cqEntries, p.features = le.Uint32(b[0:]), le.Uint32(b[4:]), le.Uint32(b[20:])
	for i := range p.sq {
		p.sq[i] = le.Uint32(b[40+4*i:])
		p.cq[i] = le.Uint32(b[80+4*i:])
	}
	return p
}

func (r *Ring) mapRings(p params) (err error) {
	const need = featSingleMmap | featNoDrop | featRWCurPos
	if p.features&need != need {
		return errors.New("io_uring: the kernel is older than 5.6")
	}
	size := max(p.sq[6]+4*p.sqEntries, p.cq[5]+cqeLen*p.cqEntries)
	prot, flags := unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE
	if r.ring, err = unix.Mmap(r.fd, offSQRing, int(size), prot, flags); err != nil {
		return fmt.Errorf("io_uring: map rings: %w", err)
	}
	if r.sqes, err = unix.Mmap(r.fd, offSQEs, int(sqeLen*p.sqEntries), prot, flags); err != nil {
		return fmt.Errorf("io_uring: map entries: %w", err)
	}
	r.sqHead, r.sqTail = memory.Word(r.ring, p.sq[0]), memory.Word(r.ring, p.sq[1])
	r.cqHead, r.cqTail = memory.Word(r.ring, p.cq[0]), memory.Word(r.ring, p.cq[1])
	r.sqMask, r.cqMask = memory.Word(r.ring, p.sq[2]).Load(), memory.Word(r.ring, p.cq[2]).Load()
	if p.cq[6] != 0 {
		r.cqFlags = memory.Word(r.ring, p.cq[6])
	}
	r.cqes = r.ring[p.cq[5] : p.cq[5]+cqeLen*p.cqEntries]
	// Entry i of the submission queue is always entry i of the table.
	for i := range p.sqEntries {
		memory.Word(r.ring, p.sq[6]+4*i).Store(i)
	}
	return nil
}

// openEvent connects an eventfd that the Go runtime can wait for.
func (r *Ring) openEvent(scratch []byte) error {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("io_uring: eventfd: %w", err)
	}
	r.event = os.NewFile(uintptr(fd), "io_uring events")
	binary.NativeEndian.PutUint32(scratch, uint32(fd))
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), registerEventfd, memory.HostAddr(scratch), 1, 0, 0)
	if errno != 0 {
		return fmt.Errorf("io_uring: register eventfd: %w", errno)
	}
	return nil
}

// Push places an operation in the submission queue; ok is false when that is
// full.
func (r *Ring) Push(o *Op) (ok bool) {
	if r.tail-r.sqHead.Load() > r.sqMask {
		return false
	}
	e := r.sqes[(r.tail&r.sqMask)*sqeLen:][:sqeLen:sqeLen]
	clear(e)
	ne := binary.NativeEndian
	e[0] = o.Code
	ne.PutUint32(e[4:], uint32(o.FD))
	ne.PutUint64(e[8:], o.Off)
	ne.PutUint64(e[16:], o.Addr)
	ne.PutUint32(e[24:], o.Len)
	ne.PutUint32(e[28:], o.Flags)
	ne.PutUint64(e[32:], o.Data)
	r.tail++
	return true
}

// Submit makes the kernel take what was pushed. An error leaves what it did
// not take in the queue.
func (r *Ring) Submit() error {
	r.sqTail.Store(r.tail)
	for {
		n := r.tail - r.sqHead.Load()
		if n == 0 {
			return nil
		}
		_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n), 0, 0, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return fmt.Errorf("io_uring_enter: %w", errno)
		}
	}
}

// Reap takes one completion, if there is one.
func (r *Ring) Reap() (c Completion, ok bool) {
	head := r.cqHead.Load()
	if head == r.cqTail.Load() {
		return Completion{}, false
	}
	e := r.cqes[(head&r.cqMask)*cqeLen:]
	c.Data = binary.NativeEndian.Uint64(e)
	c.Res = int32(binary.NativeEndian.Uint32(e[8:]) & math.MaxUint32)
	r.cqHead.Store(head + 1)
	return c, true
}

// Mute says whether completions are worth an event. While nobody sleeps in
// Wait they are not.
func (r *Ring) Mute(on bool) {
	if r.cqFlags == nil {
		return
	}
	if on {
		r.cqFlags.Store(eventfdDisabled)
	} else {
		r.cqFlags.Store(0)
	}
}

// Wait blocks until there was a completion, Wake was called, or the ring is
// closed, which is an error.
func (r *Ring) Wait() error {
	var b [8]byte
	_, err := r.event.Read(b[:])
	return err
}

// Wake makes Wait return.
func (r *Ring) Wake() error {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], 1)
	_, err := r.event.Write(b[:])
	return err
}

// Close ends the ring. Nothing may be in flight.
func (r *Ring) Close() error {
	if r.released {
		return nil
	}
	r.released = true
	var errs []error
	for _, b := range [][]byte{r.ring, r.sqes} {
		if b != nil {
			errs = append(errs, unix.Munmap(b))
		}
	}
	if r.fd >= 0 {
		errs = append(errs, unix.Close(r.fd))
	}
	if r.event != nil {
		errs = append(errs, r.event.Close())
	}
	return errors.Join(errs...)
}
