package virtio

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// MaxQueueSize is the largest size of a split virtqueue (virtio 1.2 §2.7).
const MaxQueueSize = 32768

// Layout of the rings (virtio 1.2 §2.7.5, §2.7.6, §2.7.8). The available ring
// is flags, idx, ring[size], used_event; the used ring is flags, idx,
// ring[size] of id and len, avail_event.
const (
	descSize     = 16
	ringHeader   = 4
	availElem    = 2
	usedElem     = 8
	availNoIntr  = 1 // available ring: VIRTQ_AVAIL_F_NO_INTERRUPT
	usedNoNotify = 1 // used ring: VIRTQ_USED_F_NO_NOTIFY
	ringIdx      = 2 // offset of idx in either ring
)

// QueueConfig is where a driver placed a queue, and where in its rings the
// device is. The indices are zero for a new queue.
type QueueConfig struct {
	Index    int    // the queue's number in its device
	Size     uint16 // entries: a power of two
	Desc     memory.Addr
	Avail    memory.Addr // the driver area
	Used     memory.Addr // the device area
	Features uint64      // the negotiated ones; FeatureIndirectDesc and FeatureEventIdx matter

	NextAvail uint16 // the next entry of the available ring that Pop looks at
	NextUsed  uint16 // the next entry of the used ring that Push fills
}

// Queue is one split virtqueue from the device's side (virtio 1.2 §2.7). Pop
// and Wait belong to one goroutine; Push, Notify and Inspect may be called by
// any.
type Queue struct {
	cfg    QueueConfig
	mem    *memory.Guest
	desc   []byte // the descriptor table, checked as a whole
	bell   Doorbell
	irq    func() error
	tracer *atomic.Pointer[Tracer]

	indirect, eventIdx bool

	// The popping goroutine's. next is atomic only for those who inspect.
	next     atomic.Uint32 // of which the low 16 bits are the ring's index
	avail    uint16        // idx of the available ring as last seen
	noNotify bool          // used.flags asks the driver not to notify
	broken   error         // what Pop found; it does not look again
	kicks    atomic.Uint64
	work     func() bool // what WaitLending lends
	lend     func() bool // lent, once it is needed
	told     bool        // the notification that wakes the waiter has been noted

	// Of a patient device (Options.Patient): the queue has been waiting for a
	// notification when Serve was stopped, and goes on waiting in its next
	// life, without a look at the ring.
	asleep  bool
	stopped *atomic.Bool // Serve is; nil for devices that are not patient

	mu         sync.Mutex // of what follows
	used       uint16     // our idx of the used ring
	unnotified uint32     // elements pushed since the last Notify
	revoked    bool       // the driver has the rings back: touch nothing
	pushed     uint64
	interrupts uint64
	suppressed uint64

	chains []*Chain // by head: so a head that is in flight twice is seen
}

// NewQueue checks that a queue lies where a queue can lie, every byte of its
// three areas inside guest memory, and returns it. bell is what the driver's
// notifications ring, irq raises the queue's interrupt. The error is a
// *ProtocolError.
func NewQueue(mem *memory.Guest, cfg QueueConfig, bell Doorbell, irq func() error) (*Queue, error) {
	q := &Queue{
		cfg: cfg, mem: mem, bell: bell, irq: irq, tracer: new(atomic.Pointer[Tracer]),
		indirect: cfg.Features&FeatureIndirectDesc != 0,
		eventIdx: cfg.Features&FeatureEventIdx != 0,
		avail:    cfg.NextAvail,
		used:     cfg.NextUsed,
		noNotify: true, // as far as we know: the first Wait says otherwise
	}
	q.next.Store(uint32(cfg.NextAvail))
	if err := q.check(); err != nil {
		return nil, err
	}
	q.chains = make([]*Chain, cfg.Size)
	return q, nil
}

// check holds the alignment and the place of the areas against §2.7.
func (q *Queue) check() (err error) {
	c, n := &q.cfg, uint64(q.cfg.Size)
	switch {
	case n == 0 || n&(n-1) != 0 || n > MaxQueueSize:
		return q.fault("2.7", "size %d is not a power of two up to %d", n, MaxQueueSize)
	case c.Desc%16 != 0 || c.Avail%2 != 0 || c.Used%4 != 0:
		return q.fault("2.7", "areas at %#x, %#x, %#x are not aligned", uint64(c.Desc), uint64(c.Avail), uint64(c.Used))
	}
	if q.desc, err = q.mem.Bytes(c.Desc, n*descSize); err != nil {
		return q.fault("2.7.5", "descriptor table: %w", err)
	}
	// LoadUint16 reads the whole aligned word around its value, so the words
	// around the ends of the available ring belong to the check.
	first, last := c.Avail&^3, (c.Avail+memory.Addr(ringHeader+n*availElem)+availElem+3)&^3
	if last < first {
		return q.fault("2.7.6", "available ring at %#x wraps", uint64(c.Avail))
	}
	if _, err = q.mem.Bytes(first, uint64(last-first)); err != nil {
		return q.fault("2.7.6", "available ring: %w", err)
	}
	if _, err = q.mem.WritableBytes(c.Used, ringHeader+n*usedElem+4); err != nil {
		return q.fault("2.7.8", "used ring: %w", err)
	}
	return nil
}

