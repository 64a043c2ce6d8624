package vsock

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/nettest"
)

const testCID = 3

// relay is a guest that connects the host with itself: a packet that the host
// sends from port p to the guest's port g comes back from the guest's port p
// to the host's port g.
type relay struct {
	m    *mux
	work chan struct{}
	done chan struct{}
	wg   sync.WaitGroup

	room int // payload of a receive buffer
	in   header
	data []byte
}

func newRelay(t testing.TB, room int) *relay {
	t.Helper()
	return relayFor(t, newMux(testCID, 64), room)
}

func relayFor(t testing.TB, m *mux, room int) *relay {
	t.Helper()
	r := &relay{m: m, work: make(chan struct{}, 1), done: make(chan struct{}), room: room}
	r.m.kick = func() {
		select {
		case r.work <- struct{}{}:
		default:
		}
	}
	r.wg.Go(r.run)
	t.Cleanup(func() { close(r.done); r.wg.Wait() })
	return r
}

func (r *relay) buffer() (int, bool) { return r.room, true }

func (r *relay) packet(h header, data []byte) {
	r.in, r.data = h, append(r.data[:0], data...)
}

func (r *relay) run() {
	for {
		select {
		case <-r.work:
		case <-r.done:
			return
		}
		for r.m.transmit(r) == sent {
			h := r.in
			h.srcCID, h.dstCID = h.dstCID, h.srcCID
			r.m.receive(&h, bytes.NewReader(r.data))
		}
	}
}

// pipe is a connection of the host with itself through the relay.
func (r *relay) pipe(port uint32) (c1, c2 net.Conn, stop func(), err error) {
	l, err := r.m.listen(port)
	if err != nil {
		return nil, nil, nil, err
	}
	if c1, err = r.m.dialContext(context.Background(), port); err != nil {
		return nil, nil, nil, err
	}
	if c2, err = l.Accept(); err != nil {
		return nil, nil, nil, err
	}
	return c1, c2, func() { l.Close(); c1.Close(); c2.Close() }, nil
}

func TestConnIsANetConn(t *testing.T) {
	r := newRelay(t, 4096-headerLen)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) { return r.pipe(7) })
}

func TestConnHalfClose(t *testing.T) {
	r := newRelay(t, 100)
	c1, c2, stop, err := r.pipe(7)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	sent := bytes.Repeat([]byte("0123456789"), 100_000)
	go func() {
		c1.Write(sent)
		c1.(*Conn).CloseWrite()
	}()
	got, err := io.ReadAll(c2)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("read %d bytes, %v; want the %d that were sent", len(got), err, len(sent))
	}
	go c2.Write([]byte("answer"))
	if got, err := io.ReadAll(io.LimitReader(c1, 6)); err != nil || string(got) != "answer" {
		t.Fatalf("read %q, %v after CloseWrite; want the answer", got, err)
	}
	if _, err := c1.Write([]byte("x")); err == nil {
		t.Error("write after CloseWrite succeeded")
	}
}
