package balloon

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// maxStats is how many entries are looked at in one report.
const maxStats = 64

// ErrNoStats is returned by Stats while no driver offers them.
var ErrNoStats = errors.New("the guest has no balloon driver that tells its memory use")

// Stats are a guest's own figures (§5.5.6.3), nil where it does not tell.
type Stats struct {
	SwapIn      *uint64 `json:"swap_in,omitempty"`      // bytes
	SwapOut     *uint64 `json:"swap_out,omitempty"`     // bytes
	MajorFaults *uint64 `json:"major_faults,omitempty"` // since its boot
	MinorFaults *uint64 `json:"minor_faults,omitempty"` // since its boot
	Free        *uint64 `json:"free,omitempty"`         // bytes without any use
	Total       *uint64 `json:"total,omitempty"`        // bytes
	Available   *uint64 `json:"available,omitempty"`    // bytes for new programs, without swapping
	Caches      *uint64 `json:"caches,omitempty"`       // bytes that can be given up quickly
}

// parseStats reads an array of packed { tag le16, value le64 }. Tags that are
// not known are skipped.
func parseStats(c *virtio.Chain) (s Stats) {
	cur := virtio.NewReader(c.Readable())
	fields := [...]**uint64{&s.SwapIn, &s.SwapOut, &s.MajorFaults, &s.MinorFaults, &s.Free, &s.Total, &s.Available, &s.Caches}
	for range maxStats {
		tag, value := cur.Uint16(), cur.Uint64()
		if cur.Err() != nil {
			break
		}
		if int(tag) < len(fields) {
			*fields[tag] = &value
		}
	}
	return s
}

// statsQueue holds the buffer that the driver always leaves with the device:
// giving it back asks for new figures (§5.5.6.3).
type statsQueue struct {
	mu      sync.Mutex
	q       *virtio.Queue
	held    *virtio.Chain
	waiting []chan Stats
}

// serve takes the buffers that the driver gives.
func (s *statsQueue) serve(ctx context.Context, q *virtio.Queue) (err error) {
	s.mu.Lock()
	s.q = q
	s.mu.Unlock()
	defer func() { err = errors.Join(err, s.end()) }()
	for ctx.Err() == nil {
		c, ok, err := q.Pop()
		if err != nil {
			return err
		}
		if ok {
			err = s.take(c)
		} else {
			err = q.Wait()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take keeps c, whose figures answer whoever waits. A second buffer is more
// than the protocol has, and goes back.
func (s *statsQueue) take(c *virtio.Chain) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		if err := s.q.Push(c, 0); err != nil {
			return err
		}
		return s.q.Notify()
	}
	s.held = c
	figures := parseStats(c)
	for _, w := range s.waiting {
		w <- figures
	}
	s.waiting = nil
	return nil
}

// end gives the buffer back, so that nothing is in flight. A driver that goes
// on answers with a new one.
func (s *statsQueue) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, q := s.held, s.q
	s.held, s.q = nil, nil
	if c == nil {
		return nil
	}
	return errors.Join(q.Push(c, 0), q.Notify())
}

// ask gives the buffer back and returns where the new figures arrive.
func (s *statsQueue) ask() (<-chan Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.q == nil {
		return nil, ErrNoStats
	}
	w := make(chan Stats, 1)
	s.waiting = append(s.waiting, w)
	c := s.held
	if c == nil {
		return w, nil // asked for already, or the driver has just begun
	}
	s.held = nil
	return w, errors.Join(s.q.Push(c, 0), s.q.Notify())
}

// forget takes back a question that nobody waits for any more.
func (s *statsQueue) forget(w <-chan Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.waiting {
		if c == w {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			return
		}
	}
}

// Stats asks the guest for its figures. It costs the guest nothing as long as
// nobody calls it.
func (d *Device) Stats(ctx context.Context) (Stats, error) {
	w, err := d.stats.ask()
	if err != nil {
		return Stats{}, err
	}
	select {
	case s := <-w:
		return s, nil
	case <-ctx.Done():
		d.stats.forget(w)
		return Stats{}, fmt.Errorf("%s: the guest does not tell its memory use: %w", d.opts.Name, context.Cause(ctx))
	}
}
