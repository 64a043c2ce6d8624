package usernet

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

const allOffloads = virtionet.FeatureCsum | virtionet.FeatureGuestCsum | virtionet.FeatureGuestTSO4 | virtionet.FeatureHostTSO4

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

// echo sends data, ends, and returns what came back.
func echo(t *testing.T, c net.Conn, data []byte) []byte {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(60 * time.Second))
	go func() {
		_, _ = c.Write(data)
		_ = c.(halfCloser).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("read: %v after %d bytes", err, len(got))
	}
	return got
}

func TestTCPToHostAndOutside(t *testing.T) {
	l, port := listenLocal(t)
	serveEcho(t, l)
	for name, mtu := range map[string]int{"jumbo": 0, "1500": 1500} {
		for _, offloads := range []uint64{0, allOffloads} {
			n := newTestNetwork(t, Config{MTU: mtu}, map[string]string{"93.184.215.14:80": l.Addr().String()})
			g := newTestGuest(t, n, offloads)
			data := randomBytes(2 << 20)
			for _, to := range []netip.AddrPort{
				netip.AddrPortFrom(n.Gateway(), port), netip.MustParseAddrPort("93.184.215.14:80"),
			} {
				c, err := g.dial(to.Addr(), to.Port())
				if err != nil {
					t.Fatalf("%s, offloads %#x: dial %s: %v", name, offloads, to, err)
				}
				if got := echo(t, c, data); !bytes.Equal(got, data) {
					t.Errorf("%s, offloads %#x: %d bytes came back from %s, not the %d sent", name, offloads, len(got), to, len(data))
				}
			}
		}
	}
}

func TestTCPRefused(t *testing.T) {
	l, port := listenLocal(t)
	n := newTestNetwork(t, Config{NoHost: true}, nil)
	g := newTestGuest(t, n, 0)
	for _, to := range []netip.AddrPort{
		netip.AddrPortFrom(n.Gateway(), port), // the host, which NoHost keeps out
		netip.AddrPortFrom(n.DNS(), port),     // not the name server's port
		netip.MustParseAddrPort("8.8.8.8:80"), // dialling fails
	} {
		if c, err := g.dial(to.Addr(), to.Port()); err == nil {
			c.Close()
			t.Errorf("connected to %s", to)
		}
	}
	l.Close()
}

func TestReachable(t *testing.T) {
	n := newTestNetwork(t, Config{}, nil)
	for addr, want := range map[string]bool{
		"10.0.2.2": true, "10.0.2.3": true, "10.0.2.4": false, "10.0.2.255": false, "10.0.3.1": true,
		"1.1.1.1": true, "127.0.0.1": false, "169.254.169.254": false, "224.0.0.1": false,
		"255.255.255.255": false, "0.0.0.0": false,
	} {
		if got := n.reachable(netip.MustParseAddr(addr)); got != want {
			t.Errorf("reachable(%s) = %t", addr, got)
		}
	}
}

func TestUDPToHost(t *testing.T) {
	s, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	go func() {
		buf := make([]byte, 70000)
		for {
			k, from, err := s.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = s.WriteTo(buf[:k], from)
		}
	}()
	n := newTestNetwork(t, Config{}, nil)
	g := newTestGuest(t, n, 0)
	c := g.dialUDP(n.Gateway(), uint16(s.LocalAddr().(*net.UDPAddr).Port))
	for _, size := range []int{1, 1400, 9000, 60000} {
		data := randomBytes(size)
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 70000)
		k, err := c.Read(buf)
		if err != nil || !bytes.Equal(buf[:k], data) {
			t.Fatalf("%d bytes: %d came back, %v", size, k, err)
		}
	}
}

