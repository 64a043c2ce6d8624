package console

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"
)

const (
	// chunk is how much is handed to the writer at once.
	chunk = 32 << 10
	// grace is how long a stop waits for a writer that is at work: a
	// terminal that is slow keeps its output, one that is stuck does not
	// keep the machine.
	grace = time.Second
	// maxCarry bounds what is kept of a request that a stop interrupted.
	maxCarry = 1 << 20
)

// sink writes to a writer that cannot be interrupted, in a goroutine of its
// own, so that whoever waits for it can give up.
type sink struct {
	once sync.Once
	work chan int // bytes of buf to write
	done chan struct{}

	outMu sync.Mutex
	out   io.Writer // nil after its first error

	// The transmitting goroutine's.
	buf   [chunk]byte
	busy  bool // buf is the writer's until done
	stuck bool // and it had its grace
	mu    sync.Mutex
	carry []byte // what an interrupted write left
}

func newSink(w io.Writer) *sink {
	return &sink{out: w, work: make(chan int), done: make(chan struct{}, 1)}
}

// start begins the writer, once.
func (s *sink) start() {
	s.once.Do(func() {
		go func() {
			for n := range s.work {
				s.put(s.buf[:n])
				s.done <- struct{}{}
			}
		}()
	})
}

func (s *sink) put(p []byte) {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	if s.out == nil {
		return
	}
	if _, err := s.out.Write(p); err != nil {
		s.out = nil
	}
}

// emergency writes one character at once.
func (s *sink) emergency(c byte) { s.put([]byte{c}) }

// write puts p out. When ctx is done before that, what is left is kept, as far
// as there is room, for the next flush.
func (s *sink) write(ctx context.Context, p []byte) {
	behind := len(s.carried()) > 0 // then p comes after it
	for len(p) > 0 {
		if behind || !s.settle(ctx) {
			s.keep(p)
			return
		}
		n := copy(s.buf[:], p)
		p = p[n:]
		s.busy = true
		s.work <- n
	}
	s.settle(ctx)
}

// settle waits until the writer is done with buf. It gives up a while after
// ctx is done.
func (s *sink) settle(ctx context.Context) bool {
	if !s.busy {
		return true
	}
	select {
	case <-s.done:
		s.busy, s.stuck = false, false
		return true
	case <-ctx.Done():
	}
	if s.stuck {
		return false
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-s.done:
		s.busy = false
		return true
	case <-t.C:
		s.stuck = true
		return false
	}
}

func (s *sink) keep(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.carry = append(s.carry, p[:min(len(p), maxCarry-len(s.carry))]...)
}

// flush puts out what an interrupted write left, and says whether it could.
func (s *sink) flush(ctx context.Context) bool {
	s.mu.Lock()
	p := s.carry
	s.carry = nil
	s.mu.Unlock()
	s.write(ctx, p)
	return !s.busy
}

// carried is a copy of what is still to be put out.
func (s *sink) carried() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.carry)
}

// carryOn puts p in the place of what there was to be put out.
func (s *sink) carryOn(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.carry = bytes.Clone(p)
}
