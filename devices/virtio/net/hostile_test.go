package net

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

func (g *guest) waitForReset(what string) {
	g.t.Helper()
	for end := time.Now().Add(virtiotest.Timeout); !g.d.NeedsReset(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatalf("%s: the device goes on", what)
		}
	}
}

func TestBrokenDriversEndTheDevice(t *testing.T) {
	frame := withHeader(Header{}, ethernet(testMAC, 60))
	for name, breakIt := range map[string]func(g *guest){
		"frame without a header":                    func(g *guest) { g.tx().Add([][]byte{frame[:HeaderLen-1]}) },
		"buffer for the device to write as a frame": func(g *guest) { g.tx().Add(nil, 100) },
		"receive buffer of 11 bytes": func(g *guest) {
			g.buffers(HeaderLen - 1)
			g.net.ports[0].in <- frame
		},
		"receive buffer to read from": func(g *guest) {
			g.rx().Add([][]byte{frame})
			g.net.ports[0].in <- frame
		},
		"command without an answer": func(g *guest) { g.d.Rings[2].Add([][]byte{{0, 0, 1}}) },
		"descriptor outside memory": func(g *guest) {
			q := g.tx().Prepare([][]byte{frame})
			g.tx().SetDescriptor(q.Head(), virtiotest.Descriptor{Addr: 1 << 40, Len: 100})
			g.tx().Submit(q)
		},
		"available index": func(g *guest) { g.tx().SetAvailIdx(0x8000) },
	} {
		g := newGuest(t, newFakeBackend(1, Offloads), Config{}, FeatureCtrlVQ|FeatureCtrlRX|FeatureMrgRxbuf)
		breakIt(g)
		for _, r := range g.d.Rings {
			r.Kick()
		}
		g.waitForReset(name)
		g.d.Start(FeatureMrgRxbuf) // and a reset brings it back
		g.send(Header{}, frame[HeaderLen:])
	}
}

// FuzzDevice has a driver send frames, give buffers and issue commands that the
// input describes, 24 bytes each: what to do, three lengths, four spare bytes,
// and 16 for a header or a command.
func FuzzDevice(f *testing.F) {
	step := func(what byte, lengths [3]byte, data ...byte) []byte {
		b := append([]byte{what}, lengths[:]...)
		return append(append(b, 0, 0, 0, 0), append(data, make([]byte, 16)...)[:16]...)
	}
	f.Add(step(0, [3]byte{12, 60, 0}, 1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0))
	f.Add(append(step(1, [3]byte{20, 100, 200}), step(2, [3]byte{}, 1, 0, 255, 255, 255, 255)...))
	f.Add(append(step(3, [3]byte{1, 2, 3}), step(4, [3]byte{9, 0, 0})...))
	f.Fuzz(func(t *testing.T, in []byte) {
		net := newFakeBackend(1, Offloads)
		g := newGuest(t, net, Config{QueueSize: 64}, Offloads|FeatureCtrlVQ|FeatureCtrlRX|FeatureCtrlMAC|FeatureMrgRxbuf)
		for n := 0; len(in) >= 24 && n < 16; n++ {
			a, b, c, data := int(in[1]), int(in[2]), int(in[3]), in[8:24]
			switch in[0] % 6 {
			case 0:
				g.tx().Add([][]byte{data[:min(a, 16)], make([]byte, b), make([]byte, c)})
			case 1:
				g.rx().Add(nil, a, b, c)
			case 2:
				g.d.Rings[2].Add([][]byte{data}, a%2)
			case 3:
				g.rx().SetDescriptor(uint16(a%64), virtiotest.Descriptor{
					Addr: 0xfff_0000, Len: binary.LittleEndian.Uint32(data), Flags: uint16(b % 8), Next: uint16(c)})
			case 4:
				g.tx().SetAvailIdx(g.tx().AvailIdx() + uint16(a))
			case 5:
				net.ports[0].in <- withHeader(Header{GSOType: data[0]}, ethernet(testMAC, 14+a*b))
			}
			for _, r := range g.d.Rings {
				r.Kick()
			}
			in = in[24:]
		}
		g.d.Transport.Pause(t.Context())
		close(net.ports[0].sent)
		for b := range net.ports[0].sent {
			var h Header
			h.Decode(b)
			if n := len(b) - HeaderLen; n < ethernetHeader || h.Check(n, Offloads) != nil {
				t.Fatalf("a back end got %d bytes with %+v", n, h)
			}
		}
		for _, q := range g.d.Transport.Inspect().Queues {
			if q.InFlight != 0 {
				t.Fatalf("queue %d: %d in flight", q.Index, q.InFlight)
			}
		}
	})
}