func TestPublishedTCP(t *testing.T) {
	n := newTestNetwork(t, Config{Publish: []Publish{{Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 8080}}}, nil)
	g := newTestGuest(t, n, allOffloads)
	serveEcho(t, g.listen(8080))
	c, err := net.Dial("tcp", n.Published()[0].Host.String())
	if err != nil {
		t.Fatal(err)
	}
	data := randomBytes(1 << 20)
	if got := echo(t, c, data); !bytes.Equal(got, data) {
		t.Errorf("%d bytes came back, not the %d sent", len(got), len(data))
	}
	refused, err := net.Dial("tcp", n.Published()[0].Host.String())
	if err != nil {
		t.Fatal(err)
	}
	refused.Close()
}

// Clients that come too early are served when their guest may be reached.
func TestHeldPublishedPorts(t *testing.T) {
	n := newTestNetwork(t, Config{Hold: true, Publish: []Publish{{Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 8080}}}, nil)
	g := newTestGuest(t, n, allOffloads)
	l := g.listen(8080)
	came := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = c.Write([]byte("hello"))
		}
		came <- err
	}()
	c, err := net.Dial("tcp", n.Published()[0].Host.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case err := <-came:
		t.Fatalf("the guest was reached: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	n.Release()
	n.Release()
	buf := make([]byte, 5)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello" {
		t.Errorf("read %q, %v", buf, err)
	}
	if err := <-came; err != nil {
		t.Error(err)
	}
}

func TestPublishedUDP(t *testing.T) {
	n := newTestNetwork(t, Config{Publish: []Publish{{Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 53, UDP: true}}}, nil)
	g := newTestGuest(t, n, 0)
	s := g.listenUDP(53)
	go func() {
		buf := make([]byte, 2000)
		for {
			k, from, err := s.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = s.WriteTo(buf[:k], from)
		}
	}()
	for range 2 { // two clients
		c, err := net.Dial("udp", n.Published()[0].Host.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		c.Write([]byte("question"))
		buf := make([]byte, 2000)
		if k, err := c.Read(buf); err != nil || string(buf[:k]) != "question" {
			t.Errorf("read %q, %v", buf[:k], err)
		}
	}
}

func TestConfigMistakes(t *testing.T) {
	for name, cfg := range map[string]Config{
		"ipv6 subnet":    {Subnet: netip.MustParsePrefix("fd00::/64")},
		"narrow subnet":  {Subnet: netip.MustParsePrefix("10.0.2.0/29")},
		"small mtu":      {MTU: 100},
		"large mtu":      {MTU: 70000},
		"gateway's":      {GuestIP: netip.MustParseAddr("10.0.2.2")},
		"outside subnet": {GuestIP: netip.MustParseAddr("10.0.3.15")},
		"no port":        {Publish: []Publish{{}}},
	} {
		if n, err := New(cfg); err == nil {
			n.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSubnets(t *testing.T) {
	for subnet, want := range map[string]string{
		"10.0.2.0/24": "10.0.2.15", "192.168.100.77/24": "192.168.100.15", "10.9.0.16/28": "10.9.0.20",
	} {
		n := newTestNetwork(t, Config{Subnet: netip.MustParsePrefix(subnet)}, nil)
		if got := n.GuestIP().String(); got != want {
			t.Errorf("guest of %s is %s, want %s", subnet, got, want)
		}
	}
}

func TestParsePublish(t *testing.T) {
	for in, want := range map[string]string{
		"8080:80":             "127.0.0.1:8080:80",
		"0.0.0.0:53:53/udp":   "0.0.0.0:53:53/udp",
		"[::1]:2222:22/tcp":   "[::1]:2222:22",
		"192.168.1.5:0:65535": "192.168.1.5:0:65535",
	} {
		p, err := ParsePublish(in)
		if err != nil || p.String() != want {
			t.Errorf("%q: %q, %v; want %q", in, p, err, want)
		}
	}
	for _, in := range []string{"", "80", "80:", ":80", "a:80", "80:0", "80:70000", "80:80/sctp", "1.2.3:80:80", "::1:80:80"} {
		if p, err := ParsePublish(in); err == nil {
			t.Errorf("%q: accepted as %s", in, p)
		}
	}
}
