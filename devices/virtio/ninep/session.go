package ninep

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hugelgupf/p9/p9"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Layout of a message: size le32, type u8, tag le16, then what the type says.
const (
	headerLen = 7
	tagAt     = 5

	typeError       = 7 // Rlerror: errno le32
	typeXattrWalk   = 30
	typeXattrCreate = 32
	typeVersion     = 100 // Tversion: msize le32, version s
	typeAttach      = 104
	typeFlush       = 108 // Tflush: oldtag le16
	typeReaddir     = 40  // Treaddir: fid le32, offset le64, count le32
	typeRead        = 116 // Tread: the same
	countAt         = 12

	errorLen = headerLen + 4
	maxMsize = 1 << 20 // what a guest may negotiate: buffers of that size are ours

	grace = 10 * time.Millisecond

	eOpNotSupp = 95 // errno values of the protocol, Linux's
	eMsgSize   = 90
)

// call is a request that the server has.
type call struct {
	chain *virtio.Chain // nil: none
	tag   uint16        // the guest's
}

// session is one connection of a guest to the server. The server sees, as the
// tag of a request, the head of its chain: that is unique, whatever tags the
// guest uses, and leads back to the chain.
type session struct {
	in    chan []byte // requests for the server
	ended chan struct{}
	msize atomic.Uint32
	began atomic.Bool // the guest has attached

	mu      sync.Mutex
	idle    sync.Cond // no calls, or none that the server works on
	q       *virtio.Queue
	calls   []call // by head
	pending int
	inside  int // messages that the server has taken and not answered
	err     error
	closed  bool

	rest []byte // Read's: of the request that the server is reading

	// Write's: the answer that the server is writing.
	header  [headerLen]byte
	have    int // bytes of header
	left    int // bytes of the answer that follow
	answer  virtio.Cursor
	head    uint16
	size    uint32
	version bool // an Rversion whose msize is still to come
}

func newSession(server *p9.Server) *session {
	s := &session{in: make(chan []byte, queueSize), ended: make(chan struct{}), calls: make([]call, queueSize)}
	s.idle.L = &s.mu
	s.msize.Store(maxMsize)
	go func() {
		defer close(s.ended)
		// It returns when there is no more to read.
		err := server.Handle(source{s}, sink{s})
		s.fail(fmt.Errorf("the session has ended: %w", errors.Join(err, io.EOF)))
	}()
	return s
}

// settle waits, at the end of the input, until the server has answered what it
// took and its goroutines are back to wait for more. Server.Handle of p9 v0.3.0
// waits for them by a sync.WaitGroup that a goroutine joins anew for each
// message: one that does so while Handle waits makes the WaitGroup panic (mended
// upstream by commit 30ebacc, which is in no release). A goroutine joins within
// microseconds after it has answered; grace is for a busy host.
func (s *session) settle() {
	s.mu.Lock()
	for s.inside > 0 {
		s.idle.Wait()
	}
	s.mu.Unlock()
	time.Sleep(grace)
}

// attach lets answers go to q. Nothing is pending.
func (s *session) attach(q *virtio.Queue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.q = q
}

// detach waits until every request is answered. If the session has failed they
// are given back without an answer.
func (s *session) detach() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.pending > 0 && s.err == nil {
		s.idle.Wait()
	}
	for head := range s.calls {
		if c := s.take(uint16(head)); c.chain != nil {
			err = errors.Join(err, s.q.Push(c.chain, 0))
		}
	}
	return errors.Join(err, s.q.Notify())
}

// used says whether the guest has begun to use the files.
func (s *session) used() bool { return s.began.Load() }

func (s *session) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail ends the session with an error, once.
func (s *session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.idle.Broadcast()
	if s.q != nil && !s.closed {
		s.q.Ring()
	}
}

// close lets the server end: it sees the end of its input.
func (s *session) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.in)
	}
}

// request takes a T-message from a chain to the server. It is copied out whole
// first, since the guest could change it. An error ends the session.
func (s *session) request(c *virtio.Chain) error {
	n := c.ReadableLen()
	if n < headerLen || c.WritableLen() < errorLen {
		err := virtio.Fault(0, "9P", "a message of %d bytes, with %d for the answer", n, c.WritableLen())
		return errors.Join(err, s.q.Push(c, 0))
	}
	cur := virtio.NewReader(c.Readable())
	msg := make([]byte, min(n, maxMsize))
	cur.ReadFull(msg)
	size := binary.LittleEndian.Uint32(msg)
	tag := binary.LittleEndian.Uint16(msg[tagAt:])
	switch {
	case size < headerLen || size > n:
		err := virtio.Fault(0, "9P", "a message of %d bytes says that it has %d", n, size)
		return errors.Join(err, s.q.Push(c, 0))
	case size > s.msize.Load():
		return s.refuse(c, tag, eMsgSize)
	case msg[4] == typeXattrWalk || msg[4] == typeXattrCreate:
		// The server would keep values of any size in memory.
		return s.refuse(c, tag, eOpNotSupp)
	}
	s.mu.Lock()
	if s.closed || s.err != nil {
		s.mu.Unlock()
		return errors.Join(s.failure(), s.q.Push(c, 0))
	}
	defer s.mu.Unlock()
	s.prepare(msg[:size], c.Head())
	s.calls[c.Head()] = call{c, tag}
	s.pending++
	s.inside++
	s.in <- msg[:size] // there is room for as many as there are chains
	return nil
}

