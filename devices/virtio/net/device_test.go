package net

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	stdnet "net"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

func TestConfigSpace(t *testing.T) {
	g := newGuest(t, newFakeBackend(3, 0), Config{MTU: 9000}, 0)
	p := make([]byte, 16)
	g.dev.ReadConfig(0, p)
	if want := []byte{0x52, 0x54, 0, 1, 2, 3, 1, 0, 3, 0, 0x28, 0x23, 0, 0, 0, 0}; !bytes.Equal(p, want) {
		t.Errorf("configuration space % x, want % x", p, want)
	}
	g.dev.ReadConfig(^uint64(0), p)
	if !bytes.Equal(p, make([]byte, 16)) {
		t.Errorf("past the end is % x", p)
	}
	if n := len(g.dev.Spec().QueueMax); n != 7 {
		t.Errorf("%d queues, want 7", n)
	}
}

func TestOfferedFeatures(t *testing.T) {
	const own = FeatureMAC | FeatureStatus | FeatureMrgRxbuf | FeatureCtrlVQ | FeatureCtrlRX | FeatureCtrlMAC | FeatureAnnounce
	for _, c := range []struct {
		pairs    int
		mtu      int
		backend  uint64
		features uint64
	}{
		{1, 0, 0, own},
		{1, 1500, 0, own | FeatureMTU},
		{2, 0, Offloads, own | FeatureMQ | Offloads},
		{1, 0, FeatureCsum | FeatureMQ | 1<<63, own | FeatureCsum}, // a back end adds offloads only
	} {
		dev, err := New(Config{Backend: newFakeBackend(c.pairs, c.backend), MTU: c.mtu})
		if err != nil {
			t.Fatal(err)
		}
		if f := dev.Spec().Features; f != c.features {
			t.Errorf("%+v: features %#x", c, f)
		}
		if mac := dev.MAC(); mac[0]&3 != 2 {
			t.Errorf("%v is not a local unicast address", mac)
		}
	}
}

