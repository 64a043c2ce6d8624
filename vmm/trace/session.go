package trace

import (
	"slices"
	"sync/atomic"
	"time"
)

// Source is who writes events.
type Source struct {
	Name string // "vcpu0", "blk0"
	Ring *Ring
}

// Session is one look at a machine: the rings of all its sources from a
// moment on. Sources do not change while it lasts; an event's Source is an
// index into them.
type Session struct {
	Began   time.Time
	Sources []Source
	Devices []Device // what accesses reach; an event's Device is an index

	// clock, if not nil, is the time in place of the host's, and last what it
	// said last.
	clock func() time.Duration
	last  atomic.Int64

	snap atomic.Uint32
	ids  atomic.Uint64
}

// Device is what there is behind an address, for those who decode accesses.
type Device struct {
	Name string `json:"name"`
	Type string `json:"type"` // "serial", "virtio-mmio"…: see package decode
	Port bool   `json:"port"` // in the port space, else in memory
	Base uint64 `json:"base"` // when the session began; 0 where the guest places it
	Size uint64 `json:"size"`
	// Of a virtio device: its type, and the source of its queues' events.
	Virtio uint32 `json:"virtio,omitempty"`
	Source int    `json:"source,omitempty"`
}

// DefaultSnap is how many bytes of a request are kept each way: enough for the
// headers of every device type and of a TCP segment.
const DefaultSnap = 96

// Snap is how many bytes of a request each way become KindData events.
func (s *Session) Snap() int { return int(s.snap.Load()) }

// WantSnap makes Snap at least n for the rest of the session.
func (s *Session) WantSnap(n int) {
	for old := s.snap.Load(); uint32(n) > old && !s.snap.CompareAndSwap(old, uint32(n)); old = s.snap.Load() {
	}
}

// NextID is a number that ties an event to its KindData and KindSegment
// events.
func (s *Session) NextID() uint64 { return s.ids.Add(1) }

// NewSession makes rings of n events for sources with these names.
func NewSession(n int, names ...string) *Session {
	s := &Session{Began: time.Now()}
	s.snap.Store(DefaultSnap)
	for _, name := range names {
		s.Sources = append(s.Sources, Source{name, NewRing(n)})
	}
	return s
}

// Now is the time of an event that happens now.
func (s *Session) Now() time.Duration {
	if s.clock == nil {
		return time.Since(s.Began)
	}
	now := s.clock()
	s.last.Store(int64(now))
	return now
}

// UseClock has the session take its times from now, a clock that stands while
// an event is on its way into its ring, and begin at began. It is called before
// there are events.
func (s *Session) UseClock(began time.Time, now func() time.Duration) { s.Began, s.clock = began, now }

// settled is the time of the newest events that are in their rings for sure.
func (s *Session) settled() time.Duration {
	if s.clock == nil {
		return s.Now() - settle
	}
	return time.Duration(s.last.Load()) - 1
}

// Merger reads the events of all sources in the order of their times.
type Merger struct {
	session *Session
	readers []*Reader
	heads   []Event // the next event of each reader
	has     []bool
}

// NewMergerNow returns a merger of the events from now on.
func (s *Session) NewMergerNow() *Merger {
	m := s.NewMerger()
	for i, src := range s.Sources {
		m.readers[i] = src.Ring.NewReader()
	}
	return m
}

// NewMerger returns a merger that begins with the oldest events there are.
func (s *Session) NewMerger() *Merger {
	m := &Merger{session: s, heads: make([]Event, len(s.Sources)), has: make([]bool, len(s.Sources))}
	for _, src := range s.Sources {
		m.readers = append(m.readers, src.Ring.NewReaderAll())
	}
	return m
}

// settle is how long an event may take from its time stamp into its ring: only
// what is older can be put in order with the events of other sources.
const settle = 2 * time.Millisecond

// Pace has sources that may wait do so for m, until Unpace: see Ring.Room.
func (m *Merger) Pace() {
	for i, src := range m.session.Sources {
		src.Ring.Pace(m.readers[i])
	}
}

// Unpace ends Pace.
func (m *Merger) Unpace() {
	for _, src := range m.session.Sources {
		src.Ring.Unpace()
	}
}

// Read appends to events what happened up to a moment ago, in order, at most
// limit of them.
func (m *Merger) Read(events []Event, limit int) []Event {
	return m.read(events, limit, m.session.settled())
}

// Drain is Read without waiting for anything to settle: for a machine that
// has stopped.
func (m *Merger) Drain(events []Event, limit int) []Event {
	return m.read(events, limit, 1<<62)
}

func (m *Merger) read(events []Event, limit int, until time.Duration) []Event {
	for len(events) < limit {
		best := -1
		for i, r := range m.readers {
			if !m.has[i] {
				m.heads[i], m.has[i] = r.Next()
			}
			if m.has[i] && (best < 0 || m.heads[i].Time < m.heads[best].Time) {
				best = i
			}
		}
		if best < 0 || m.heads[best].Time > until {
			break
		}
		events = append(events, m.heads[best])
		m.has[best] = false
	}
	return events
}

// Lost is how many events were overwritten before they were read.
func (m *Merger) Lost() uint64 {
	var n uint64
	for _, r := range m.readers {
		n += r.Lost()
	}
	return n
}

// Index is the source called name, or -1.
func (s *Session) Index(name string) int {
	return slices.IndexFunc(s.Sources, func(x Source) bool { return x.Name == name })
}
