package trace

import (
	"encoding/binary"
	"slices"
)

// pieceSize is how many bytes a KindData event carries: in Addr, Value and RIP.
const pieceSize = 24

// EmitData puts up to limit of the bytes of parts into r as KindData events, to
// be followed by the event that they belong to, whose Aux or RIP names id. It
// returns how many bytes it took.
func EmitData(r *Ring, e Event, id uint64, parts [][]byte, limit int) int {
	e.Kind = KindData
	return emitPieces(r, e, id, parts, limit)
}

func emitPieces(r *Ring, e Event, id uint64, parts [][]byte, limit int) int {
	var b [pieceSize]byte
	e.Aux = id
	total, n := 0, 0
	flush := func() {
		e.Size = uint8(n)
		e.Addr = binary.LittleEndian.Uint64(b[0:])
		e.Value = binary.LittleEndian.Uint64(b[8:])
		e.RIP = binary.LittleEndian.Uint64(b[16:])
		r.Emit(&e)
		b, n = [pieceSize]byte{}, 0
	}
	for _, p := range parts {
		p = p[:min(len(p), limit-total)]
		total += len(p)
		for len(p) > 0 {
			k := copy(b[n:], p)
			n += k
			p = p[k:]
			if n == pieceSize {
				flush()
			}
		}
	}
	if n > 0 {
		flush()
	}
	return total
}

// Segment is one descriptor of a chain.
type Segment struct {
	Addr  uint64 `json:"addr"`
	Len   uint32 `json:"len"`
	Write bool   `json:"write"` // device-writable
}

// Item is an event with what was emitted before it for it.
type Item struct {
	Event
	Data     []byte
	Segments []Segment
}

// id is what ties an item to its pieces; 0 where there are none.
func (e *Event) id() uint64 {
	switch e.Kind {
	case KindPop, KindPush, KindInput:
		return e.RIP
	case KindIO:
		if e.Count > 1 {
			return e.ID()
		}
	case KindInstruction:
		return e.ID()
	case KindData, KindSegment, KindRegisters:
		return e.Aux
	}
	return 0
}

// ID of an access with several values, which leaves no room for it elsewhere:
// its time and CPU.
func (e *Event) ID() uint64 { return uint64(e.Time)<<8 | uint64(e.CPU) }

// Assembler turns the events of a stream into items.
type Assembler struct {
	open map[uint64]*Item
	free []*Item // whose slices are used again
}

// maxOpen bounds the items whose event has not come; maxData the bytes of one.
const (
	maxOpen = 4096
	maxFree = 16
	maxData = 1 << 20
)

// NewAssembler returns an empty one.
func NewAssembler() *Assembler { return &Assembler{open: make(map[uint64]*Item)} }

// Add takes an event. The item is complete where ok is true; Data and Segments
// are the caller's.
func (a *Assembler) Add(e Event) (item Item, ok bool) {
	id := e.id()
	switch e.Kind {
	case KindData, KindSegment, KindRegisters:
		a.piece(id, &e)
		return Item{}, false
	}
	item.Event = e
	if id == 0 {
		return item, true
	}
	if it := a.open[id]; it != nil {
		item.Data, item.Segments = it.Data, it.Segments
		delete(a.open, id)
		*it = Item{}
		if len(a.free) < maxFree {
			a.free = append(a.free, it)
		}
	}
	return item, true
}

// Reuse takes an item's slices back, from a caller that has no more use for
// them.
func (a *Assembler) Reuse(item *Item) {
	if n := len(a.free); n > 0 && cap(a.free[n-1].Data) < cap(item.Data) {
		a.free[n-1].Data = item.Data[:0]
	}
	item.Data = nil
}

func (a *Assembler) piece(id uint64, e *Event) {
	it := a.open[id]
	if it == nil {
		if len(a.open) >= maxOpen {
			clear(a.open) // of events that were overwritten
		}
		if n := len(a.free); n > 0 {
			it, a.free = a.free[n-1], a.free[:n-1]
		} else {
			it = new(Item)
		}
		a.open[id] = it
	}
	if e.Kind == KindSegment {
		if len(it.Segments) < maxData {
			it.Segments = append(it.Segments, Segment{e.Addr, uint32(e.Value), e.Write})
		}
		return
	}
	var b [pieceSize]byte
	binary.LittleEndian.PutUint64(b[0:], e.Addr)
	binary.LittleEndian.PutUint64(b[8:], e.Value)
	binary.LittleEndian.PutUint64(b[16:], e.RIP)
	if len(it.Data) < maxData {
		it.Data = append(it.Data, b[:min(int(e.Size), pieceSize)]...)
	}
}

// Last returns the last n items of all sources, oldest first, of the events
// that the rings hold.
func (s *Session) Last(n int) []Item {
	m, a := s.NewMerger(), NewAssembler()
	var items []Item
	var events []Event
	for {
		events = m.Drain(events[:0], 1024)
		if len(events) == 0 {
			return items
		}
		for _, e := range events {
			if it, ok := a.Add(e); ok {
				items = append(items, it)
			}
		}
		items = slices.Delete(items, 0, max(0, len(items)-n))
	}
}