func TestBadConfigs(t *testing.T) {
	for _, cfg := range []Config{
		{}, {Backend: newFakeBackend(0, 0)},
		{Backend: newFakeBackend(1, 0), MAC: stdnet.HardwareAddr{1, 2, 3, 4, 5, 6}},
		{Backend: newFakeBackend(1, 0), MAC: stdnet.HardwareAddr{2}},
		{Backend: newFakeBackend(1, 0), MTU: 67}, {Backend: newFakeBackend(1, 0), QueueSize: 100},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

func TestOffloadsNeedOneAnother(t *testing.T) {
	for features, want := range map[uint64]uint64{
		FeatureHostTSO4 | FeatureGuestTSO6:                             0,
		FeatureCsum | FeatureHostECN:                                   FeatureCsum,
		FeatureCsum | FeatureHostTSO6 | FeatureHostECN:                 FeatureCsum | FeatureHostTSO6 | FeatureHostECN,
		FeatureGuestCsum | FeatureGuestTSO4:                            FeatureGuestCsum | FeatureGuestTSO4,
		FeatureMQ | FeatureCtrlRX | FeatureGuestECN:                    0,
		FeatureCtrlVQ | FeatureMQ | FeatureGuestCsum | FeatureGuestECN: FeatureCtrlVQ | FeatureMQ | FeatureGuestCsum,
	} {
		net := newFakeBackend(1, Offloads)
		if got := settle(features); got != want {
			t.Errorf("%#x settles to %#x, want %#x", features, got, want)
		}
		g := newGuest(t, net, Config{}, features)
		g.send(Header{}, ethernet(testMAC, 60))
		if net.taken.Load() != want&Offloads {
			t.Errorf("%#x: the back end was told %#x", features, net.taken.Load())
		}
	}
}

func TestTransmit(t *testing.T) {
	net := newFakeBackend(1, Offloads)
	g := newGuest(t, net, Config{}, ringFeatures|Offloads)
	h := Header{Flags: HeaderNeedsCsum, GSOType: GSOTCPv4, GSOSize: 1400, HdrLen: 54, CsumStart: 34, CsumOffset: 16, NumBuffers: 9}
	frame := ethernet(testMAC, 5000)
	g.send(h, frame)
	h.NumBuffers = 0
	if got := <-net.ports[0].sent; !bytes.Equal(got, withHeader(h, frame)) {
		t.Errorf("the back end got % x…", got[:HeaderLen])
	}
	// The header may lie in any pieces, and with the frame.
	b := withHeader(h, frame)
	g.tx().Do(t, [][]byte{b[:5], b[5:7], b[7:20], b[20:]})
	if got := <-net.ports[0].sent; !bytes.Equal(got, b) {
		t.Errorf("in four pieces, the back end got % x…", got[:HeaderLen])
	}
	if s := g.dev.Stats().FromGuest; s.Frames != 2 || s.Bytes != 10_000 || s.Dropped != 0 {
		t.Errorf("counters %+v", s)
	}
}

func TestBadFramesAreDropped(t *testing.T) {
	csum := Header{Flags: HeaderNeedsCsum, CsumStart: 34, CsumOffset: 16}
	tso := Header{Flags: HeaderNeedsCsum, CsumStart: 34, CsumOffset: 16, GSOType: GSOTCPv4, GSOSize: 1400}
	mod := func(h Header, f func(*Header)) Header { f(&h); return h }
	for name, c := range map[string]struct {
		h        Header
		n        int
		features uint64
	}{
		"runt":                  {Header{}, 13, Offloads},
		"empty":                 {Header{}, 0, Offloads},
		"too long":              {Header{}, 65535 + 15, Offloads},
		"checksum past the end": {csum, 50, Offloads},
		"checksum far past":     {mod(csum, func(h *Header) { h.CsumStart, h.CsumOffset = 0xffff, 0xffff }), 60, Offloads},
		"checksum not agreed":   {csum, 60, 0},
		"TSO not agreed":        {tso, 60, FeatureCsum},
		"TSO without size":      {mod(tso, func(h *Header) { h.GSOSize = 0 }), 60, Offloads},
		"TSO without checksum":  {mod(tso, func(h *Header) { h.Flags = 0 }), 60, Offloads},
		"ECN not agreed":        {mod(tso, func(h *Header) { h.GSOType |= GSOECN }), 60, FeatureCsum | FeatureHostTSO4},
		"UDP segmentation":      {mod(tso, func(h *Header) { h.GSOType = GSOUDP }), 60, Offloads},
		"unknown segmentation":  {mod(tso, func(h *Header) { h.GSOType = 77 }), 60, Offloads},
	} {
		t.Run(name, func(t *testing.T) {
			net := newFakeBackend(1, Offloads)
			g := newGuest(t, net, Config{}, c.features)
			g.send(c.h, make([]byte, c.n))
			g.send(Header{}, ethernet(testMAC, 60))
			if got := <-net.ports[0].sent; len(got) != HeaderLen+60 || len(net.ports[0].sent) != 0 {
				t.Errorf("it got through: %d bytes", len(got))
			}
			if d := g.dev.Stats().FromGuest.Dropped; d != 1 {
				t.Errorf("%d dropped", d)
			}
		})
	}
}

func TestReceive(t *testing.T) {
	net := newFakeBackend(1, Offloads)
	g := newGuest(t, net, Config{}, ringFeatures|Offloads|FeatureMrgRxbuf)
	frame := ethernet(testMAC, 1000)
	want := Header{Flags: HeaderNeedsCsum, CsumStart: 34, CsumOffset: 16, GSOType: GSOTCPv4, GSOSize: 100, NumBuffers: 1}
	g.buffers(2000)
	net.ports[0].in <- withHeader(Header{Flags: HeaderNeedsCsum, CsumStart: 34, CsumOffset: 16, GSOType: GSOTCPv4, GSOSize: 100, NumBuffers: 77}, frame)
	if h, got := g.recv(); h != want || !bytes.Equal(got, frame) {
		t.Errorf("guest got %+v and %d bytes", h, len(got))
	}
	// In several buffers, of which the first holds little more than the header.
	g.buffers(14, 500, 12, 600, 2000)
	net.ports[0].in <- withHeader(Header{}, frame)
	if h, got := g.recv(); h.NumBuffers != 4 || !bytes.Equal(got, frame) {
		t.Errorf("guest got %d bytes in %d buffers", len(got), h.NumBuffers)
	}
	net.ports[0].in <- withHeader(Header{}, frame[:60])
	if h, got := g.recv(); h.NumBuffers != 1 || len(got) != 60 {
		t.Errorf("the buffer that was left took %d bytes", len(got))
	}
	if s := g.dev.Stats().ToGuest; s.Frames != 3 || s.Bytes != 2060 || s.Dropped != 0 {
		t.Errorf("counters %+v", s)
	}
}

func TestFrameWaitsForBuffers(t *testing.T) {
	net := newFakeBackend(1, 0)
	g := newGuest(t, net, Config{}, FeatureMrgRxbuf)
	frame := ethernet(testMAC, 1000)
	net.ports[0].in <- withHeader(Header{}, frame)
	g.buffers(400)
	g.buffers(400)
	time.Sleep(5 * time.Millisecond)
	if g.rx().Next() != nil {
		t.Fatal("half a frame was delivered")
	}
	g.buffers(400)
	if h, got := g.recv(); h.NumBuffers != 3 || !bytes.Equal(got, frame) {
		t.Errorf("guest got %d bytes in %d buffers", len(got), h.NumBuffers)
	}
}

func TestFrameThatFitsNowhereIsDropped(t *testing.T) {
	for features, sizes := range map[uint64][]int{0: {500}, FeatureMrgRxbuf: {100, 100, 100, 100}} {
		net := newFakeBackend(1, 0)
		g := newGuest(t, net, Config{QueueSize: 4}, features)
		g.buffers(sizes...)
		net.ports[0].in <- withHeader(Header{}, ethernet(testMAC, 1000))
		net.ports[0].in <- withHeader(Header{}, ethernet(testMAC, 80))
		if _, got := g.recv(); len(got) != 80 {
			t.Errorf("features %#x: guest got %d bytes", features, len(got))
		}
		if s := g.dev.Stats().ToGuest; s.Dropped != 1 {
			t.Errorf("features %#x: %+v", features, s)
		}
	}
}

func TestFlagsThatWereNotAgreedAreCleared(t *testing.T) {
	net := newFakeBackend(1, Offloads)
	g := newGuest(t, net, Config{}, 0)
	g.buffers(100)
	net.ports[0].in <- withHeader(Header{Flags: HeaderDataValid}, ethernet(testMAC, 60))
	if h, _ := g.recv(); h.Flags != 0 || h.NumBuffers != 1 {
		t.Errorf("header %+v", h)
	}
}

func TestLinkDown(t *testing.T) {
	net := newFakeBackend(1, 0)
	g := newGuest(t, net, Config{}, FeatureStatus)
	g.buffers(100, 100)
	g.dev.SetLink(false)
	if s := g.d.Config16(6); s != 0 || g.d.Regs.Interrupt()&2 == 0 {
		t.Errorf("status %#x, or no interrupt", s)
	}
	g.send(Header{}, ethernet(testMAC, 60))
	net.ports[0].in <- withHeader(Header{}, ethernet(testMAC, 60))
	for end := time.Now().Add(virtiotest.Timeout); g.dev.Stats().ToGuest.Dropped == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	g.dev.SetLink(true)
	net.ports[0].in <- withHeader(Header{}, ethernet(testMAC, 61))
	if _, got := g.recv(); len(got) != 61 || len(net.ports[0].sent) != 0 {
		t.Errorf("a frame passed while the link was down")
	}
	if s := g.d.Config16(6); s != statusLinkUp {
		t.Errorf("status %#x", s)
	}
}

func TestLostNetworkTakesTheLinkDown(t *testing.T) {
	net := newFakeBackend(1, 0)
	net.ports[0].err = ErrClosed
	g := newGuest(t, net, Config{}, 0)
	for end := time.Now().Add(virtiotest.Timeout); g.dev.Link() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if g.dev.Link() {
		t.Error("the link is up")
	}
	g.send(Header{}, ethernet(testMAC, 60)) // the guest's buffers come back all the same
}

// watcher counts frames and keeps the last.
type watcher struct{ seen chan []byte }

func (w watcher) Frame(toGuest bool, frame [][]byte) {
	b := make([]byte, 1+lengthOf(frame))
	if toGuest {
		b[0] = 1
	}
	gather(b[1:], frame)
	w.seen <- b
}

func TestObserverSeesFrames(t *testing.T) {
	net := newFakeBackend(1, 0)
	g := newGuest(t, net, Config{}, 0)
	w := watcher{make(chan []byte, 4)}
	g.dev.Observe(w)
	out, in := ethernet(testMAC, 60), ethernet(testMAC, 70)
	g.send(Header{}, out)
	if b := <-w.seen; b[0] != 0 || !bytes.Equal(b[1+HeaderLen:], out) {
		t.Errorf("saw % x", b)
	}
	g.buffers(100)
	net.ports[0].in <- withHeader(Header{}, in)
	g.recv()
	if b := <-w.seen; b[0] != 1 || !bytes.Equal(b[1+HeaderLen:], in) {
		t.Errorf("saw % x", b)
	}
	g.dev.Observe(nil)
	g.send(Header{}, out)
	if len(w.seen) != 0 {
		t.Error("saw a frame after the end")
	}
}

func TestPauseLeavesNothingInFlight(t *testing.T) {
	net := newFakeBackend(1, 0)
	g := newGuest(t, net, Config{}, FeatureMrgRxbuf)
	frame := ethernet(testMAC, 1000)
	net.ports[0].in <- withHeader(Header{}, frame)
	g.buffers(400, 400) // which wait for a third
	for g.d.Transport.Inspect().Queues[0].InFlight != 2 {
		time.Sleep(time.Millisecond)
	}
	if err := g.d.Transport.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, q := range g.d.Transport.Inspect().Queues {
		if q.InFlight != 0 {
			t.Errorf("queue %d: %d in flight", q.Index, q.InFlight)
		}
	}
	for range 2 {
		if q := g.rx().Wait(t); q.Written != 0 {
			t.Errorf("a buffer came back with %d bytes", q.Written)
		}
	}
	if err := g.d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	g.buffers(2000)
	if _, got := g.recv(); !bytes.Equal(got, frame) {
		t.Error("the frame that waited is lost")
	}
}

func TestRestoredGuestAnnouncesItself(t *testing.T) {
	const features = FeatureCtrlVQ | FeatureAnnounce | FeatureCtrlMAC | FeatureCtrlRX | FeatureStatus
	g := newGuest(t, newFakeBackend(1, 0), Config{}, features)
	other := stdnet.HardwareAddr{2, 9, 9, 9, 9, 9}
	if a := g.command(2, ctrlMAC, ctrlMACAddrSet, other); a != ctrlOK {
		t.Fatalf("set MAC: %d", a)
	}
	if err := g.d.Transport.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	state, err := g.dev.State()
	if err != nil {
		t.Fatal(err)
	}
	g.dev.resetFilter()
	if err := errors.Join(g.dev.SetState(state), g.d.Transport.Resume()); err != nil {
		t.Fatal(err)
	}
	if g.dev.MAC().String() != other.String() {
		t.Errorf("MAC %v after the restore", g.dev.MAC())
	}
	for end := time.Now().Add(virtiotest.Timeout); g.d.Config16(6)&statusAnnounce == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the driver is not asked to announce the guest")
		}
	}
	if g.d.Regs.Interrupt()&2 == 0 {
		t.Error("no configuration interrupt")
	}
	if a := g.command(2, ctrlAnnounce, ctrlAnnounceAck, nil); a != ctrlOK || g.d.Config16(6) != statusLinkUp {
		t.Errorf("acknowledged with %d, status %#x", a, g.d.Config16(6))
	}
}

