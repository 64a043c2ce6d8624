package record

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// Player steps through a recording.
type Player struct {
	Meta  *trace.Meta
	End   *trace.End // nil where the recording was cut off
	Items []trace.Item

	m    *machine
	at   int // items that have been played
	keys []keyframe
	diff []Difference
}

// Difference is a read whose answer, played again, was another one.
type Difference struct {
	Item     int
	Recorded uint64
	Played   uint64
}

// keyframe is the states of all devices before an item.
type keyframe struct {
	at     int
	states map[string]json.RawMessage
}

// keyEvery is how many items lie between two keyframes.
const keyEvery = 4096

// Open reads a recording and makes its devices, as they were when it began.
func Open(r io.Reader) (*Player, error) {
	s, err := trace.NewStreamReader(r)
	if err != nil {
		return nil, err
	}
	if s.Meta.States == nil {
		return nil, errors.New("a trace without the devices' states: make a recording with vitrine record")
	}
	p := &Player{Meta: &s.Meta}
	pieces := trace.NewAssembler()
	for {
		e, err := s.Next()
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if it, ok := pieces.Add(e); ok {
			p.Items = append(p.Items, it)
		}
	}
	p.End = s.End()
	if p.m, err = newMachine(p.Meta); err != nil {
		return nil, err
	}
	return p, p.keep()
}

// Close releases what the player holds.
func (p *Player) Close() error { return p.m.close() }

// At is how many items have been played.
func (p *Player) At() int { return p.at }

// Differences are the reads so far that were answered differently.
func (p *Player) Differences() []Difference { return p.diff }

func (p *Player) keep() error {
	if n := len(p.keys); n > 0 && p.keys[n-1].at >= p.at {
		return nil
	}
	s, err := p.m.states()
	if err == nil {
		p.keys = append(p.keys, keyframe{p.at, s})
	}
	return err
}

// Go plays forwards or back until n items have been played.
func (p *Player) Go(n int) error {
	n = max(0, min(n, len(p.Items)))
	if n < p.at {
		if err := p.back(n); err != nil {
			return err
		}
	}
	for p.at < n {
		if p.at%keyEvery == 0 {
			if err := p.keep(); err != nil {
				return err
			}
		}
		if err := p.play(&p.Items[p.at]); err != nil {
			return fmt.Errorf("event %d: %w", p.at, err)
		}
		p.at++
	}
	return nil
}

// back returns to the last keyframe at or before item n.
func (p *Player) back(n int) error {
	i := len(p.keys) - 1
	for p.keys[i].at > n {
		i--
	}
	if err := p.m.set(p.keys[i].states); err != nil {
		return err
	}
	p.at = p.keys[i].at
	p.diff = slices.DeleteFunc(p.diff, func(d Difference) bool { return d.Item >= p.at })
	return nil
}

// play gives an item to the devices.
func (p *Player) play(it *trace.Item) error {
	p.m.now = p.Meta.Began.Add(it.Time)
	switch it.Kind {
	case trace.KindIO, trace.KindMMIO:
		return p.access(it)
	case trace.KindInput:
		if p.m.uart != nil {
			p.m.uart.Receive(it.Data)
		}
	case trace.KindPop, trace.KindPush, trace.KindIRQ:
		p.queue(it)
	}
	return nil
}

// access repeats an access of the guest's.
func (p *Player) access(it *trace.Item) error {
	on := p.m.mmio
	if it.Kind == trace.KindIO {
		on = p.m.pio
	}
	size := int(it.Size)
	if size != 1 && size != 2 && size != 4 && size != 8 {
		return nil
	}
	name := ""
	if i, _ := it.Device(); int64(i) < int64(len(p.Meta.Devices)) {
		name = p.Meta.Devices[i].Name
	}
	q := p.m.queued[name]
	if q != nil {
		if err := q.settle(); err != nil {
			return err
		}
	}
	data := it.Data
	if it.Count <= 1 || len(data) < size {
		data = binary.LittleEndian.AppendUint64(nil, it.Value)[:size]
	}
	buf := make([]byte, size)
	for ; len(data) >= size; data = data[size:] {
		copy(buf, data)
		if it.Write {
			on.Write(it.Addr, buf)
			continue
		}
		on.Read(it.Addr, buf)
		if !bytes.Equal(buf, data[:size]) {
			p.diff = append(p.diff, Difference{p.at, number(data[:size]), number(buf)})
		}
	}
	if q != nil && it.Write && q.Inspect().Status == 0 {
		q.forget()
	}
	return nil
}

func number(b []byte) uint64 {
	var p [8]byte
	copy(p[:], b)
	return binary.LittleEndian.Uint64(p[:])
}

// queue notes what a virtqueue did.
func (p *Player) queue(it *trace.Item) {
	var q *queued
	for i := range p.Meta.Devices {
		if d := &p.Meta.Devices[i]; d.Virtio != 0 && d.Source == int(it.Source) {
			q = p.m.queued[d.Name]
		}
	}
	if q == nil {
		return
	}
	switch n := it.Addr; {
	case it.Kind == trace.KindIRQ && int64(n) < 0:
		q.config++
		if q.mmio {
			q.isr |= 2
		}
	case it.Kind == trace.KindIRQ && q.mmio:
		q.isr |= 1
	case n >= uint64(len(q.popped)):
	case it.Kind == trace.KindPop:
		q.popped[n]++
	case it.Kind == trace.KindPush:
		q.pushed[n]++
	}
}

// Devices are the names of the devices, in order.
func (p *Player) Devices() []string { return slices.Sorted(maps.Keys(p.m.devices)) }

// State is the state of a device now, as JSON.
func (p *Player) State(name string) (json.RawMessage, error) {
	d, ok := p.m.devices[name]
	if !ok {
		return nil, fmt.Errorf("no device %q: there is %v", name, p.Devices())
	}
	return d.State()
}

// Check compares the devices' states with those that the recording ended with
// and returns the names of those that differ. All items must have been played.
func (p *Player) Check() ([]string, error) {
	if p.End == nil || p.End.States == nil {
		return nil, errors.New("the recording was cut off: it has no states at its end")
	}
	var differ []string
	for _, name := range p.Devices() {
		now, err := p.State(name)
		if err != nil {
			return nil, err
		}
		same, err := equal(now, p.End.States[name], p.m.queued[name] != nil)
		if err != nil {
			return nil, err
		}
		if !same {
			differ = append(differ, name)
		}
	}
	return differ, nil
}

// equal compares two states. What a virtio device keeps beyond its transport
// is not played.
func equal(a, b json.RawMessage, transport bool) (bool, error) {
	if transport {
		for _, s := range []*json.RawMessage{&a, &b} {
			var t virtio.State
			if err := json.Unmarshal(*s, &t); err != nil {
				return false, err
			}
			t.Device = nil
			*s, _ = json.Marshal(t)
		}
	}
	var x, y bytes.Buffer
	if err := errors.Join(json.Compact(&x, a), json.Compact(&y, b)); err != nil {
		return false, err
	}
	return bytes.Equal(x.Bytes(), y.Bytes()), nil
}
