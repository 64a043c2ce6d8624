package vsock

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"syscall"
	"testing"
	"time"
)

// zeros is a payload of any length.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// script is a guest whose packets the test writes.
type script struct {
	t    testing.TB
	m    *mux
	got  []header
	data []byte
}

func newScript(t testing.TB, maxOpen int) *script {
	return &script{t: t, m: newMux(testCID, maxOpen)}
}

func (s *script) buffer() (int, bool) { return 4096, true }

func (s *script) packet(h header, data []byte) {
	s.got = append(s.got, h)
	s.data = append(s.data, data...)
}

// send is a packet of the guest's from its port 1000 to the host's port 5.
func (s *script) send(o op, mods ...func(*header)) {
	h := header{srcCID: testCID, dstCID: HostCID, srcPort: 1000, dstPort: 5, typ: typeStream, op: o, bufAlloc: 1 << 16}
	for _, f := range mods {
		f(&h)
	}
	s.m.receive(&h, zeros{})
}

// drain returns the operations that the host has sent.
func (s *script) drain() []op {
	s.got = s.got[:0]
	for s.m.transmit(s) == sent {
	}
	ops := make([]op, 0, len(s.got))
	for _, h := range s.got {
		ops = append(ops, h.op)
	}
	return ops
}

func (s *script) want(ops ...op) {
	s.t.Helper()
	got := s.drain()
	if len(got) != len(ops) {
		s.t.Fatalf("host sent %v, want %v", got, ops)
	}
	for i := range ops {
		if got[i] != ops[i] {
			s.t.Fatalf("host sent %v, want %v", got, ops)
		}
	}
}

// established is a connection that the guest made.
func (s *script) established() *Conn {
	s.t.Helper()
	l, err := s.m.listen(5)
	if err != nil {
		s.t.Fatal(err)
	}
	s.send(opRequest)
	s.want(opResponse)
	c, err := l.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	return c.(*Conn)
}

func flags(f uint32) func(*header)  { return func(h *header) { h.flags = f } }
func length(n uint32) func(*header) { return func(h *header) { h.len = n } }
func credit(alloc, fwd uint32) func(*header) {
	return func(h *header) { h.bufAlloc, h.fwdCnt = alloc, fwd }
}

func TestRequestWithoutListenerIsReset(t *testing.T) {
	s := newScript(t, 4)
	s.send(opRequest)
	s.want(opRST)
	if h := s.got[0]; h.srcPort != 5 || h.dstPort != 1000 || h.srcCID != HostCID || h.dstCID != testCID {
		t.Errorf("reset went from %d:%d to %d:%d", h.srcCID, h.srcPort, h.dstCID, h.dstPort)
	}
}

func TestPacketsWithoutConnection(t *testing.T) {
	for o, want := range map[op][]op{
		opInvalid: {opRST}, opResponse: {opRST}, opRST: nil, opShutdown: {opRST}, opRW: {opRST},
		opCreditUpdate: {opRST}, opCreditRequest: {opRST}, 77: {opRST},
	} {
		s := newScript(t, 4)
		s.send(o)
		s.want(want...)
	}
}

func TestForeignAddressesAreDropped(t *testing.T) {
	s := newScript(t, 4)
	s.send(opRequest, func(h *header) { h.dstCID = 7 })
	s.send(opRequest, func(h *header) { h.srcCID = 7 })
	s.send(opRequest, func(h *header) { h.srcCID = testCID | 1<<32 })
	s.want()
}

func TestUnknownSocketTypeIsReset(t *testing.T) {
	s := newScript(t, 4)
	s.send(opRequest, func(h *header) { h.typ = 2 })
	s.want(opRST)
}

func TestConnectionLimit(t *testing.T) {
	s := newScript(t, 2)
	l, err := s.m.listen(5)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []op{opResponse, opResponse, opRST} {
		port := uint32(len(s.m.conns) + 1)
		s.send(opRequest, func(h *header) { h.srcPort = port })
		s.want(want)
	}
	// One that the guest reset counts until the host lets go of it too.
	s.send(opRST, func(h *header) { h.srcPort = 1 })
	s.send(opRequest, func(h *header) { h.srcPort = 9 })
	s.want(opRST)
	c, _ := l.Accept()
	c.Close()
	s.send(opRequest, func(h *header) { h.srcPort = 9 })
	s.want(opResponse)
}

func TestAcceptBacklogIsBounded(t *testing.T) {
	s := newScript(t, 10*acceptBacklog)
	if _, err := s.m.listen(5); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(acceptBacklog + 1) {
		s.send(opRequest, func(h *header) { h.srcPort = i })
	}
	got := s.drain()
	resets := 0
	for _, o := range got {
		if o == opRST {
			resets++
		}
	}
	if resets != 1 || len(got) != acceptBacklog+1 {
		t.Errorf("%d packets, %d of them resets; want 1 reset of %d", len(got), resets, acceptBacklog+1)
	}
}

