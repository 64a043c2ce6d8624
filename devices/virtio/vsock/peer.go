package vsock

import (
	"io"
	"net"
	"syscall"
)

// This file is the protocol side of a Conn: what packets of the guest's do to
// it, and which packets it has for the guest.

// receive acts on one packet of the guest's for c.
func (c *Conn) receive(h *header, src io.Reader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateClosed { // closed since it was looked up
		c.m.reset(c.key, h.op)
		return
	}
	c.takeCredit(h)
	switch {
	case h.op == opRST:
		c.finish(c.resetErr())
	case h.op == opResponse && c.state == stateConnecting && c.due&dueRequest == 0:
		c.state = stateEstablished
		c.wake()
	case h.op == opCreditUpdate: // takeCredit has done it
	case c.state < stateEstablished:
		c.abort(syscall.ECONNRESET)
	case h.op == opRW:
		c.receiveData(int64(h.len), src)
	case h.op == opShutdown:
		c.receiveShutdown(h.flags)
	case h.op == opCreditRequest:
		c.post(dueCreditUpdate)
	default:
		c.abort(syscall.ECONNRESET)
	}
}

// resetErr is what an RST of the guest's means in the present state.
func (c *Conn) resetErr() error {
	switch c.state {
	case stateConnecting:
		return syscall.ECONNREFUSED
	case stateClosing:
		return nil
	}
	return syscall.ECONNRESET
}

// receiveData keeps n bytes of payload. A guest that sends more than its
// credit or after its own SHUTDOWN is reset: nothing is dropped silently, and
// it cannot make the host hold more than bufAlloc bytes.
func (c *Conn) receiveData(n int64, src io.Reader) {
	if n > int64(bufAlloc-c.in.n) || c.peerShut&shutSend != 0 {
		c.abort(syscall.ECONNRESET)
		return
	}
	if c.closed || c.sentShut&shutReceive != 0 {
		c.fwdCnt += uint32(n)
		return
	}
	if err := c.in.fill(src, int(n)); err != nil {
		c.abort(syscall.ECONNRESET)
		return
	}
	c.readable.Broadcast()
}

// receiveShutdown notes what the guest will do no more. With both directions
// shut it has closed its socket, and RST lets it forget the connection; what
// it sent before stays readable here.
func (c *Conn) receiveShutdown(flags uint32) {
	c.peerShut |= flags & shutBoth
	if c.peerShut == shutBoth {
		c.abort(nil)
		return
	}
	c.wake()
}

// takeCredit learns the guest's free buffer space from any packet (virtio 1.2
// §5.10.6.3).
func (c *Conn) takeCredit(h *header) {
	c.peerAlloc, c.peerFwd = h.bufAlloc, h.fwdCnt
	if c.credit() > 0 {
		c.asked = false
		if len(c.out) > 0 {
			c.m.schedule(c)
		}
	}
}

// credit is how many bytes the guest has room for. The counters run freely; a
// guest that shrinks its buffer or counts wrongly has room for none.
func (c *Conn) credit() int {
	return int(max(0, int64(c.peerAlloc)-int64(c.txCnt-c.peerFwd)))
}

// post makes control packets due; c.mu is held, and the caller kicks the mux
// after it has released it.
func (c *Conn) post(due uint8) {
	c.due |= due
	c.m.schedule(c)
}

// transmit hands s the next packet of c's. Every packet tells the guest its
// credit.
func (c *Conn) transmit(s sink) result {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.nextOp()
	if o == opInvalid {
		return idle
	}
	room, ok := s.buffer()
	if !ok {
		c.m.scheduleFirst(c)
		return full
	}
	n := 0
	if o == opRW {
		n = min(len(c.out), c.credit(), room)
	}
	c.sent(o)
	h := header{
		srcCID: HostCID, dstCID: uint64(c.m.guestCID), srcPort: c.key.local, dstPort: c.key.peer,
		len: uint32(n), typ: typeStream, op: o, bufAlloc: bufAlloc, fwdCnt: c.fwdCnt,
	}
	if o == opShutdown {
		h.flags = c.sentShut
	}
	s.packet(h, c.out[:n])
	c.fwdTold = c.fwdCnt
	c.out = c.out[n:]
	c.txCnt += uint32(n)
	if n > 0 && len(c.out) == 0 {
		c.writable.Broadcast()
	}
	if c.nextOp() != opInvalid {
		c.m.schedule(c)
	}
	return sent
}

// nextOp is the operation that is due first, opInvalid if none is. Data comes
// before SHUTDOWN, which ends it.
func (c *Conn) nextOp() op {
	data := len(c.out) > 0 && c.writeErr() == nil
	switch {
	case c.state == stateClosed:
		return opInvalid
	case c.due&dueRequest != 0:
		return opRequest
	case c.due&dueResponse != 0:
		return opResponse
	case data && c.credit() > 0:
		return opRW
	case c.due&dueShutdown != 0:
		return opShutdown
	case data && !c.asked:
		return opCreditRequest
	case c.due&dueCreditUpdate != 0:
		return opCreditUpdate
	}
	return opInvalid
}

// sent notes that a packet with operation o is on its way. Any packet is a
// credit update.
func (c *Conn) sent(o op) {
	c.due &^= dueCreditUpdate
	switch o {
	case opRequest:
		c.due &^= dueRequest
	case opResponse:
		c.due &^= dueResponse
	case opShutdown:
		c.due &^= dueShutdown
	case opCreditRequest:
		c.asked = true
	}
}

// finish ends c for the guest: it knows the connection no more. c.mu is held.
func (c *Conn) finish(err error) {
	if c.state == stateClosed {
		return
	}
	c.state, c.err, c.due = stateClosed, err, 0
	close(c.gone)
	if c.closer != nil {
		c.closer.Stop()
	}
	c.m.remove(c)
	c.uncount()
	c.wake()
}

// uncount takes a connection that neither side holds any more off the limit.
func (c *Conn) uncount() {
	if !c.closed || c.state != stateClosed || c.uncounted {
		return
	}
	c.uncounted = true
	c.m.mu.Lock()
	c.m.open--
	c.m.mu.Unlock()
}

// abort ends c with an RST to the guest, unless the guest has not even been
// asked for the connection. c.mu is held.
func (c *Conn) abort(err error) {
	if c.state == stateClosed {
		return
	}
	if c.due&dueRequest == 0 {
		c.m.reset(c.key, opInvalid)
	}
	c.finish(err)
}

// abandon resets a connection that was closed and that the guest did not end
// in time.
func (c *Conn) abandon() {
	c.mu.Lock()
	c.abort(nil)
	c.mu.Unlock()
	c.m.kick()
}

// accept answers the guest's request with RESPONSE; it reports whether the
// guest still wants the connection. The caller kicks the mux.
func (c *Conn) accept() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateRequested {
		return false
	}
	c.state = stateEstablished
	c.post(dueResponse)
	return true
}

// refuse answers the guest's request with RST.
func (c *Conn) refuse() {
	c.mu.Lock()
	c.closed = true
	c.abort(net.ErrClosed)
	c.uncount()
	c.mu.Unlock()
}

// transportReset ends c without a word to the guest, which has forgotten it.
// A connection that the guest has not been asked for yet goes on.
func (c *Conn) transportReset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.due&dueRequest == 0 {
		c.finish(syscall.ECONNRESET)
	}
}
