package control

import (
	"io"
	"sync"
)

// Hub is a console that any number of users share: what the guest writes goes
// to all, what each types goes to the guest.
type Hub struct {
	input *io.PipeWriter
	in    *io.PipeReader

	mu    sync.Mutex
	users map[*hubUser]bool
	tail  []byte // the last output, which a newcomer is shown
	gone  bool
}

// tailSize is how much of the past a newcomer sees, and userBuffer how far a
// user may fall behind before output is dropped for that user: a terminal that
// hangs must not hold up the guest.
const (
	tailSize   = 4 << 10
	userBuffer = 1 << 20
)

// NewHub returns a console without users.
func NewHub() *Hub {
	h := &Hub{users: make(map[*hubUser]bool)}
	h.in, h.input = io.Pipe()
	return h
}

// Input is what the users type.
func (h *Hub) Input() io.Reader { return h.in }

// Write is output of the guest's. It never blocks and never fails.
func (h *Hub) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tail = append(h.tail, p...); len(h.tail) > 2*tailSize {
		h.tail = append(h.tail[:0], h.tail[len(h.tail)-tailSize:]...)
	}
	for u := range h.users {
		u.add(p)
	}
	return len(p), nil
}

// Join adds a user. Reads give output, first the end of what was before;
// writes are typed. Close leaves.
func (h *Hub) Join() io.ReadWriteCloser {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := &hubUser{hub: h}
	u.cond.L = &u.mu
	u.add(h.tail[max(0, len(h.tail)-tailSize):])
	if h.gone {
		u.closed = true
	}
	h.users[u] = true
	return u
}

// Close ends the console: users read what is left, then the end.
func (h *Hub) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	for u := range h.users {
		u.end()
	}
	return h.input.Close()
}

type hubUser struct {
	hub     *Hub
	mu      sync.Mutex
	cond    sync.Cond
	buf     []byte
	dropped bool
	closed  bool
}

const droppedNote = "\r\n[output was dropped: this terminal is too slow]\r\n"

func (u *hubUser) add(p []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.closed:
		return
	case len(u.buf)+len(p) <= userBuffer:
		u.buf = append(u.buf, p...)
		u.dropped = false
	case !u.dropped:
		u.buf = append(u.buf, droppedNote...)
		u.dropped = true
	}
	u.cond.Signal()
}

func (u *hubUser) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.buf) == 0 {
		if u.closed {
			return 0, io.EOF
		}
		u.cond.Wait()
	}
	n := copy(p, u.buf)
	u.buf = append(u.buf[:0], u.buf[n:]...)
	return n, nil
}

func (u *hubUser) Write(p []byte) (int, error) { return u.hub.input.Write(p) }

func (u *hubUser) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	u.cond.Broadcast()
}

func (u *hubUser) Close() error {
	u.hub.mu.Lock()
	delete(u.hub.users, u)
	u.hub.mu.Unlock()
	u.end()
	return nil
}