func TestGuestBeyondItsCreditIsReset(t *testing.T) {
	s := newScript(t, 4)
	c := s.established()
	s.send(opRW, length(bufAlloc))
	s.want()
	s.send(opRW, length(1))
	s.want(opRST)
	if n, err := io.ReadFull(c, make([]byte, bufAlloc)); err != nil {
		t.Errorf("read %d bytes, %v: what came before is lost", n, err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("then: %v, want ECONNRESET", err)
	}
}

func TestReadingReturnsCredit(t *testing.T) {
	s := newScript(t, 4)
	c := s.established()
	s.send(opRW, length(bufAlloc))
	if _, err := io.ReadFull(c, make([]byte, bufAlloc/4)); err != nil {
		t.Fatal(err)
	}
	s.want(opCreditUpdate)
	if h := s.got[0]; h.bufAlloc != bufAlloc || h.fwdCnt != bufAlloc/4 {
		t.Errorf("credit update says %d, %d", h.bufAlloc, h.fwdCnt)
	}
	s.send(opCreditRequest)
	s.want(opCreditUpdate)
}

// writing starts a Write and waits until it is due.
func (s *script) writing(c *Conn, n int) chan error {
	s.t.Helper()
	due := make(chan struct{}, 8)
	s.m.kick = func() { due <- struct{}{} }
	done := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, n))
		done <- err
	}()
	<-due
	return done
}

func TestHostKeepsToTheGuestsCredit(t *testing.T) {
	s := newScript(t, 4)
	c := s.established()
	s.send(opCreditUpdate, credit(6000, 0))
	done := s.writing(c, 10_000)
	s.want(opRW, opRW, opCreditRequest)
	if len(s.data) != 6000 {
		t.Fatalf("host sent %d bytes with a credit of 6000", len(s.data))
	}
	s.send(opCreditUpdate, credit(6000, 6001)) // more than was sent: no credit
	s.want()
	s.send(opCreditUpdate, credit(100, 0)) // a buffer that shrank: no credit
	s.want()
	s.send(opCreditUpdate, credit(6000, 5000))
	s.want(opRW)
	if err := <-done; err != nil || len(s.data) != 10_000 {
		t.Errorf("write: %v after %d bytes", err, len(s.data))
	}
}

func TestCountersWrap(t *testing.T) {
	s := newScript(t, 4)
	c := s.established()
	c.txCnt, c.peerFwd = math.MaxUint32-10, math.MaxUint32-10
	c.fwdCnt, c.fwdTold = math.MaxUint32-10, math.MaxUint32-10
	s.send(opCreditUpdate, credit(4096, math.MaxUint32-10))
	done := s.writing(c, 5000)
	s.want(opRW, opCreditRequest)
	s.send(opCreditUpdate, credit(4096, 4085))
	s.want(opRW)
	if err := <-done; err != nil {
		t.Error(err)
	}
	s.send(opRW, length(bufAlloc))
	if _, err := io.ReadFull(c, make([]byte, bufAlloc)); err != nil {
		t.Fatal(err)
	}
	s.want(opCreditUpdate)
	if s.got[0].fwdCnt != bufAlloc-11 {
		t.Errorf("fwd_cnt is %d, want %d", s.got[0].fwdCnt, bufAlloc-11)
	}
}

func TestShutdownOfBothDirections(t *testing.T) {
	s := newScript(t, 4)
	c := s.established()
	s.send(opRW, length(3))
	s.send(opShutdown, flags(shutSend))
	s.want()
	if b, err := io.ReadAll(c); err != nil || len(b) != 3 {
		t.Errorf("read %q, %v", b, err)
	}
	s.send(opShutdown, flags(shutReceive)) // bits add up
	s.want(opRST)
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write: %v, want EPIPE", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	s.want()
	if len(s.m.conns) != 0 || s.m.open != 0 {
		t.Errorf("%d connections, %d open", len(s.m.conns), s.m.open)
	}
}

func TestCloseWaitsForTheGuestsReset(t *testing.T) {
	s := newScript(t, 4)
	c := s.established()
	c.Close()
	s.want(opShutdown)
	if s.got[0].flags != shutBoth {
		t.Errorf("flags %d", s.got[0].flags)
	}
	s.send(opRW, length(100)) // on its way when the guest learned of it
	s.want()
	s.send(opRST)
	s.want()
	if len(s.m.conns) != 0 || s.m.open != 0 {
		t.Errorf("%d connections, %d open", len(s.m.conns), s.m.open)
	}
}

