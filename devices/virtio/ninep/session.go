package ninep

import (
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
	typeWrite       = 118 // Twrite: the same, then the data
	offsetAt        = 4   // in the body
	countAt         = 12

	errorLen = headerLen + 4
	dataLen  = headerLen + 4           // Rread and Rreaddir before the data: count le32
	ioLen    = headerLen + countAt + 4 // Tread, and Twrite before the data
	maxMsize = 1 << 20                 // what a guest may negotiate: buffers of that size are ours

	grace = 10 * time.Millisecond

	eOpNotSupp = 95 // errno values of the protocol, Linux's
	eMsgSize   = 90
)

// call is a request that the server has.
type call struct {
	chain *virtio.Chain // nil: none
	tag   uint16        // the guest's
	data  data          // of a Tread or Twrite
	msg   []byte        // the message as the server reads it; kept for the next one
}

// session is one connection of a guest to the server. The server sees, as the
// tag of a request, the head of its chain: that is unique, whatever tags the
// guest uses, and leads back to the chain.
type session struct {
	files p9.Attacher
	msize atomic.Uint32
	began atomic.Bool // the guest has attached

	mu      sync.Mutex
	in      chan []byte   // requests for the server; nil when there is none
	ended   chan struct{} // closed when the server has ended
	fed     bool          // the server has had a request
	idle    sync.Cond     // no calls, none that the server works on, or no transfer
	q       *virtio.Queue
	calls   []call // by head
	pending int
	inside  int // messages that the server has taken and not answered
	moving  int // transfers between files and guest memory that are under way
	err     error
	closed  bool

	// Write's: the answer that the server is writing.
	header  [headerLen]byte
	have    int // bytes of header
	left    int // bytes of the answer that follow
	answer  virtio.Cursor
	head    uint16
	size    uint32
	version bool // an Rversion whose msize is still to come
	read    bool // an Rread whose count is still to come
}

func newSession(files p9.Attacher) *session {
	s := &session{files: files, calls: make([]call, queueSize)}
	s.idle.L = &s.mu
	s.msize.Store(maxMsize)
	s.start()
	return s
}

// start gives the session a server.
func (s *session) start() {
	in, ended := make(chan []byte, queueSize), make(chan struct{})
	s.in, s.ended, s.fed = in, ended, false
	server := p9.NewServer(attacher{s, s.files})
	go func() {
		defer close(ended)
		// It returns when there is no more to read.
		err := server.Handle(&source{session: s, in: in}, sink{s})
		s.over(in, fmt.Errorf("the session has ended: %w", errors.Join(err, io.EOF)))
	}()
}

// over fails the session when its server has ended of itself.
func (s *session) over(in chan []byte, err error) {
	s.mu.Lock()
	own := s.in == in
	s.mu.Unlock()
	if own {
		s.fail(err)
	}
}

// stop lets the server end: it sees the end of its input. mu is held.
func (s *session) stop() (ended chan struct{}) {
	if s.in != nil {
		close(s.in)
		s.in = nil
	}
	return s.ended
}

// renew begins the session anew, with a server that has seen no message: that
// is what a Tversion means. p9's server itself would keep all fids, and put new
// buffers, without a lock, where other requests look for them.
func (s *session) renew() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled()
	if s.err != nil || s.closed || !s.fed {
		return s.err
	}
	ended := s.stop()
	s.mu.Unlock()
	<-ended
	s.mu.Lock()
	if !s.closed {
		s.start()
	}
	return nil
}

