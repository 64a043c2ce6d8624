package net

import (
	"encoding/binary"
	stdnet "net"
	"sync/atomic"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

var testMAC = stdnet.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}

// fakeBackend is a network of channels.
type fakeBackend struct {
	offloads uint64
	ports    []*fakePort
	taken    atomic.Uint64
	pairs    atomic.Int64
}

func newFakeBackend(pairs int, offloads uint64) *fakeBackend {
	b := &fakeBackend{offloads: offloads}
	for range pairs {
		b.ports = append(b.ports, &fakePort{
			sent: make(chan []byte, 1024), in: make(chan []byte, 1024), wake: make(chan struct{}, 1)})
	}
	return b
}

func (b *fakeBackend) Offloads() uint64           { return b.offloads }
func (b *fakeBackend) SetOffloads(o uint64) error { b.taken.Store(o); return nil }
func (b *fakeBackend) SetPairs(n int) error       { b.pairs.Store(int64(n)); return nil }
func (b *fakeBackend) Ports() (ps []Port) {
	for _, p := range b.ports {
		ps = append(ps, p)
	}
	return ps
}

// fakePort gives frames in two pieces, the first of them 20 bytes.
type fakePort struct {
	sent, in chan []byte
	wake     chan struct{}
	next     []byte
	err      error
}

func (p *fakePort) Send(frame [][]byte) error {
	b := make([]byte, lengthOf(frame))
	gather(b, frame)
	p.sent <- b
	return nil
}

func (p *fakePort) Flush() error { return nil }

func (p *fakePort) Recv() ([][]byte, error) {
	b := p.next
	p.next = nil
	if b == nil {
		select {
		case b = <-p.in:
		default:
			return nil, p.err
		}
	}
	cut := min(20, len(b))
	return [][]byte{b[:cut], b[cut:]}, nil
}

func (p *fakePort) Wait() error {
	select {
	case p.next = <-p.in:
	case <-p.wake:
	}
	return nil
}

func (p *fakePort) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// guest is a driver of a device on a fake network.
type guest struct {
	t   testing.TB
	dev *Device
	net *fakeBackend
	d   *virtiotest.Driver
}

func newGuest(t testing.TB, net *fakeBackend, cfg Config, features uint64) *guest {
	t.Helper()
	return newGuestAt(t, net, cfg, features, false)
}

func newGuestAt(t testing.TB, net *fakeBackend, cfg Config, features uint64, pci bool) *guest {
	t.Helper()
	cfg.Backend = net
	if cfg.MAC == nil {
		cfg.MAC = testMAC
	}
	dev, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dev: dev, net: net, d: virtiotest.New(t, dev, virtiotest.Config{PCI: pci})}
	g.d.Start(features)
	return g
}

func (g *guest) rx() *virtiotest.Ring { return g.d.Rings[0] }
func (g *guest) tx() *virtiotest.Ring { return g.d.Rings[1] }

// buffers gives the device receive buffers.
func (g *guest) buffers(sizes ...int) {
	for _, n := range sizes {
		g.rx().Add(nil, n)
	}
	g.rx().Kick()
}

// recv waits for a frame and returns it with its header, from as many buffers
// as that says.
func (g *guest) recv() (h Header, frame []byte) {
	g.t.Helper()
	q := g.rx().Wait(g.t)
	b := q.In()[:q.Written]
	h.Decode(b)
	for range int(h.NumBuffers) - 1 {
		q := g.rx().Next()
		if q == nil {
			g.t.Fatalf("a frame in %d buffers did not come at once", h.NumBuffers)
		}
		b = append(b, q.In()[:q.Written]...)
	}
	return h, b[HeaderLen:]
}

// send waits until the device has taken a frame.
func (g *guest) send(h Header, frame []byte) {
	g.t.Helper()
	var b [HeaderLen]byte
	h.Encode(b[:])
	g.tx().Do(g.t, [][]byte{b[:], frame})
}

// command sends one to the control queue and returns the answer.
func (g *guest) command(queue int, class, cmd uint8, data []byte) uint8 {
	g.t.Helper()
	return g.d.Rings[queue].Do(g.t, [][]byte{{class, cmd}, data}, 1)[0]
}

// ethernet is a frame of n bytes to dst.
func ethernet(dst stdnet.HardwareAddr, n int) []byte {
	b := make([]byte, n)
	copy(b, dst)
	copy(b[6:], []byte{2, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(b[12:], 0x0800)
	for i := ethernetHeader; i < n; i++ {
		b[i] = byte(i * 7)
	}
	return b
}

// withHeader is a frame as a back end gives it.
func withHeader(h Header, frame []byte) []byte {
	b := make([]byte, HeaderLen, HeaderLen+len(frame))
	h.Encode(b)
	return append(b, frame...)
}

const ringFeatures = virtio.FeatureEventIdx | virtio.FeatureIndirectDesc
