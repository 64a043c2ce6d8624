package view

import (
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// storeSize is how many events of a machine are kept to scroll back through:
// 56 bytes each.
const storeSize = 1 << 18

// store is the newest events of a machine, as they came, and counts of all. An
// event is numbered by how many came before it.
type store struct {
	mu     sync.RWMutex
	meta   trace.Meta
	events []trace.Event // event n is at n%len
	head   uint64        // events ever added
	tally  tally
	queues map[uint16]bool // sources that are virtio devices
}

// counts are of all events since the trace began.
type counts struct {
	Kinds   map[string]uint64       `json:"kinds"`
	Devices map[string]deviceCounts `json:"devices"` // accesses, by the device's name; "" where there is none
	Lines   map[string]uint64       `json:"lines"`   // interrupts, by the name of the device or the line
}

// deviceCounts are the accesses to a device's registers.
type deviceCounts struct {
	Reads  uint64        `json:"reads"`
	Writes uint64        `json:"writes"`
	Took   time.Duration `json:"took"` // in the VMM
}

// tally counts without allocating; names come in when somebody asks.
type tally struct {
	kinds   [256]uint64
	devices []deviceCounts // the last one is nobody's
	lines   map[lineKey]uint64
}

type lineKey struct {
	source uint16
	line   uint64 // 0 for a device that has queues
}

func newStore(meta trace.Meta) *store {
	s := &store{meta: meta, events: make([]trace.Event, 0, storeSize), queues: make(map[uint16]bool)}
	s.tally.devices = make([]deviceCounts, len(meta.Devices)+1)
	s.tally.lines = make(map[lineKey]uint64)
	for i := range meta.Devices {
		if d := &meta.Devices[i]; d.Virtio != 0 && d.Source >= 0 {
			s.queues[uint16(d.Source)] = true
		}
	}
	return s
}

// add takes events, in order. It is called for every event of a busy machine.
func (s *store) add(events []trace.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range events {
		e := &events[i]
		if len(s.events) < storeSize {
			s.events = append(s.events, *e)
		} else {
			s.events[s.head%storeSize] = *e
		}
		s.head++
		s.count(e)
	}
}

func (s *store) count(e *trace.Event) {
	s.tally.kinds[e.Kind]++
	switch e.Kind {
	case trace.KindIO, trace.KindMMIO:
		i, _ := e.Device()
		d := &s.tally.devices[min(int64(i), int64(len(s.tally.devices)-1))]
		d.Took += e.Took
		if e.Write {
			d.Writes += max(1, uint64(e.Count))
		} else {
			d.Reads += max(1, uint64(e.Count))
		}
	case trace.KindIRQ:
		k := lineKey{source: e.Source}
		if !s.queues[e.Source] {
			k.line = e.Addr
		}
		s.tally.lines[k]++
	}
}

// counted is the tally by name.
func (s *store) counted() counts {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := counts{Kinds: make(map[string]uint64), Devices: make(map[string]deviceCounts), Lines: make(map[string]uint64)}
	for k, n := range s.tally.kinds {
		if n > 0 {
			c.Kinds[trace.Kind(k).String()] = n
		}
	}
	for i, d := range s.tally.devices {
		name := ""
		if i < len(s.meta.Devices) {
			name = s.meta.Devices[i].Name
		}
		if d != (deviceCounts{}) {
			c.Devices[name] = d
		}
	}
	for k, n := range s.tally.lines {
		c.Lines[s.lineName(k)] += n
	}
	return c
}

// lineName names whom an interrupt comes from.
func (s *store) lineName(k lineKey) string {
	if s.queues[k.source] && int(k.source) < len(s.meta.Sources) {
		return s.meta.Sources[k.source]
	}
	if name := lineNames[k.line]; name != "" {
		return name
	}
	return fmt.Sprintf("line %d", k.line)
}

// lineNames are the interrupt lines of a PC (ISA) that chips here use.
var lineNames = map[uint64]string{0: "PIT", 1: "i8042", 4: "COM1", 8: "RTC", 9: "ACPI"}

// held is the numbers of the oldest event that is kept and of the next to come,
// and the times of the first and the last.
func (s *store) held() (first, next uint64, from, to time.Duration) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	first, next = s.head-uint64(len(s.events)), s.head
	if first < next {
		from, to = s.at(first).Time, s.at(next-1).Time
	}
	return first, next, from, to
}

func (s *store) at(n uint64) *trace.Event { return &s.events[n%storeSize] }

// copyOf appends the events from number first to before next, as far as they
// are kept, and returns the number of the first one.
func (s *store) copyOf(dst []trace.Event, first, next uint64) ([]trace.Event, uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	first = max(first, s.head-uint64(len(s.events)))
	for n := first; n < min(next, s.head); n++ {
		dst = append(dst, *s.at(n))
	}
	return dst, first
}

// find is the number of the first event that is kept at or after a time.
func (s *store) find(t time.Duration) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	oldest := s.head - uint64(len(s.events))
	return oldest + uint64(sort.Search(len(s.events), func(i int) bool { return s.at(oldest+uint64(i)).Time >= t }))
}

// timeline counts what is kept, in buckets of equal time.
type timeline struct {
	From    time.Duration     `json:"from"`
	To      time.Duration     `json:"to"`
	Buckets [][classes]uint32 `json:"buckets"`
}

// Classes of events on a time line.
const (
	classAccess = iota // ports and memory of devices, and other exits
	classCPU           // what the CPU itself does
	classQueue         // requests
	classSignal        // interrupts, input
	classes
)

var classOf = [256]uint8{
	trace.KindIO: classAccess, trace.KindMMIO: classAccess, trace.KindExit: classAccess, trace.KindComplete: classAccess,
	trace.KindReadMSR: classCPU, trace.KindWriteMSR: classCPU, trace.KindCPUID: classCPU, trace.KindVector: classCPU, trace.KindHalt: classCPU,
	trace.KindPop: classQueue, trace.KindPush: classQueue, trace.KindDoorbell: classQueue,
	trace.KindIRQ: classSignal, trace.KindInput: classSignal, trace.KindMark: classSignal,
}

func (s *store) timeline(buckets int) timeline {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t := timeline{Buckets: make([][classes]uint32, buckets)}
	if len(s.events) == 0 {
		return t
	}
	oldest := s.head - uint64(len(s.events))
	t.From, t.To = s.at(oldest).Time, s.at(s.head-1).Time
	width := max(1, (t.To-t.From)/time.Duration(buckets)+1)
	for i := range s.events {
		e := &s.events[i]
		if b := (e.Time - t.From) / width; !e.Piece() && b >= 0 && int(b) < buckets {
			t.Buckets[b][classOf[e.Kind]]++
		}
	}
	return t
}
