package tap

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
	"github.com/vitrine-vmm/vitrine/vmm/usernet/guesttest"
)

const allFeatures = virtionet.Offloads | virtionet.FeatureMrgRxbuf | virtionet.FeatureStatus | virtio.FeatureEventIdx

// newGuest is a guest with the number i on the device.
func newGuest(t *testing.T, dev *Tap, i byte, features uint64) *guesttest.Guest {
	t.Helper()
	return guesttest.New(t, guesttest.Config{
		Device:   virtionet.Config{Backend: dev},
		Address:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, i}), 24),
		Features: features,
	})
}

// TestTCPWithTheKernel has a guest and the host's kernel exchange data both
// ways, with segmentation left to the other side and without.
func TestTCPWithTheKernel(t *testing.T) {
	if !alone(t) {
		return
	}
	for name, features := range map[string]uint64{"offloads": allFeatures, "plain": virtionet.FeatureMrgRxbuf, "small buffers": 0} {
		t.Run(name, func(t *testing.T) {
			dev := mustOpen(t, Config{})
			setAddress(t, dev.Name(), hostIP)
			g := newGuest(t, dev, 2, features)
			l, err := net.Listen("tcp", "10.77.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			guest := g.Dial(l.Addr().(*net.TCPAddr).AddrPort())
			host, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			guesttest.Transfer(t, guest, host, 4<<20)
			s := g.Dev.Stats()
			out, in := s.FromGuest.Bytes/s.FromGuest.Frames, s.ToGuest.Bytes/s.ToGuest.Frames
			t.Logf("%d bytes a frame from the guest, %d to it; %+v", out, in, s)
			if features == allFeatures && (out < 2000 || in < 2000) {
				t.Error("no segmentation was left to the other side")
			}
			if features != allFeatures && (out > 1514 || in > 1514) {
				t.Error("a frame was larger than the link allows")
			}
		})
	}
}

// TestGuestsOnABridge has two guests talk over a bridge of the host's, one with
// offloads and one without.
func TestGuestsOnABridge(t *testing.T) {
	if !alone(t) {
		return
	}
	if err := addBridge("br-test"); err != nil {
		t.Skipf("make a bridge: %v", err)
	}
	if err := bringUp("br-test"); err != nil {
		t.Fatal(err)
	}
	g1 := newGuest(t, mustOpen(t, Config{Bridge: "br-test"}), 2, allFeatures)
	g2 := newGuest(t, mustOpen(t, Config{Bridge: "br-test"}), 3, virtionet.FeatureMrgRxbuf)
	l := g2.Listen(7)
	c1 := g1.Dial(netip.MustParseAddrPort("10.77.0.3:7"))
	c2, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	guesttest.Transfer(t, c1, c2, 2<<20)
}
