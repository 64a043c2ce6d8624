package vsock

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// acceptBacklog is how many connections a Listener holds for Accept.
const acceptBacklog = 64

// dial connects to the guest's port; see Device.Dial.
func (m *mux) dialContext(ctx context.Context, port uint32) (*Conn, error) {
	fail := func(err error) (*Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "vsock", Addr: Addr{m.cid(), port}, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	c, err := m.dial(port)
	if err != nil {
		return fail(err)
	}
	c.mu.Lock()
	c.post(dueRequest)
	c.mu.Unlock()
	m.kick()
	stop := context.AfterFunc(ctx, func() { c.giveUp(context.Cause(ctx)) })
	defer stop()
	if err := c.awaitResponse(); err != nil {
		return fail(err)
	}
	return c, nil
}

// giveUp ends a connection that the guest has not answered.
func (c *Conn) giveUp(err error) {
	c.mu.Lock()
	if c.state == stateConnecting {
		c.abort(err)
	}
	c.mu.Unlock()
	c.m.kick()
}

func (c *Conn) awaitResponse() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.state == stateConnecting {
		c.readable.Wait()
	}
	// A guest that answers and resets at once did connect: the caller
	// learns of the reset by reading.
	if c.state == stateClosed && c.err != nil {
		c.closed = true
		c.uncount()
		return c.err
	}
	return nil
}

// Listener takes the connections that the guest makes to one port of the
// host's.
type Listener struct {
	m    *mux
	port uint32

	mu     sync.Mutex // guards closed and sends to queue
	closed bool
	queue  chan *Conn
}

var _ net.Listener = (*Listener)(nil)

func (m *mux) listen(port uint32) (*Listener, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "vsock", Addr: Addr{HostCID, port},
			Err: fmt.Errorf("port is taken: %w", syscall.EADDRINUSE)}
	}
	l := &Listener{m: m, port: port, queue: make(chan *Conn, acceptBacklog)}
	m.listeners[port] = l
	return l, nil
}

// offer accepts c and queues it, if there is room.
func (l *Listener) offer(c *Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.queue) == cap(l.queue) || !c.accept() {
		return false
	}
	l.queue <- c
	return true
}

// Accept waits for the guest's next connection.
func (l *Listener) Accept() (net.Conn, error) {
	c, ok := <-l.queue
	if !ok {
		return nil, &net.OpError{Op: "accept", Net: "vsock", Addr: l.Addr(), Err: net.ErrClosed}
	}
	return c, nil
}

// Close ends Accept and closes the connections that nobody accepted.
func (l *Listener) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return &net.OpError{Op: "close", Net: "vsock", Addr: l.Addr(), Err: net.ErrClosed}
	}
	l.closed = true
	close(l.queue)
	l.mu.Unlock()
	l.m.mu.Lock()
	delete(l.m.listeners, l.port)
	l.m.mu.Unlock()
	for c := range l.queue {
		_ = c.Close()
	}
	return nil
}

// Addr is the host's CID and the port.
func (l *Listener) Addr() net.Addr { return Addr{HostCID, l.port} }
