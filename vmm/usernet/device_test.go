package usernet_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
	"github.com/vitrine-vmm/vitrine/vmm/usernet"
	"github.com/vitrine-vmm/vitrine/vmm/usernet/guesttest"
)

const allFeatures = virtionet.Offloads | virtionet.FeatureMrgRxbuf | virtio.FeatureEventIdx

// newGuest is a guest on a user network, and a port of its that is published.
func newGuest(t testing.TB, features uint64, bps uint64) (g *guesttest.Guest, n *usernet.Network, published string) {
	t.Helper()
	n, err := usernet.New(usernet.Config{Publish: []usernet.Publish{
		{Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	g = guesttest.New(t, guesttest.Config{
		Device:  virtionet.Config{Backend: n, MAC: n.GuestMAC(), MTU: n.MTU(), BitsPerSecond: bps},
		Address: netip.PrefixFrom(n.GuestIP(), n.Subnet().Bits()), Gateway: n.Gateway(), Features: features,
	})
	return g, n, n.Published()[0].Host.String()
}

// connect is a connection of the guest's to the host: both ends.
func connect(t testing.TB, g *guesttest.Guest, n *usernet.Network) (guest, host net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	guest = g.Dial(netip.AddrPortFrom(n.Gateway(), uint16(l.Addr().(*net.TCPAddr).Port)))
	if host, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { host.Close() })
	return guest, host
}

// TestTCPThroughDevice has a guest talk to the host, and the host to a published
// port, with all offloads and with none.
func TestTCPThroughDevice(t *testing.T) {
	for name, features := range map[string]uint64{"offloads": allFeatures, "plain": virtionet.FeatureMrgRxbuf} {
		t.Run(name, func(t *testing.T) {
			g, n, published := newGuest(t, features, 0)
			guest, host := connect(t, g, n)
			guesttest.Transfer(t, guest, host, 4<<20)

			l := g.Listen(80)
			client, err := net.Dial("tcp", published)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			guesttest.Transfer(t, client, server, 1<<20)
		})
	}
}

// TestPausesDuringTransfer pauses and resumes the device again and again.
func TestPausesDuringTransfer(t *testing.T) {
	g, n, _ := newGuest(t, allFeatures, 0)
	guest, host := connect(t, g, n)
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(2 * time.Millisecond):
			}
			if err := g.Driver.Transport.Pause(context.Background()); err != nil {
				done <- err
				return
			}
			if err := g.Driver.Transport.Resume(); err != nil {
				done <- err
				return
			}
		}
	}()
	guesttest.Transfer(t, guest, host, 16<<20)
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestRateLimitOfStream measures how much of a limit one stream uses. A loaded
// machine makes it less, so only more than the limit is a failure.
func TestRateLimitOfStream(t *testing.T) {
	const bytesPerSecond = 16 << 20
	g, n, _ := newGuest(t, allFeatures, 8*bytesPerSecond)
	guest, host := connect(t, g, n)
	for name, c := range map[string][2]net.Conn{"from the guest": {guest, host}, "to the guest": {host, guest}} {
		guesttest.Send(t, c[0], c[1], 1<<20) // uses up what a silence has saved
		start := time.Now()
		guesttest.Send(t, c[0], c[1], bytesPerSecond/2)
		took := time.Since(start).Seconds()
		t.Logf("%s: %.1f %% of the limit", name, 100*0.5/took)
		if took < 0.5*0.9 {
			t.Errorf("%s, half a second's traffic took %.3f s", name, took)
		}
	}
}

// BenchmarkTCPThroughDevice is one connection between a program on the host and
// a guest, both its stack and the network's in this process.
func BenchmarkTCPThroughDevice(b *testing.B) {
	g, n, _ := newGuest(b, allFeatures, 0)
	guest, host := connect(b, g, n)
	b.SetBytes(2 << 20)
	for b.Loop() {
		guesttest.Transfer(b, guest, host, 1<<20)
	}
}

// TestGroupThroughDevices joins two guests, of which one has offloads, and has
// them talk while each still reaches the host.
func TestGroupThroughDevices(t *testing.T) {
	dir, err := os.MkdirTemp("", "group") // t.TempDir may be too long for a UNIX socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var guests [2]*guesttest.Guest
	var nets [2]*usernet.Network
	for i, features := range []uint64{allFeatures, virtionet.FeatureMrgRxbuf} {
		n, err := usernet.New(usernet.Config{Group: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		nets[i] = n
		guests[i] = guesttest.New(t, guesttest.Config{
			Device:  virtionet.Config{Backend: n, MAC: n.GuestMAC(), MTU: n.MTU()},
			Address: netip.PrefixFrom(n.GuestIP(), n.Subnet().Bits()), Gateway: n.Gateway(), Features: features,
		})
	}
	l := guests[1].Listen(7)
	c1 := guests[0].Dial(netip.AddrPortFrom(nets[1].GuestIP(), 7))
	c2, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	guesttest.Transfer(t, c1, c2, 2<<20)
	for i := range guests {
		guest, host := connect(t, guests[i], nets[i])
		guesttest.Transfer(t, guest, host, 1<<20)
	}
}
