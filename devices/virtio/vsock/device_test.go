package vsock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

func TestConfigSpaceIsTheContextID(t *testing.T) {
	dev := mustNew(t, Config{CID: 0x1234_5678})
	p := make([]byte, 10)
	dev.ReadConfig(1, p)
	if want := []byte{0x56, 0x34, 0x12, 0, 0, 0, 0, 0, 0, 0}; !bytes.Equal(p, want) {
		t.Errorf("bytes 1 to 10 are % x, want % x", p, want)
	}
	dev.WriteConfig(0, []byte{1, 2, 3, 4})
	dev.ReadConfig(^uint64(0), p)
	if !bytes.Equal(p, make([]byte, 10)) {
		t.Errorf("past the end is % x", p)
	}
	if dev.CID() != 0x1234_5678 {
		t.Errorf("context ID %#x", dev.CID())
	}
}

func TestBadConfigs(t *testing.T) {
	for _, cfg := range []Config{{CID: 2}, {CID: 0xffff_ffff}, {CID: 3, QueueSize: 3}, {CID: 3, MaxConns: -1}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestHostDials(t *testing.T) {
	g := newGuest(t, mustNew(t, Config{}), 8, 4096)
	c, h := g.dial(1024)
	if h.srcCID != HostCID || h.dstCID != testCID || h.dstPort != 1024 || h.typ != typeStream || h.bufAlloc == 0 {
		t.Errorf("REQUEST is %+v", h)
	}
	go c.Write([]byte("question"))
	if _, data := g.want(opRW); string(data) != "question" {
		t.Errorf("guest got %q", data)
	}
	g.answer(h, opRW, []byte("answer"))
	p := make([]byte, 10)
	if n, err := c.Read(p); err != nil || string(p[:n]) != "answer" {
		t.Errorf("host got %q, %v", p[:n], err)
	}
	c.Close()
	if h, _ := g.want(opShutdown); h.flags != shutBoth {
		t.Errorf("SHUTDOWN with flags %d", h.flags)
	}
	g.answer(h, opRST, nil)
}

func TestDialWaitsForADriver(t *testing.T) {
	dev := mustNew(t, Config{})
	done := dialLater(dev, 7)
	g := newGuest(t, dev, 8, 4096)
	h, _ := g.want(opRequest)
	g.answer(h, opRST, nil)
	if d := <-done; !errors.Is(d.err, syscall.ECONNREFUSED) {
		t.Errorf("refused dial: %v", d.err)
	}
}

func TestGuestConnects(t *testing.T) {
	dev := mustNew(t, Config{})
	l, err := dev.Listen(99)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dev.Listen(99); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("port listened for twice: %v", err)
	}
	g := newGuest(t, dev, 8, 4096)
	g.send(header{srcPort: 5000, dstPort: 99, op: opRequest}, nil)
	g.want(opResponse)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if a := c.RemoteAddr(); a.String() != "3:5000" || a.Network() != "vsock" {
		t.Errorf("remote address %v", a)
	}
	g.send(header{srcPort: 5000, dstPort: 99, op: opShutdown, flags: shutBoth}, nil)
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read after the guest's close: %v", err)
	}
	g.want(opRST)
	g.send(header{srcPort: 5000, dstPort: 98, op: opRequest}, nil)
	g.want(opRST)
}

func TestForwardGetsWhatNobodyListensFor(t *testing.T) {
	dev := mustNew(t, Config{})
	g := newGuest(t, dev, 8, 4096)
	dev.Forward(func(r Request) {
		go func() {
			if r.Port() != 1 {
				r.Refuse()
				return
			}
			c, err := r.Accept()
			if err == nil {
				c.Write([]byte("hello"))
			}
		}()
	})
	g.send(header{srcPort: 5, dstPort: 1, op: opRequest}, nil)
	g.want(opResponse)
	if _, data := g.want(opRW); string(data) != "hello" {
		t.Errorf("guest got %q", data)
	}
	g.send(header{srcPort: 5, dstPort: 2, op: opRequest}, nil)
	g.want(opRST)
	dev.Forward(nil)
	g.send(header{srcPort: 6, dstPort: 1, op: opRequest}, nil)
	g.want(opRST)
	if s := dev.Stats(); s.Conns != 1 || s.BytesToGuest != 5 || s.PacketsFromGuest != 3 {
		t.Errorf("counters %+v", s)
	}
}

func TestOverPCI(t *testing.T) {
	dev := mustNew(t, Config{})
	g := &guest{t: t, dev: dev, d: virtiotest.New(t, dev, virtiotest.Config{PCI: true})}
	g.start(8, 4096)
	if cid := g.d.Config64(0); cid != testCID {
		t.Errorf("context ID %d", cid)
	}
	c, h := g.dial(9)
	g.answer(h, opRW, []byte("hello"))
	p := make([]byte, 10)
	if n, err := c.Read(p); err != nil || string(p[:n]) != "hello" {
		t.Errorf("host got %q, %v", p[:n], err)
	}
}

// reflected is a connection of the host with itself by way of the guest.
func reflected(dev *Device, port uint32) (c1, c2 net.Conn, stop func(), err error) {
	l, err := dev.Listen(port)
	if err != nil {
		return nil, nil, nil, err
	}
	if c1, err = dev.Dial(context.Background(), port); err != nil {
		return nil, nil, nil, err
	}
	if c2, err = l.Accept(); err != nil {
		return nil, nil, nil, err
	}
	return c1, c2, func() { l.Close(); c1.Close(); c2.Close() }, nil
}

