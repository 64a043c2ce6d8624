package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/vmm/disk/uring"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

const (
	iovecLen  = 16
	slotIovs  = 256                 // what one operation can be cut into
	slotBytes = slotIovs * iovecLen // a page of iovecs a slot
	maxMove   = 1 << 30             // bytes an operation, well inside its 32-bit result
)

// uringBackend reads and writes a raw file through io_uring, one ring a
// channel.
type uringBackend struct{ *raw }

// uringUsable says whether the host lets us make a ring.
var uringUsable = sync.OnceValue(func() error {
	r, err := uring.New(1)
	if err != nil {
		return err
	}
	return r.Close()
})

// Open implements blk.Backend.
func (b uringBackend) Open(_ context.Context, depth int, done func([]*blk.Request)) (blk.Channel, error) {
	ring, err := uring.New(depth)
	if err != nil {
		return nil, err
	}
	c := &uringChannel{r: b.raw, ring: ring, done: done, slots: make([]slot, depth)}
	c.iovs, err = unix.Mmap(-1, 0, depth*slotBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("map iovecs: %w", err), ring.Close())
	}
	for i := range c.slots {
		c.free = append(c.free, uint32(i))
	}
	c.kicked = make([]*blk.Request, 0, depth)
	c.reaped = make([]*blk.Request, 0, depth)
	c.idle.L = &c.mu
	// Not every kernel has a full barrier between storing a completion and
	// looking whether an event is wanted, so an event could be missed while
	// Mute(false) takes effect. This timer makes that a delay. It runs only
	// while something is in flight.
	c.backstop = time.AfterFunc(time.Hour, func() { _ = ring.Wake() })
	c.backstop.Stop()
	c.wg.Go(c.reap)
	return c, nil
}

// slot is an operation in flight.
type slot struct {
	req  *blk.Request
	fd   int32
	done int64 // bytes moved so far
	seg  int   // the first piece of req.Vec that is not wholly moved
	off  int   // in that piece
	sync bool  // zeroes are written, and now made durable
}

// uringChannel is one ring. The goroutine that kicks reaps what finishes at
// once, as reads of cached data do; the rest wakes the goroutine of reap.
type uringChannel struct {
	r    *raw
	ring *uring.Ring
	done func([]*blk.Request)
	iovs []byte
	wg   sync.WaitGroup

	kicked []*blk.Request // Kick's scratch space

	mu       sync.Mutex // of all below
	idle     sync.Cond  // nothing in flight
	slots    []slot
	free     []uint32
	inflight int
	closing  bool
	answered []*blk.Request // done without a turn in the ring
	reaped   []*blk.Request // reap's scratch space
	backstop *time.Timer
}

// Submit implements blk.Channel.
func (c *uringChannel) Submit(r *blk.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Err = r.Check(&c.r.info); r.Err == nil && len(c.free) == 0 {
		r.Err = errors.New("more requests at once than the channel was opened for")
	}
	if r.Err != nil || r.Length == 0 && r.Op != blk.OpFlush {
		c.answered = append(c.answered, r)
		return
	}
	i := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	c.inflight++
	c.slots[i] = slot{req: r, fd: int32(c.r.fd)}
	if r.Op == blk.OpRead || r.Op == blk.OpWrite {
		c.slots[i].fd = int32(c.r.fdFor(r.Vec, r.Offset))
		c.slots[i].advance(0) // past pieces without a byte
	}
	c.push(i)
}

// Try implements blk.Prompt.
func (c *uringChannel) Try(r *blk.Request) bool {
	return r.Op == blk.OpRead && r.Check(&c.r.info) == nil && c.r.ReadNow(r.Vec, r.Offset)
}

// push queues the operation of slot i, or what is left of it.
func (c *uringChannel) push(i uint32) {
	s := &c.slots[i]
	o := uring.Op{FD: s.fd, Off: uint64(s.req.Offset), Data: uint64(i)}
	switch s.req.Op {
	case blk.OpRead, blk.OpWrite:
		c.transferOp(&o, i)
	case blk.OpFlush:
		o.Code, o.Off, o.Flags = uring.OpFsync, 0, uring.FsyncDatasync
	case blk.OpDiscard:
		o.Code, o.Addr, o.Len = uring.OpFallocate, uint64(s.req.Length), punchHole
	case blk.OpWriteZeroes:
		o.Code, o.Addr, o.Len = uring.OpFallocate, uint64(s.req.Length), zeroRange
		if s.req.Unmap {
			o.Len = punchHole
		}
		if s.sync {
			o = uring.Op{Code: uring.OpFsync, FD: s.fd, Flags: uring.FsyncDatasync, Data: uint64(i)}
		}
	}
	// There are as many entries as slots, so there is room.
	c.ring.Push(&o)
}

// transferOp fills in a read or write of what is left of slot i.
func (c *uringChannel) transferOp(o *uring.Op, i uint32) {
	s := &c.slots[i]
	o.Off += uint64(s.done)
	if s.req.Durable {
		o.Flags = unix.RWF_DSYNC
	}
	left := s.req.Vec[s.seg:]
	if len(left) == 1 {
		o.Code = uring.OpRead
		if s.req.Op == blk.OpWrite {
			o.Code = uring.OpWrite
		}
		b := left[0][s.off:]
		o.Addr, o.Len = uint64(memory.HostAddr(b)), uint32(min(len(b), maxMove))
		return
	}
	o.Code = uring.OpReadv
	if s.req.Op == blk.OpWrite {
		o.Code = uring.OpWritev
	}
	table := c.iovs[int(i)*slotBytes:][:slotBytes]
	o.Addr, o.Len = uint64(memory.HostAddr(table)), fillIovecs(table, left, s.off)
}

