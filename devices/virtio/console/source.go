package console

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// inputSize bounds what is read ahead of the guest.
const inputSize = 64 << 10

// source reads ahead from a reader that cannot be interrupted, in a goroutine
// that lives as long as the reader, so that whoever waits for input can give
// up.
type source struct {
	r    io.Reader
	once sync.Once

	mu    sync.Mutex
	cond  sync.Cond     // room in buf
	buf   []byte        // unread, inputSize at most
	ready chan struct{} // one token while buf may have bytes
}

func newSource(r io.Reader) *source {
	s := &source{r: r, ready: make(chan struct{}, 1)}
	s.cond.L = &s.mu
	return s
}

// start begins reading, once.
func (s *source) start() {
	s.once.Do(func() {
		if s.r != nil {
			go s.read()
		}
	})
}

func (s *source) read() {
	p := make([]byte, 4096)
	for {
		n, err := s.r.Read(p)
		s.put(p[:n])
		if err != nil {
			return
		}
	}
}

func (s *source) put(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p) > 0 {
		for len(s.buf) == inputSize {
			s.cond.Wait()
		}
		n := min(len(p), inputSize-len(s.buf))
		s.buf = append(s.buf, p[:n]...)
		p = p[n:]
		s.wake()
	}
}

func (s *source) wake() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// wait returns true when there is input, false when ctx is done.
func (s *source) wait(ctx context.Context) bool {
	for ctx.Err() == nil {
		if !s.empty() {
			return true
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
		}
	}
	return false
}

func (s *source) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.buf) == 0
}

// take moves input to segs and says how much.
func (s *source) take(segs [][]byte) (n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := 0
	for _, seg := range segs {
		taken += copy(seg, s.buf[taken:])
	}
	s.buf = append(s.buf[:0], s.buf[taken:]...)
	s.cond.Signal()
	return uint32(taken)
}

// pending is a copy of what nobody has taken yet.
func (s *source) pending() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.buf)
}

// refill puts p, at most inputSize bytes, in the place of what there was.
func (s *source) refill(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = append(s.buf[:0], p...)
	s.wake()
}