// Size is the number of entries.
func (q *Queue) Size() int { return int(q.cfg.Size) }

// Index is the queue's number in its device.
func (q *Queue) Index() int { return q.cfg.Index }

// mask takes an index of a ring to its place.
func (q *Queue) mask(i uint16) memory.Addr { return memory.Addr(i & (q.cfg.Size - 1)) }

// Pop takes the next chain that the driver made available, whole and checked;
// ok is false when there is none. It belongs to the device until Push. An
// error is a *ProtocolError: the driver broke the protocol, the queue gives
// nothing more, and Serve is to return it.
func (q *Queue) Pop() (c *Chain, ok bool, err error) {
	if q.broken != nil || q.asleep {
		return nil, false, q.broken
	}
	next := uint16(q.next.Load())
	if next == q.avail {
		if ok, err = q.moreAvailable(next); !ok {
			return nil, false, err
		}
	}
	head, err := q.mem.LoadUint16(q.cfg.Avail + ringHeader + availElem*q.mask(next))
	if err == nil {
		c, err = q.take(head)
	}
	if err != nil {
		q.broken = err
		return nil, false, err
	}
	q.next.Store(uint32(next + 1))
	if t := q.tracer.Load(); t != nil {
		(*t).Popped(q.cfg.Index, c)
	}
	return c, true, nil
}

// moreAvailable looks at the driver's index (§2.7.13.3: it is read before the
// entries that it covers).
func (q *Queue) moreAvailable(next uint16) (bool, error) {
	idx, err := q.mem.LoadUint16(q.cfg.Avail + ringIdx)
	if err != nil {
		return false, err
	}
	if idx-next > q.cfg.Size {
		q.broken = q.fault("2.7.6", "available index went from %d to %d with %d entries", next, idx, q.cfg.Size)
		return false, q.broken
	}
	q.avail = idx
	return idx != next, nil
}