// unswitched is a network on which nobody remembers where the guest is.
type unswitched struct{ *fakeBackend }

func (unswitched) Switched() bool { return false }

func TestNoAnnouncementWhereNobodyListens(t *testing.T) {
	for want, net := range map[bool]Backend{false: unswitched{newFakeBackend(1, 0)}, true: newFakeBackend(1, 0)} {
		dev, err := New(Config{Backend: net})
		if err != nil {
			t.Fatal(err)
		}
		dev.restored = true
		if err := dev.begin(FeatureAnnounce); err != nil {
			t.Fatal(err)
		}
		if got := dev.status()&statusAnnounce != 0; got != want {
			t.Errorf("asked to announce: %v, want %v", got, want)
		}
	}
}

func TestBadStates(t *testing.T) {
	for _, s := range []string{"", "{}", `{"Version":2}`, `{"Version":1,"Pairs":1}`,
		`{"Version":1,"Pairs":2,"Filter":{"MAC":[2,0,0,0,0,1]}}`, `{"Version":1,"Pairs":0,"Filter":{"MAC":[2,0,0,0,0,1]}}`} {
		dev, err := New(Config{Backend: newFakeBackend(1, 0)})
		if err != nil {
			t.Fatal(err)
		}
		if dev.SetState([]byte(s)) == nil {
			t.Errorf("state %q was taken", s)
		}
	}
}

