package vsock

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
)

// rstBacklog is how many RST replies may wait for receive buffers of the
// driver's before the device stops taking packets from it: the "additional
// resources" of virtio 1.2 §5.10.6.1, bounded.
const rstBacklog = 256

// firstEphemeral is the first port for connections from the host; those below
// are left to listeners.
const firstEphemeral = 1 << 30

// key names a connection: the guest's CID is the device's, the host's is 2.
type key struct {
	local, peer uint32 // host's port, guest's port
}

// sink takes packets to the guest.
type sink interface {
	// buffer makes sure of a buffer for one packet, and says how many bytes
	// of payload it has room for, at least one.
	buffer() (room int, ok bool)

	// packet fills the buffer. data is only valid during the call.
	packet(h header, data []byte)
}

// result is what became of an attempt to send.
type result uint8

const (
	idle result = iota // there was nothing to send
	sent               // a packet is on its way
	full               // there was no buffer for it
)

// mux is the connection table of one device: what packets from the guest do,
// and which packets are due to it. It knows no virtqueues.
//
// Locks are taken in the order Conn.mu, mux.mu.
type mux struct {
	kick     func() // called without locks after something became due
	guestCID uint32

	mu        sync.Mutex
	conns     map[key]*Conn
	listeners map[uint32]*Listener
	forward   func(*Conn) // takes requests that no listener does; called with mu held
	open      int         // Conns that either side still holds
	maxOpen   int
	nextPort  uint32

	first, last *Conn // connections with something due, linked by Conn.next
	rsts        []key // RST replies due
	rstsSent    int   // of rsts, those already sent

	saved map[key]*streamState // of a restored device: what the guest still takes for open
}

func newMux(cid uint32, maxOpen int) *mux {
	return &mux{
		kick: func() {}, guestCID: cid, maxOpen: maxOpen, nextPort: firstEphemeral,
		conns: make(map[key]*Conn), listeners: make(map[uint32]*Listener),
	}
}

// receive acts on one packet of the guest's. Its payload, h.len bytes, is read
// from src if it is wanted. A packet that lies about its addresses is dropped,
// as a host's kernel does.
func (m *mux) receive(h *header, src io.Reader) {
	if h.dstCID != HostCID || h.srcCID != uint64(m.cid()) {
		return
	}
	k := key{local: h.dstPort, peer: h.srcPort}
	if h.typ != typeStream {
		m.reset(k, h.op)
		return
	}
	if c := m.lookup(k); c != nil {
		c.receive(h, src)
		return
	}
	if h.op != opRequest || !m.request(k, h) {
		m.reset(k, h.op)
	}
}

func (m *mux) cid() uint32 { return m.guestCID }

func (m *mux) lookup(k key) *Conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conns[k]
}

// reset makes an RST due for a packet that belongs to no connection. An RST is
// never answered with another.
func (m *mux) reset(k key, cause op) {
	if cause == opRST {
		return
	}
	m.mu.Lock()
	m.rsts = append(m.rsts, k)
	m.mu.Unlock()
}

// congested says that the guest must first take what is due to it.
func (m *mux) congested() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.rsts)-m.rstsSent >= rstBacklog
}

// pending says that something is due to the guest.
func (m *mux) pending() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first != nil || len(m.rsts) > 0
}

// openConns is how many connections either side holds.
func (m *mux) openConns() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open
}

// request admits a connection that the guest asks for, if somebody on the host
// takes it.
func (m *mux) request(k key, h *header) bool {
	m.mu.Lock()
	l := m.listeners[k.local]
	if (l == nil && m.forward == nil) || m.open >= m.maxOpen {
		m.mu.Unlock()
		return false
	}
	c := m.add(k, stateRequested)
	c.peerAlloc, c.peerFwd = h.bufAlloc, h.fwdCnt
	if l == nil {
		m.forward(c)
	}
	m.mu.Unlock()
	if l != nil && !l.offer(c) {
		c.refuse()
	}
	return true
}

// add makes a connection; m.mu is held.
func (m *mux) add(k key, s state) *Conn {
	c := newConn(m, k, s)
	m.conns[k] = c
	m.open++
	return c
}

// dial makes a connection to the guest's port from a free port of the host's.
func (m *mux) dial(port uint32) (*Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open >= m.maxOpen {
		return nil, fmt.Errorf("all %d connections of the device are in use", m.maxOpen)
	}
	// At most maxOpen ports are taken, so this ends.
	for {
		k := key{local: m.nextPort, peer: port}
		if m.nextPort++; m.nextPort == 0xffff_ffff { // VMADDR_PORT_ANY
			m.nextPort = firstEphemeral
		}
		if m.conns[k] == nil && m.listeners[k.local] == nil {
			return m.add(k, stateConnecting), nil
		}
	}
}

// remove takes a connection that the guest knows no more out of the table.
func (m *mux) remove(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conns[c.key] == c {
		delete(m.conns, c.key)
	}
}

// schedule puts c among the connections with something due; c.mu is held.
func (m *mux) schedule(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.queued {
		return
	}
	c.queued, c.next = true, nil
	if m.last == nil {
		m.first = c
	} else {
		m.last.next = c
	}
	m.last = c
}

// scheduleFirst puts c back to where due took it from; c.mu is held.
func (m *mux) scheduleFirst(c *Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.queued {
		return
	}
	c.queued, c.next = true, m.first
	m.first = c
	if m.last == nil {
		m.last = c
	}
}

// due takes out the connection that is next to send.
func (m *mux) due() *Conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.first
	if c == nil {
		return nil
	}
	if m.first = c.next; m.first == nil {
		m.last = nil
	}
	c.queued, c.next = false, nil
	return c
}

// transmit hands s the next packet that is due.
func (m *mux) transmit(s sink) result {
	if r := m.transmitReset(s); r != idle {
		return r
	}
	for c := m.due(); c != nil; c = m.due() {
		if r := c.transmit(s); r != idle {
			return r
		}
	}
	return idle
}

// transmitReset hands s the first of the resets that are due.
func (m *mux) transmitReset(s sink) result {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.rsts) == 0 {
		return idle
	}
	if _, ok := s.buffer(); !ok {
		return full
	}
	k := m.rsts[m.rstsSent]
	if m.rstsSent++; m.rstsSent == len(m.rsts) {
		m.rsts, m.rstsSent = m.rsts[:0], 0
	}
	s.packet(header{srcCID: HostCID, dstCID: uint64(m.guestCID), srcPort: k.local, dstPort: k.peer,
		typ: typeStream, op: opRST}, nil)
	return sent
}

// resetAll ends every connection that the guest has seen, as when its driver
// starts anew. Connections that it has not been asked for yet stay due.
func (m *mux) resetAll() {
	m.mu.Lock()
	cs := slices.Collect(maps.Values(m.conns))
	m.rsts, m.rstsSent = nil, 0
	m.mu.Unlock()
	for _, c := range cs {
		c.transportReset()
	}
}

// setForward has f called for each request of the guest's that no listener
// takes; nil refuses them. f must not block. When setForward returns, the
// function before is not running.
func (m *mux) setForward(f func(*Conn)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forward = f
}