// settled waits until no request is pending, or the session has failed. mu is
// held.
func (s *session) settled() {
	for s.pending > 0 && s.err == nil {
		s.idle.Wait()
	}
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
// are given back without an answer, once no file writes to their buffers.
func (s *session) detach() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.moving > 0 || s.pending > 0 && s.err == nil {
		s.idle.Wait()
	}
	for head := range s.calls {
		if chain, _ := s.take(uint16(head)); chain != nil {
			err = errors.Join(err, s.q.Push(chain, 0))
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

// close ends the session. The channel that it returns is closed when the
// server is done with the files.
func (s *session) close() (ended chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.stop()
}

// request takes a T-message from a chain to the server. It is copied out first,
// since the guest could change it, but for the data of a Twrite, which is
// whatever it is when the file takes it. An error ends the session.
func (s *session) request(c *virtio.Chain) error {
	n := c.ReadableLen()
	if n < headerLen || c.WritableLen() < errorLen {
		err := virtio.Fault(0, "9P", "a message of %d bytes, with %d for the answer", n, c.WritableLen())
		return errors.Join(err, s.q.Push(c, 0))
	}
	cur := virtio.NewReader(c.Readable())
	var start [ioLen]byte
	cur.ReadFull(start[:min(n, ioLen)])
	size := binary.LittleEndian.Uint32(start[:])
	tag := binary.LittleEndian.Uint16(start[tagAt:])
	switch kind := start[4]; {
	case size < headerLen || size > n:
		err := virtio.Fault(0, "9P", "a message of %d bytes says that it has %d", n, size)
		return errors.Join(err, s.q.Push(c, 0))
	case size > s.msize.Load():
		return s.refuse(c, tag, eMsgSize)
	case kind == typeXattrWalk || kind == typeXattrCreate:
		// The server would keep values of any size in memory.
		return s.refuse(c, tag, eOpNotSupp)
	case kind == typeVersion:
		if err := s.renew(); err != nil {
			return errors.Join(err, s.q.Push(c, 0))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.err != nil {
		return errors.Join(s.err, s.q.Push(c, 0))
	}
	k := &s.calls[c.Head()]
	k.chain, k.tag = c, tag
	k.data.plan(&start, size, c, s.msize.Load())
	if k.data.way == toFile {
		size = ioLen
	}
	k.msg = append(k.msg[:0], start[:min(size, ioLen)]...)
	if size > ioLen {
		k.msg = append(k.msg, make([]byte, size-ioLen)...)
		cur.ReadFull(k.msg[ioLen:])
	}
	s.prepare(k.msg, c.Head(), k.data.way)
	s.pending++
	s.inside++
	s.fed = true
	s.in <- k.msg // there is room for as many as there are chains
	if k.msg[4] == typeVersion {
		s.settled() // before others look for the buffers; see renew
	}
	return nil
}

// prepare changes what the server is not to see as the guest wrote it. mu is
// held.
func (s *session) prepare(msg []byte, head uint16, way way) {
	le := binary.LittleEndian
	le.PutUint16(msg[tagAt:], head)
	body := msg[headerLen:]
	if way != notMoved {
		// The server moves nothing, and asks the file for the call of that number.
		le.PutUint32(msg, uint32(len(msg)))
		le.PutUint64(body[offsetAt:], uint64(head))
		le.PutUint32(body[countAt:], 0)
		return
	}
	switch msg[4] {
	case typeVersion:
		// The limit that the server keeps is always ours, so that it never meets
		// a message beyond it, which ends its session at once; see put.
		if len(body) >= 4 && le.Uint32(body) != 0 {
			s.msize.Store(max(min(le.Uint32(body), maxMsize), headerLen))
			le.PutUint32(body, maxMsize)
		}
	case typeReaddir:
		if len(body) >= countAt+4 {
			le.PutUint32(body[countAt:], min(le.Uint32(body[countAt:]), dataRoom(s.msize.Load())))
		}
	case typeFlush:
		if len(body) >= 2 {
			le.PutUint16(body, s.headOf(le.Uint16(body)))
		}
	case typeAttach:
		s.began.Store(true)
	}
}

// dataRoom is how much data an answer of n bytes can carry.
func dataRoom(n uint32) uint32 { return max(n, dataLen) - dataLen }

// headOf returns the head of the pending call with the guest's tag, or one
// that no call has.
func (s *session) headOf(tag uint16) uint16 {
	for head := range s.calls {
		if c := &s.calls[head]; c.chain != nil && c.tag == tag {
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
func (s *session) take(head uint16) (*virtio.Chain, uint16) {
	c := &s.calls[head]
	chain := c.chain
	if chain != nil {
		c.chain = nil
		s.pending--
	}
	if s.pending == 0 {
		s.idle.Broadcast()
	}
	return chain, c.tag
}