func TestRestoreOnANetworkThatLacksOffloads(t *testing.T) {
	net := newFakeBackend(1, Offloads)
	g := newGuest(t, net, Config{}, Offloads)
	if err := g.d.Transport.Pause(context.Background()); err != nil {
		t.Fatal(err)
	}
	net.offloads = 0
	if err := g.d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(virtiotest.Timeout); !g.d.NeedsReset(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the device goes on")
		}
	}
}

func TestRateLimit(t *testing.T) {
	const rate, size = 80_000_000, 10_000 // 10 MB/s
	net := newFakeBackend(1, 0)
	g := newGuest(t, net, Config{BitsPerSecond: rate}, 0)
	burst := max(MaxFrame, int(rate/8*burstTime.Seconds()))
	start := time.Now()
	n := burst/size + 150
	var h [HeaderLen]byte
	q := g.tx().Prepare([][]byte{h[:], ethernet(testMAC, size)})
	for range n {
		g.tx().Submit(q)
		g.tx().Kick()
		g.tx().Wait(t)
		<-net.ports[0].sent
	}
	want := time.Duration(float64(n*size-burst) / (rate / 8) * float64(time.Second))
	t.Logf("%.1f %% of the limit", 100*float64(want)/float64(time.Since(start)))
	if got := time.Since(start); got < want*9/10 {
		t.Errorf("%d frames took %v, at least %v was due", n, got, want)
	}
}

