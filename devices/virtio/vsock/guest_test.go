package vsock

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

const ringFeatures = virtio.FeatureEventIdx | virtio.FeatureIndirectDesc

// guest is a driver whose packets the test writes and reads.
type guest struct {
	t   testing.TB
	dev *Device
	d   *virtiotest.Driver
	fwd uint32 // the fwd_cnt that the host last told
}

// newGuest starts a driver with rxBuffers receive buffers of rxSize bytes and
// an event buffer.
func newGuest(t testing.TB, dev *Device, rxBuffers, rxSize int) *guest {
	t.Helper()
	g := &guest{t: t, dev: dev, d: virtiotest.New(t, dev, virtiotest.Config{})}
	g.start(rxBuffers, rxSize)
	return g
}

func (g *guest) start(rxBuffers, rxSize int) {
	g.t.Helper()
	g.d.Start(ringFeatures | featureStream)
	for range rxBuffers {
		g.ring(queueRx).Add(nil, rxSize)
	}
	g.ring(queueEvent).Add(nil, eventLen)
	g.ring(queueRx).Kick()
	g.ring(queueEvent).Kick()
}

func (g *guest) ring(queue int) *virtiotest.Ring { return g.d.Rings[queue] }

// recv waits for a packet of the host's.
func (g *guest) recv() (h header, data []byte) {
	g.t.Helper()
	q := g.ring(queueRx).Wait(g.t)
	h, data = parse(g.t, q)
	g.ring(queueRx).Submit(q)
	g.ring(queueRx).Kick()
	return h, data
}

func parse(t testing.TB, q *virtiotest.Request) (h header, data []byte) {
	t.Helper()
	b := q.In()[:q.Written]
	if len(b) < headerLen {
		t.Fatalf("packet of %d bytes", len(b))
	}
	h.decode((*[headerLen]byte)(b))
	if int(h.len) != len(b)-headerLen {
		t.Fatalf("packet with %d bytes of payload says %d", len(b)-headerLen, h.len)
	}
	return h, b[headerLen:]
}

// want waits for a packet and checks its operation.
func (g *guest) want(o op) (h header, data []byte) {
	g.t.Helper()
	if h, data = g.recv(); h.op != o {
		g.t.Fatalf("host sent %v, want %v", h.op, o)
	}
	return h, data
}

// send is a packet of the guest's; h's CIDs, type and length are filled in.
func (g *guest) send(h header, data []byte) {
	g.t.Helper()
	h.srcCID, h.dstCID, h.typ, h.len = testCID, HostCID, typeStream, uint32(len(data))
	if h.bufAlloc == 0 {
		h.bufAlloc = 1 << 16
	}
	g.sendRaw(h, data)
}

func (g *guest) sendRaw(h header, data []byte) {
	g.t.Helper()
	var raw [headerLen]byte
	h.encode(&raw)
	g.ring(queueTx).Do(g.t, [][]byte{raw[:], data})
}

// answer sends o to where h came from.
func (g *guest) answer(h header, o op, data []byte) {
	g.t.Helper()
	g.send(header{srcPort: h.dstPort, dstPort: h.srcPort, op: o}, data)
}

// reflect makes the driver a guest that connects the host with itself, as relay
// does: what arrives at a port comes back from there.
func (g *guest) reflect() {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		rx, tx := g.ring(queueRx), g.ring(queueTx)
		for {
			q := rx.Next()
			if q == nil {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond / 4):
				}
				continue
			}
			h, data := parse(g.t, q)
			h.srcCID, h.dstCID = h.dstCID, h.srcCID
			var raw [headerLen]byte
			h.encode(&raw)
			tx.Do(g.t, [][]byte{raw[:], data})
			rx.Submit(q)
			rx.Kick()
		}
	})
	g.t.Cleanup(func() { close(stop); wg.Wait() })
}

func mustNew(t testing.TB, cfg Config) *Device {
	t.Helper()
	if cfg.CID == 0 {
		cfg.CID = testCID
	}
	dev, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// dialed is what a Dial in the background gives.
type dialed struct {
	c   *Conn
	err error
}

func dialLater(dev *Device, port uint32) chan dialed {
	done := make(chan dialed, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), virtiotest.Timeout)
		defer cancel()
		c, err := dev.Dial(ctx, port)
		if err != nil {
			done <- dialed{nil, err}
			return
		}
		done <- dialed{c.(*Conn), nil}
	}()
	return done
}

// dial is a connection of the host's to the guest's port, and the REQUEST.
func (g *guest) dial(port uint32) (*Conn, header) {
	g.t.Helper()
	done := dialLater(g.dev, port)
	h, _ := g.want(opRequest)
	g.answer(h, opResponse, nil)
	d := <-done
	if d.err != nil {
		g.t.Fatal(d.err)
	}
	return d.c, h
}