func TestNetConnThroughQueues(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dev := mustNew(t, Config{})
	newGuest(t, dev, 16, 4096).reflect()
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) { return reflected(dev, 7) })
}

// TestPauseLosesNothing pauses and resumes the device again and again during a
// transfer with receive buffers that are much too few.
func TestPauseLosesNothing(t *testing.T) {
	dev := mustNew(t, Config{})
	g := newGuest(t, dev, 2, 1000)
	g.reflect()
	c1, c2, stop, err := reflected(dev, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	sent := make([]byte, 512<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range sent {
		sent[i] = byte(r.Uint32())
	}
	paused := make(chan error, 1)
	go func() {
		var err error
		for range 50 {
			err = errors.Join(err, g.d.Transport.Pause(context.Background()))
			for _, q := range g.d.Transport.Inspect().Queues {
				if q.InFlight != 0 {
					err = errors.Join(err, errors.New("a packet is in flight after a pause"))
				}
			}
			err = errors.Join(err, g.d.Transport.Resume())
			time.Sleep(time.Millisecond)
		}
		paused <- err
	}()
	go func() {
		c1.Write(sent)
		c1.(*Conn).CloseWrite()
	}()
	got, err := io.ReadAll(c2)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d bytes, %v; want the %d that were sent", len(got), err, len(sent))
	}
	if err := <-paused; err != nil {
		t.Error(err)
	}
}

func TestDriverResetEndsStreams(t *testing.T) {
	dev := mustNew(t, Config{})
	g := newGuest(t, dev, 8, 4096)
	c, _ := g.dial(1)
	g.start(8, 4096)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v", err)
	}
	g.dial(2)
}

// restore does what a restore does to a device.
func (g *guest) restore() {
	g.t.Helper()
	err := g.d.Transport.Pause(context.Background())
	state, serr := g.dev.State()
	if err := errors.Join(err, serr, g.dev.SetState(state), g.d.Transport.Resume()); err != nil {
		g.t.Fatal(err)
	}
}

// TestRestoreResetsTheTransport checks that a driver learns of it before
// anything else reaches it, and has acted on it before a dial of the host's
// arrives.
func TestRestoreResetsTheTransport(t *testing.T) {
	dev := mustNew(t, Config{})
	g := newGuest(t, dev, 8, 4096)
	g.dial(4)
	g.restore()
	done := dialLater(dev, 5)
	events := g.ring(queueEvent)
	q := events.Wait(t)
	if q.Written != eventLen || !bytes.Equal(q.In(), make([]byte, eventLen)) {
		t.Errorf("event % x of %d bytes", q.In(), q.Written)
	}
	time.Sleep(10 * time.Millisecond)
	if g.ring(queueRx).Next() != nil {
		t.Error("a packet came before the driver had acted on the reset")
	}
	events.Submit(q)
	events.Kick()
	h, _ := g.want(opRequest)
	g.answer(h, opResponse, nil)
	if d := <-done; d.err != nil {
		t.Error(d.err)
	}
	if events.Next() != nil {
		t.Error("a second event")
	}
}

// TestRestoreWithoutStreams spares the guest the event, also when a dial was
// still on its way.
func TestRestoreWithoutStreams(t *testing.T) {
	dev := mustNew(t, Config{})
	g := newGuest(t, dev, 0, 0)
	first := dialLater(dev, 1)
	for dev.Stats().Conns == 0 {
		time.Sleep(time.Millisecond)
	}
	g.restore()
	g.ring(queueRx).Add(nil, 4096)
	g.ring(queueRx).Kick()
	h, _ := g.want(opRequest)
	g.answer(h, opResponse, nil)
	if d := <-first; d.err != nil {
		t.Error(d.err)
	}
	if g.ring(queueEvent).Next() != nil {
		t.Error("an event for a guest without streams")
	}
	// Another context ID is one to be told of all the same.
	if err := dev.SetState([]byte(`{"Version":2,"CID":77}`)); err != nil || !dev.restored.Load() {
		t.Errorf("restored with another context ID: %v, told: %v", err, dev.restored.Load())
	}
}

func TestRestoreWithoutAnAnswerGoesOn(t *testing.T) {
	defer func(d time.Duration) { ackTimeout = d }(ackTimeout)
	ackTimeout = 20 * time.Millisecond
	dev := mustNew(t, Config{})
	dev.restored.Store(true)
	g := &guest{t: t, dev: dev, d: virtiotest.New(t, dev, virtiotest.Config{})}
	g.d.Start(ringFeatures) // which resets the device
	dev.restored.Store(true)
	if err := errors.Join(g.d.Transport.Pause(context.Background()), g.d.Transport.Resume()); err != nil {
		t.Fatal(err)
	}
	g.ring(queueRx).Add(nil, 4096)
	g.ring(queueRx).Kick()
	dialLater(dev, 5)
	g.want(opRequest)
}

func TestBadStates(t *testing.T) {
	for _, s := range []string{
		"", "{}", `{"Version":1,"CID":3}`, `{"Version":2,"CID":1}`, `{"Version":2,"CID":3,"Streams":-1}`,
		`{"Version":2,"CID":3,"Streams":[null]}`, `{"Version":2,"CID":3,"Streams":[{"SentShut":4}]}`,
		`{"Version":2,"CID":3,"Streams":[` + strings.Repeat("{},", 4096) + `{}]}`,
	} {
		dev := mustNew(t, Config{})
		if err := dev.SetState([]byte(s)); err == nil || dev.restored.Load() {
			t.Errorf("state %q was taken: %v", s, err)
		}
	}
}
