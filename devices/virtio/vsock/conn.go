package vsock

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// bufAlloc is the receive buffer that each connection offers to the guest, in
// bytes. It is allocated as far as the guest fills it.
const bufAlloc = 256 << 10

// closeTimeout is how long a closed connection waits for the guest's RST
// before it is reset: the time that Linux's own driver gives (VSOCK_CLOSE_TIMEOUT
// in net/vmw_vsock/virtio_transport_common.c).
const closeTimeout = 8 * time.Second

// Addr is one end of a connection.
type Addr struct {
	CID  uint32 // context ID: 2 is the host
	Port uint32
}

// Network is "vsock".
func (Addr) Network() string { return "vsock" }

// String is CID:PORT.
func (a Addr) String() string { return fmt.Sprintf("%d:%d", a.CID, a.Port) }

// state is how far a connection has come.
type state uint8

const (
	stateConnecting  state = iota // host dialled: REQUEST is due or sent
	stateRequested                // guest dialled: nobody has answered yet
	stateEstablished              // both ends agreed
	stateClosing                  // host closed: SHUTDOWN is due or sent, RST awaited
	stateClosed                   // the guest knows it no more
)

// Control packets that are due. Each is due at most once, so they need no
// queue whatever the guest does.
const (
	dueRequest = 1 << iota
	dueResponse
	dueShutdown
	dueCreditUpdate
	dueCreditRequest
)

// Conn is one stream between host and guest, seen from the host. It is a
// net.Conn with the half-close of TCP; every method may be called from any
// goroutine.
//
// Write returns when the guest's driver has all bytes: they are copied once,
// from the caller's slice into the driver's buffers. What the guest sends is
// held until Read takes it, at most 256 KiB (the guest's credit, virtio 1.2
// §5.10.6.3).
type Conn struct {
	m   *mux
	key key

	queued bool  // in m's list of connections with something due; guarded by m.mu
	next   *Conn // the list; guarded by m.mu

	gone chan struct{} // closed when the guest knows the connection no more

	writing sync.Mutex // held during Write: writes do not interleave

	mu        sync.Mutex
	readable  sync.Cond // in, or a reason for Read to fail, changed
	writable  sync.Cond // out, state, or a reason for Write to fail, changed
	state     state
	err       error // why the guest's end is gone; nil after a clean end
	closed    bool  // Close was called
	uncounted bool  // no longer in m.open
	due       uint8
	sentShut  uint32 // SHUTDOWN flags of ours
	peerShut  uint32 // SHUTDOWN flags of the guest's
	closer    *time.Timer
	readEnd   deadline
	writeEnd  deadline
	in        ring
	again     []byte // read before a snapshot, and not dealt with then: read again first
	kept      []byte // what Read has returned since Done
	keeps     bool   // Keep was called
	fwdCnt    uint32 // bytes that left in
	fwdTold   uint32 // the fwdCnt that the guest was last told
	out       []byte // what Write has still to send
	txCnt     uint32 // bytes sent
	peerAlloc uint32 // the guest's buffer
	peerFwd   uint32 // bytes that left it
	asked     bool   // a CREDIT_REQUEST is unanswered
}

var _ net.Conn = (*Conn)(nil)

func newConn(m *mux, k key, s state) *Conn {
	c := &Conn{m: m, key: k, state: s, gone: make(chan struct{})}
	c.readable.L, c.writable.L = &c.mu, &c.mu
	return c
}

// LocalAddr is the host's end.
func (c *Conn) LocalAddr() net.Addr { return Addr{HostCID, c.key.local} }

// RemoteAddr is the guest's end.
func (c *Conn) RemoteAddr() net.Addr { return Addr{c.m.guestCID, c.key.peer} }

// Gone is closed when the guest knows the connection no more, because it closed
// or reset its end or was itself reset. What it sent before can still be read.
func (c *Conn) Gone() <-chan struct{} { return c.gone }

// IsGone says whether the guest knows the connection no more.
func (c *Conn) IsGone() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "vsock", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Read takes what the guest has sent. It returns io.EOF when the guest will
// send no more and everything is read, ECONNRESET when it reset the connection.
func (c *Conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	for len(p) > 0 && c.unread() == 0 && c.readErr() == nil {
		c.readable.Wait()
	}
	if err := c.readErr(); err != nil && (c.unread() == 0 || c.closed || c.readEnd.expired) {
		c.mu.Unlock()
		if err == io.EOF {
			return 0, err
		}
		return 0, c.opError("read", err)
	}
	n := copy(p, c.again)
	c.again = c.again[n:]
	if n == 0 {
		n = c.in.drain(p)
		c.fwdCnt += uint32(n)
	}
	if c.keeps {
		c.kept = append(c.kept, p[:n]...)
	}
	tell := c.state == stateEstablished && c.fwdCnt-c.fwdTold >= bufAlloc/4
	if tell {
		c.post(dueCreditUpdate)
	}
	c.mu.Unlock()
	if tell {
		c.m.kick()
	}
	return n, nil
}