func TestCloseWithoutAnswerEndsWithReset(t *testing.T) {
	s := newScript(t, 4)
	c := s.established()
	c.Close()
	s.want(opShutdown)
	c.abandon() // what the timer does
	s.want(opRST)
	if len(s.m.conns) != 0 || s.m.open != 0 {
		t.Errorf("%d connections, %d open", len(s.m.conns), s.m.open)
	}
}

func TestOutOfTurnOperationsReset(t *testing.T) {
	for _, o := range []op{opInvalid, opRequest, opResponse, 8, 0xffff} {
		s := newScript(t, 4)
		c := s.established()
		s.send(o)
		s.want(opRST)
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%v: %v", o, err)
		}
	}
	s := newScript(t, 4)
	s.established()
	s.send(opShutdown, flags(shutSend))
	s.send(opRW, length(1))
	s.want(opRST)
}

func TestDial(t *testing.T) {
	answer := func(o op) (*script, net.Conn, error) {
		s := newScript(t, 4)
		s.m.kick = func() {
			if ops := s.drain(); len(ops) == 1 && ops[0] == opRequest {
				h := s.got[0]
				go s.send(o, func(r *header) { r.srcPort, r.dstPort = h.dstPort, h.srcPort })
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		c, err := s.m.dialContext(ctx, 1024)
		return s, c, err
	}
	if _, _, err := answer(opResponse); err != nil {
		t.Errorf("accepted: %v", err)
	}
	if s, _, err := answer(opRST); !errors.Is(err, syscall.ECONNREFUSED) || s.m.open != 0 {
		t.Errorf("refused: %v, %d open", err, s.m.open)
	}
	if s, _, err := answer(opRW); !errors.Is(err, syscall.ECONNRESET) || s.m.open != 0 {
		t.Errorf("answered out of turn: %v, %d open", err, s.m.open)
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	s := newScript(t, 4)
	asked := make(chan struct{}, 8)
	s.m.kick = func() { asked <- struct{}{} }
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := s.m.dialContext(ctx, 7); !errors.Is(err, context.Canceled) {
		t.Errorf("err is %v", err)
	}
	s.want() // the guest was never asked
	if len(s.m.conns) != 0 || s.m.open != 0 {
		t.Errorf("%d connections, %d open", len(s.m.conns), s.m.open)
	}
}

func TestResetAllKeepsUnsentDials(t *testing.T) {
	s := newScript(t, 4)
	c := s.established()
	asked := make(chan struct{}, 8)
	s.m.kick = func() { asked <- struct{}{} }
	done := make(chan error, 1)
	go func() {
		_, err := s.m.dialContext(context.Background(), 7)
		done <- err
	}()
	<-asked
	s.m.resetAll()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("established connection: %v", err)
	}
	s.want(opRequest)
	s.send(opResponse, func(h *header) { h.srcPort, h.dstPort = 7, s.got[0].srcPort })
	if err := <-done; err != nil {
		t.Errorf("dial: %v", err)
	}
}

func TestCongestion(t *testing.T) {
	s := newScript(t, 4)
	for range rstBacklog {
		if s.m.congested() {
			t.Fatal("congested too early")
		}
		s.send(opRequest)
	}
	if !s.m.congested() {
		t.Error("the guest makes the host queue resets without bound")
	}
	s.drain()
	if s.m.congested() {
		t.Error("still congested when the guest has taken all")
	}
}

// FuzzMux feeds packets to a device with a listener. Each of them takes 12
// bytes of the input: operation, flags, two ports out of few, length, credit.
func FuzzMux(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x05\x00\x00\x00\x00\x01\x00\x00\x00\x10\x00\x00"))
	f.Add(bytes.Repeat([]byte("\x05\x03\x01\x01\xff\xff\x07\x00\x00\x10\x00\x00"), 5))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newScript(t, 3)
		l, err := s.m.listen(5)
		if err != nil {
			t.Fatal(err)
		}
		for ; len(in) >= 12; in = in[12:] {
			le := binary.LittleEndian
			s.send(op(in[0]%10), flags(uint32(in[1])), length(le.Uint32(in[4:])&0xfffff), credit(le.Uint32(in[8:]), uint32(in[7])),
				func(h *header) { h.srcPort, h.dstPort = uint32(in[2]%4), uint32(4+in[3]%3) })
			if len(s.drain()) > 64 {
				t.Fatal("one packet made many")
			}
			select {
			case c := <-l.queue:
				c.SetDeadline(time.Unix(1, 0))
				c.Write([]byte("x"))
				if in[1]&1 != 0 {
					c.Close()
				}
			default:
			}
		}
		held := 0
		for _, c := range s.m.conns {
			held += c.in.n
		}
		if s.m.open > 3 || held > 3*bufAlloc {
			t.Fatalf("%d connections hold %d bytes", s.m.open, held)
		}
	})
}