// Push gives c back to the driver with the number of bytes that were written
// to its writable part, from its start (§2.7.8). The driver sees it at once;
// the interrupt is Notify's. c must not be used any more.
func (q *Queue) Push(c *Chain, written uint32) error {
	if written > c.writableLen {
		return fmt.Errorf("virtio queue %d: %d bytes written to %d: %w", q.cfg.Index, written, c.writableLen, errDevice)
	}
	if t := q.tracer.Load(); t != nil {
		(*t).Pushed(q.cfg.Index, c, written)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.settle(c, written); err != nil || q.revoked {
		return err
	}
	elem, err := q.mem.WritableBytes(q.cfg.Used+ringHeader+usedElem*q.mask(q.used), usedElem)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(elem, uint64(written)<<32|uint64(c.head))
	q.used++
	q.pushed++
	q.unnotified++
	// The store has release ordering: the element before the index (§2.7.8.2).
	return q.mem.StoreUint16(q.cfg.Used+ringIdx, q.used)
}

// settle ends the device's possession of c. From then on a driver that offers
// it again, which a hostile one does without waiting for the used ring, has Pop
// write to it: so this is the last look at it. mu is held.
func (q *Queue) settle(c *Chain, written uint32) error {
	if !c.inFlight.Load() {
		return fmt.Errorf("virtio queue %d: chain %d pushed twice: %w", q.cfg.Index, c.head, errDevice)
	}
	if !q.revoked {
		c.noteWritten(q.mem, written)
	}
	c.inFlight.Store(false)
	return nil
}

// Notify raises the queue's interrupt if the driver wants one for what was
// pushed since the last Notify (§2.7.7).
func (q *Queue) Notify() error {
	q.mu.Lock()
	n := q.unnotified
	if n == 0 || q.revoked {
		q.mu.Unlock()
		return nil
	}
	q.unnotified = 0
	want, err := q.wantsInterrupt(n)
	if want {
		q.interrupts++
	} else {
		q.suppressed++
	}
	q.mu.Unlock()
	if !want || err != nil {
		return err
	}
	return q.irq()
}

// wantsInterrupt says whether the last n used elements are worth an interrupt.
// The index was stored and is followed by this load in one order for all CPUs
// (Go's atomics are sequentially consistent), as §2.7.7.2 needs.
func (q *Queue) wantsInterrupt(n uint32) (bool, error) {
	if !q.eventIdx {
		flags, err := q.mem.LoadUint16(q.cfg.Avail)
		return flags&availNoIntr == 0, err
	}
	if n > 0xffff { // more than the indices can tell apart
		return true, nil
	}
	event, err := q.mem.LoadUint16(q.cfg.Avail + ringHeader + availElem*memory.Addr(q.cfg.Size))
	return needEvent(event, q.used, q.used-uint16(n)), err
}

// needEvent says whether the index event lies in [old, now), the entries that
// were added, in arithmetic modulo 2^16 (§2.7.7.2, §2.7.10).
func needEvent(event, now, old uint16) bool { return now-event-1 < now-old }

// Wait returns when there may be something to pop: at once when there is,
// otherwise when the doorbell rings. It may return early, so its caller looks
// at its context and at the queue again. Whoever wants it back rings the
// doorbell.
func (q *Queue) Wait() error { return q.wait(nil) }

// WaitLending is Wait, and meanwhile lends the queue to the goroutine that
// rings for the driver, where there is one (Lender): it calls work, which may
// use the queue as the caller could, is quick, and says whether it did all that
// there was to do. If not, WaitLending returns.
func (q *Queue) WaitLending(work func() (done bool)) error {
	l, ok := q.bell.(Lender)
	if !ok || q.stopped != nil { // a patient device does its work itself
		return q.wait(nil)
	}
	if q.lend == nil {
		q.lend = q.lent
	}
	q.work = work
	return q.wait(l)
}

// wait is Wait, at a doorbell that lends if it is not nil.
func (q *Queue) wait(l Lender) error {
	if q.broken != nil {
		return q.broken
	}
	more := false
	if !q.asleep {
		var err error
		if more, err = q.sleepy(); err != nil {
			return err
		}
	}
	if !more {
		if err := q.slept(l); err != nil || q.asleep {
			return err
		}
	}
	return q.setNotify(false)
}

// slept is wait where there is nothing to pop.
func (q *Queue) slept(l Lender) (err error) {
	if l != nil {
		err = l.WaitLending(q.lend)
	} else {
		err = q.bell.Wait()
	}
	if err != nil {
		return fmt.Errorf("virtio queue %d: wait for the driver: %w", q.cfg.Index, err)
	}
	if q.asleep = q.stopped != nil && q.stopped.Load(); q.asleep {
		return nil
	}
	if !q.told {
		q.woken()
	}
	q.told = false
	return nil
}

// lent is one turn of the work, on the goroutine of a ring.
func (q *Queue) lent() (done bool) {
	if !q.told { // another ring, before the waiter has woken for the last
		q.woken()
	}
	q.told = true
	if q.setNotify(false) != nil || !q.work() {
		return false
	}
	more, err := q.sleepy()
	if err != nil || more {
		return false
	}
	q.told = false
	return true
}

// sleepy asks the driver for notifications, and says whether there is something
// to pop before it has seen that.
func (q *Queue) sleepy() (more bool, err error) {
	if err := q.setNotify(true); err != nil {
		return false, err
	}
	idx, err := q.mem.LoadUint16(q.cfg.Avail + ringIdx)
	return idx != uint16(q.next.Load()), err
}

// woken notes that a notification was of use.
func (q *Queue) woken() {
	q.kicks.Add(1)
	if t := q.tracer.Load(); t != nil {
		if w, ok := (*t).(WakeTracer); ok {
			w.Woken(q.cfg.Index)
		}
	}
}

// setNotify tells the driver whether its notifications are wanted (§2.7.10).
// With event indices they need not be refused: the driver notifies once, when
// it passes the index that was asked for.
func (q *Queue) setNotify(want bool) error {
	if q.eventIdx {
		if !want {
			return nil
		}
		at := q.cfg.Used + ringHeader + usedElem*memory.Addr(q.cfg.Size)
		return q.mem.StoreUint16(at, uint16(q.next.Load()))
	}
	if q.noNotify != want {
		return nil
	}
	q.noNotify = !want
	var flags uint16
	if q.noNotify {
		flags = usedNoNotify
	}
	return q.mem.StoreUint16(q.cfg.Used, flags)
}

// Ring wakes the goroutine in Wait.
func (q *Queue) Ring() { q.bell.Ring() }

// revoke ends all access to the rings: for a device that did not give up the
// queue in time for a reset.
func (q *Queue) revoke() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.revoked = true
}