// fillIovecs writes an array of struct iovec for vec without its first skip
// bytes, as much as fits, and returns its length.
func fillIovecs(table []byte, vec [][]byte, skip int) (n uint32) {
	total := 0
	for _, b := range vec {
		b = b[skip:]
		skip = 0
		if n == slotIovs || total+len(b) > maxMove {
			break
		}
		binary.NativeEndian.PutUint64(table[n*iovecLen:], uint64(memory.HostAddr(b)))
		binary.NativeEndian.PutUint64(table[n*iovecLen+8:], uint64(len(b)))
		total += len(b)
		n++
	}
	return n
}

// Kick implements blk.Channel.
func (c *uringChannel) Kick() {
	c.mu.Lock()
	c.ring.Mute(true)
	batch := append(c.kicked[:0], c.answered...)
	c.answered = c.answered[:0]
	batch = c.turn(batch)
	if c.inflight > 0 {
		// From here on reap is woken. What finished before that is taken now.
		c.ring.Mute(false)
		batch = c.collect(batch)
		c.backstop.Reset(backstopTime)
	}
	c.kicked = batch[:0]
	c.mu.Unlock()
	if len(batch) > 0 {
		c.done(batch)
	}
}

// turn submits what is queued and collects what is done. mu is held.
func (c *uringChannel) turn(batch []*blk.Request) []*blk.Request {
	if err := c.ring.Submit(); err != nil {
		// The kernel is short of memory for requests: once those in flight
		// are done there is room, and reap tries again.
		c.backstop.Reset(time.Millisecond)
	}
	return c.collect(batch)
}

// collect takes all completions. mu is held.
func (c *uringChannel) collect(batch []*blk.Request) []*blk.Request {
	again := false
	for {
		e, ok := c.ring.Reap()
		if !ok {
			break
		}
		i := uint32(e.Data)
		s := &c.slots[i]
		if !c.complete(s, e.Res) {
			c.push(i)
			again = true
			continue
		}
		batch = append(batch, s.req)
		*s = slot{}
		c.free = append(c.free, i)
		c.inflight--
	}
	if again {
		return c.turn(batch)
	}
	if c.inflight == 0 {
		c.idle.Broadcast()
	}
	return batch
}

// complete takes the result of an operation and says whether that was all of
// the request.
func (c *uringChannel) complete(s *slot, res int32) bool {
	r := s.req
	if res == -int32(unix.EINTR) || res == -int32(unix.EAGAIN) {
		return false
	}
	if res < 0 {
		r.Err = c.failure(r, unix.Errno(-res))
		return true
	}
	switch {
	case r.Op == blk.OpFlush || s.sync:
		r.Err = c.r.flushed(nil)
		return true
	case r.Op == blk.OpWriteZeroes && r.Durable && !s.sync:
		s.sync = true
		return false
	case r.Op != blk.OpRead && r.Op != blk.OpWrite:
		return true
	case res == 0:
		r.Err = c.atEnd(s)
		return true
	}
	s.advance(int(res))
	return s.done == r.Length
}

// failure is what the error e of an operation means for its request. Holes that
// a file system cannot punch are no failure of a discard, and zeroes are then
// written, by plain system calls: that is rare, and slow anyway.
func (c *uringChannel) failure(r *blk.Request, e unix.Errno) error {
	switch {
	case r.Op == blk.OpFlush:
		return c.r.flushed(e)
	case e == unix.EOPNOTSUPP && r.Op == blk.OpDiscard:
		return nil
	case e == unix.EOPNOTSUPP && r.Op == blk.OpWriteZeroes:
		return c.r.WriteZeroes(r.Offset, r.Length, r.Unmap, r.Durable)
	}
	return e
}

// advance notes that n more bytes were moved.
func (s *slot) advance(n int) {
	s.done += int64(n)
	s.off += n
	for s.seg < len(s.req.Vec) && s.off >= len(s.req.Vec[s.seg]) {
		s.off -= len(s.req.Vec[s.seg])
		s.seg++
	}
}

func (c *uringChannel) atEnd(s *slot) error {
	r := s.req
	if r.Op == blk.OpWrite || r.Offset+s.done < c.r.size {
		return io.ErrUnexpectedEOF
	}
	clear(r.Vec[s.seg][s.off:])
	for _, b := range r.Vec[s.seg+1:] {
		clear(b)
	}
	return nil
}

// reap waits for requests that did not finish in Kick.
func (c *uringChannel) reap() {
	for {
		if c.ring.Wait() != nil {
			return
		}
		c.mu.Lock()
		batch := c.turn(c.reaped[:0])
		c.reaped = batch[:0]
		if c.inflight > 0 {
			c.backstop.Reset(backstopTime)
		} else {
			c.backstop.Stop()
		}
		closing := c.closing && c.inflight == 0
		c.mu.Unlock()
		if len(batch) > 0 {
			c.done(batch)
		}
		if closing {
			return
		}
	}
}

// backstopTime is how long a lost event could delay a request.
const backstopTime = 20 * time.Millisecond

// Close implements blk.Channel.
func (c *uringChannel) Close() error {
	c.Kick()
	c.mu.Lock()
	c.closing = true
	for c.inflight > 0 {
		c.idle.Wait()
	}
	c.backstop.Stop()
	c.mu.Unlock()
	_ = c.ring.Wake()
	c.wg.Wait()
	c.backstop.Stop()
	return errors.Join(c.ring.Close(), unix.Munmap(c.iovs))
}