// unread is how many bytes Read has at once; c.mu is held.
func (c *Conn) unread() int { return len(c.again) + c.in.n }

// readErr says why no further byte can be read; c.mu is held.
func (c *Conn) readErr() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.readEnd.expired:
		return os.ErrDeadlineExceeded
	case c.err != nil:
		return c.err
	case c.state == stateClosed || c.peerShut&shutSend != 0 || c.sentShut&shutReceive != 0:
		return io.EOF
	}
	return nil
}

// Write sends p and returns when the guest's driver has all of it, with the
// number of bytes that it has otherwise. It fails with EPIPE when the guest
// receives no more.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.writeErr(); err != nil {
		return 0, c.opError("write", err)
	}
	if len(p) == 0 {
		return 0, nil
	}
	c.out = p
	c.m.schedule(c)
	c.mu.Unlock()
	c.m.kick()
	c.mu.Lock()
	for len(c.out) > 0 && c.writeErr() == nil {
		c.writable.Wait()
	}
	n := len(p) - len(c.out)
	c.out = nil
	if n < len(p) {
		return n, c.opError("write", c.writeErr())
	}
	return n, nil
}

// writeErr says why no further byte can be written; c.mu is held.
func (c *Conn) writeErr() error {
	switch {
	case c.closed:
		return net.ErrClosed
	case c.writeEnd.expired:
		return os.ErrDeadlineExceeded
	case c.err != nil:
		return c.err
	case c.state == stateClosed || c.peerShut&shutReceive != 0 || c.sentShut&shutSend != 0:
		return syscall.EPIPE
	}
	return nil
}

// CloseWrite tells the guest that no more bytes follow; it reads end of file.
func (c *Conn) CloseWrite() error { return c.shutdown(shutSend) }

// CloseRead tells the guest that nothing will be read any more.
func (c *Conn) CloseRead() error { return c.shutdown(shutReceive) }

func (c *Conn) shutdown(flags uint32) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.opError("close", net.ErrClosed)
	}
	if c.state == stateEstablished && c.sentShut|flags != c.sentShut {
		c.sentShut |= flags
		c.post(dueShutdown)
	}
	c.wake()
	c.mu.Unlock()
	c.m.kick()
	return nil
}

// Close ends the connection in both directions. Bytes that the guest sent and
// nobody read are dropped; what Write returned for still reaches it.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	c.in.discard()
	c.again, c.kept = nil, nil
	switch c.state {
	case stateEstablished:
		c.state, c.sentShut = stateClosing, shutBoth
		c.post(dueShutdown)
		c.closer = time.AfterFunc(closeTimeout, c.abandon)
	case stateConnecting, stateRequested:
		c.abort(net.ErrClosed)
	case stateClosed:
		c.uncount()
	}
	c.wake()
	c.mu.Unlock()
	c.m.kick()
	return nil
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadlines(t, &c.readEnd, &c.writeEnd) }

// SetReadDeadline makes Read fail with os.ErrDeadlineExceeded from t on; the
// zero time means never.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(t, &c.readEnd) }

// SetWriteDeadline does the same for Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, &c.writeEnd) }

func (c *Conn) setDeadlines(t time.Time, ds ...*deadline) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	for _, d := range ds {
		d.set(c, t)
	}
	c.wake()
	return nil
}

// deadline is a moment after which an operation fails. Conn.mu guards it.
type deadline struct {
	timer   *time.Timer
	epoch   int // how often set was called: a timer of an older deadline does nothing
	expired bool
}

func (d *deadline) set(c *Conn, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.epoch++
	d.expired = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.expired = true
		return
	}
	mine := d.epoch
	d.timer = time.AfterFunc(left, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if d.epoch == mine {
			d.expired = true
			c.wake()
		}
	})
}

// wake lets Read and Write look again; c.mu is held.
func (c *Conn) wake() {
	c.readable.Broadcast()
	c.writable.Broadcast()
}