func TestMultiqueue(t *testing.T) {
	net := newFakeBackend(2, 0)
	g := newGuest(t, net, Config{}, FeatureCtrlVQ|FeatureMQ)
	const ctrl = 4
	u16 := func(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
	for n, want := range map[uint16]uint8{0: ctrlErr, 1: ctrlOK, 3: ctrlErr, 0x8000: ctrlErr} {
		if a := g.command(ctrl, ctrlMQ, ctrlMQPairSet, u16(n)); a != want {
			t.Errorf("%d pairs: answer %d", n, a)
		}
	}
	if a := g.command(ctrl, ctrlMQ, ctrlMQPairSet, u16(2)); a != ctrlOK || net.pairs.Load() != 2 {
		t.Errorf("answer %d, the back end uses %d", a, net.pairs.Load())
	}
	var h [HeaderLen]byte
	g.d.Rings[3].Do(t, [][]byte{h[:], ethernet(testMAC, 60)})
	if len(<-net.ports[1].sent) != HeaderLen+60 {
		t.Error("second pair's frame")
	}
	g.d.Rings[2].Add(nil, 100)
	g.d.Rings[2].Kick()
	net.ports[1].in <- withHeader(Header{}, ethernet(testMAC, 60))
	if q := g.d.Rings[2].Wait(t); q.Written != HeaderLen+60 {
		t.Errorf("second pair got %d bytes", q.Written)
	}
	// Without the feature the control queue comes behind the first pair.
	g.d.Start(FeatureCtrlVQ | FeatureCtrlRX)
	if a := g.command(2, ctrlRX, ctrlRXPromisc, []byte{1}); a != ctrlOK || net.pairs.Load() != 1 {
		t.Errorf("answer %d, the back end uses %d", a, net.pairs.Load())
	}
}

func TestOverPCI(t *testing.T) {
	net := newFakeBackend(2, Offloads)
	g := newGuestAt(t, net, Config{}, ringFeatures|Offloads|FeatureMrgRxbuf|FeatureCtrlVQ|FeatureCtrlRX|FeatureMQ|FeatureStatus, true)
	frame := ethernet(testMAC, 1000)
	g.send(Header{}, frame)
	if got := <-net.ports[0].sent; !bytes.Equal(got[HeaderLen:], frame) {
		t.Error("the back end got another frame")
	}
	g.buffers(600, 600)
	net.ports[0].in <- withHeader(Header{}, frame)
	if h, got := g.recv(); h.NumBuffers != 2 || !bytes.Equal(got, frame) {
		t.Errorf("guest got %d bytes in %d buffers", len(got), h.NumBuffers)
	}
	if a := g.command(4, ctrlMQ, ctrlMQPairSet, []byte{2, 0}); a != ctrlOK {
		t.Errorf("two pairs: %d", a)
	}
	before := g.d.Regs.Generation()
	g.dev.SetLink(false)
	if g.d.Config16(6) != 0 || g.d.Regs.Generation() == before {
		t.Error("the driver does not see that the link is down")
	}
}