// prepare changes what the server is not to see as the guest wrote it. mu is
// held.
func (s *session) prepare(msg []byte, head uint16) {
	le := binary.LittleEndian
	le.PutUint16(msg[tagAt:], head)
	body := msg[headerLen:]
	switch msg[4] {
	case typeVersion:
		// The limit that the server keeps is always ours, so that it never meets
		// a message beyond it, which ends its session at once; see put.
		if len(body) >= 4 && le.Uint32(body) != 0 {
			s.msize.Store(max(min(le.Uint32(body), maxMsize), headerLen))
			le.PutUint32(body, maxMsize)
		}
	case typeRead, typeReaddir:
		if len(body) >= countAt+4 {
			le.PutUint32(body[countAt:], min(le.Uint32(body[countAt:]), s.msize.Load()-headerLen))
		}
	case typeFlush:
		if len(body) >= 2 {
			le.PutUint16(body, s.headOf(le.Uint16(body)))
		}
	case typeAttach:
		s.began.Store(true)
	}
}

// headOf returns the head of the pending call with the guest's tag, or one
// that no call has.
func (s *session) headOf(tag uint16) uint16 {
	for head, c := range s.calls {
		if c.chain != nil && c.tag == tag {
			return uint16(head)
		}
	}
	return queueSize
}

// refuse answers a request with an error of ours.
func (s *session) refuse(c *virtio.Chain, tag uint16, errno uint32) error {
	var b [errorLen]byte
	putError(b[:], tag, errno)
	w := virtio.NewWriter(c.Writable())
	w.Put(b[:])
	return errors.Join(s.q.Push(c, errorLen), s.q.Notify())
}

func putError(b []byte, tag uint16, errno uint32) {
	le := binary.LittleEndian
	le.PutUint32(b, errorLen)
	b[4] = typeError
	le.PutUint16(b[tagAt:], tag)
	le.PutUint32(b[headerLen:], errno)
}

// take removes a call. mu is held.
func (s *session) take(head uint16) call {
	c := s.calls[head]
	if c.chain != nil {
		s.calls[head] = call{}
		s.pending--
	}
	if s.pending == 0 {
		s.idle.Broadcast()
	}
	return c
}

// source is the session as the server's input.
type source struct{ *session }

// Read implements io.Reader.
func (s source) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		msg, ok := <-s.in
		if !ok {
			s.settle()
			return 0, io.EOF
		}
		s.rest = msg
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close implements io.Closer.
func (s source) Close() error { return nil }

// sink is the session as the server's output.
type sink struct{ *session }

// Close implements io.Closer.
func (s sink) Close() error { return nil }

// Write implements io.Writer. The server writes one answer after the other, in
// any pieces; an error ends the answer.
func (s sink) Write(p []byte) (n int, err error) {
	defer func() {
		if err != nil {
			s.fail(err)
			s.leave()
		}
	}()
	if err := s.failure(); err != nil {
		return 0, err
	}
	for len(p) > 0 {
		k := 0
		if s.have < headerLen {
			k = copy(s.header[s.have:], p)
			if s.have += k; s.have == headerLen {
				err = s.begin()
			}
		} else {
			k = min(len(p), s.left)
			err = s.put(p[:k])
		}
		n, p = n+k, p[k:]
		if err == nil && s.have == headerLen && s.left == 0 {
			err = s.finish()
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// leave counts an answer that did not reach the guest.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside--
	s.idle.Broadcast()
}

// put writes a part of an answer to the guest, unless its chain was given back
// because the session has failed.
func (s *session) put(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left -= len(p)
	if s.err != nil {
		return s.err
	}
	if s.version && len(p) >= 4 {
		// Rversion has the msize of prepare: the guest gets its own.
		le := binary.LittleEndian
		p = bytes.Clone(p)
		le.PutUint32(p, min(le.Uint32(p), s.msize.Load()))
		s.version = false
	}
	s.answer.Put(p)
	return nil
}

// begin finds the chain for an answer whose header is there.
func (s *session) begin() error {
	le := binary.LittleEndian
	s.size, s.head = le.Uint32(s.header[:]), le.Uint16(s.header[tagAt:])
	s.left = int(s.size) - headerLen
	s.version = s.header[4] == typeVersion+1
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(s.head) >= len(s.calls) || s.calls[s.head].chain == nil {
		// The server does not tell which message it did not understand.
		return errors.New("a message that is not of the protocol")
	}
	c := s.calls[s.head]
	s.answer = virtio.NewWriter(c.chain.Writable())
	if s.size > c.chain.WritableLen() {
		s.answer = virtio.Cursor{} // to nowhere; finish tells the guest
		return nil
	}
	le.PutUint16(s.header[tagAt:], c.tag)
	s.answer.Put(s.header[:])
	return nil
}

// finish gives the chain of a whole answer back.
func (s *session) finish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have = 0
	c := s.take(s.head)
	if c.chain == nil {
		return s.err // given back meanwhile: the session has failed
	}
	written := s.size
	if written > c.chain.WritableLen() {
		var b [errorLen]byte
		putError(b[:], c.tag, eMsgSize)
		w := virtio.NewWriter(c.chain.Writable())
		w.Put(b[:])
		written = errorLen
	}
	if err := errors.Join(s.q.Push(c.chain, written), s.q.Notify()); err != nil {
		return err
	}
	s.inside--
	s.idle.Broadcast()
	return nil
}
