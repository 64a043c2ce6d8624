package trace

import (
	"sync/atomic"
	"time"
)

// Ring is the events of one source, the newest of them. Emit may be called
// from any goroutine and never waits; Read from one at a time.
type Ring struct {
	head  atomic.Uint64 // events ever emitted
	mask  uint64
	slots []slot
	// pace is a reader that nothing may be lost for, or nil.
	pace atomic.Pointer[Reader]
}

// slot is one event, a cache line of words that are each loaded and stored
// atomically. seq is the number of the event in it plus one, 0 for none, or
// has the writing bit while one is being stored.
type slot struct {
	seq atomic.Uint64
	w   [7]atomic.Uint64
}

const writing = 1 << 63

// NewRing returns a ring of at least n events.
func NewRing(n int) *Ring {
	size := 1
	for size < n {
		size *= 2
	}
	return &Ring{mask: uint64(size - 1), slots: make([]slot, size)}
}

// Emit adds an event and does not keep e. An event whose place is being
// written by another goroutine, a whole ring behind, is lost and counted as
// such by the reader.
func (r *Ring) Emit(e *Event) {
	n := r.head.Add(1) - 1
	s := &r.slots[n&r.mask]
	old := s.seq.Load()
	if old&writing != 0 || old > n || !s.seq.CompareAndSwap(old, n+1|writing) {
		return
	}
	for i, w := range e.words() {
		s.w[i].Store(w)
	}
	s.seq.Store(n + 1)
}

// Reader is a place in a ring up to which events have been read.
type Reader struct {
	ring *Ring
	next uint64
	lost uint64
	seen atomic.Uint64 // next, for a source that is paced
}

// NewReader returns a reader of the events from now on.
func (r *Ring) NewReader() *Reader { return &Reader{ring: r, next: r.head.Load()} }

// NewReaderAll returns a reader that begins with the oldest event that the
// ring still holds.
func (r *Ring) NewReaderAll() *Reader {
	head := r.head.Load()
	next := uint64(0)
	if n := uint64(len(r.slots)); head > n {
		next = head - n
	}
	return &Reader{ring: r, next: next}
}

// Next returns the next event, or false if there is none yet.
func (rd *Reader) Next() (Event, bool) {
	r := rd.ring
	for {
		head := r.head.Load()
		if rd.next >= head {
			return Event{}, false
		}
		if behind := head - rd.next; behind > uint64(len(r.slots)) {
			skip := behind - uint64(len(r.slots))
			rd.lost += skip
			rd.next += skip
		}
		e, state := r.load(rd.next)
		switch state {
		case slotReady:
			rd.next++
			rd.seen.Store(rd.next)
			return e, true
		case slotPending:
			return Event{}, false
		}
		rd.next++
		rd.seen.Store(rd.next)
		rd.lost++
	}
}

// Pace has Room wait for rd until Unpace.
func (r *Ring) Pace(rd *Reader) { rd.seen.Store(rd.next); r.pace.Store(rd) }

// Unpace ends Pace.
func (r *Ring) Unpace() { r.pace.Store(nil) }

// Room waits until the reader of Pace, if there is one, has read so much that
// half of the ring is free, or until leave says that the source has something
// else to do. It is for sources that may wait, and of which nobody would believe
// a part.
func (r *Ring) Room(leave func() bool) {
	for {
		rd := r.pace.Load()
		if rd == nil || r.head.Load()-rd.seen.Load() < uint64(len(r.slots))/2 || leave() {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// Lost is how many events were overwritten before this reader came to them.
func (rd *Reader) Lost() uint64 { return rd.lost }

type slotState uint8

const (
	slotReady slotState = iota
	slotPending
	slotGone
)

// load reads event n. It is pending while its writer has claimed the number
// but not finished, and gone once a later one has its place, or if it never
// got one.
func (r *Ring) load(n uint64) (Event, slotState) {
	s := &r.slots[n&r.mask]
	seq := s.seq.Load()
	switch {
	case seq == n+1:
	case seq&^writing > n+1:
		return Event{}, slotGone
	case r.head.Load()-n > uint64(len(r.slots))/2:
		return Event{}, slotGone // its writer gave up long ago
	default:
		return Event{}, slotPending
	}
	var w [7]uint64
	for i := range w {
		w[i] = s.w[i].Load()
	}
	if s.seq.Load() != seq {
		return Event{}, slotGone
	}
	return unpack(&w), slotReady
}
