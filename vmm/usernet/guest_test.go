package usernet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

// testGuest is a guest: another stack at the other end of the network's port.
type testGuest struct {
	t     testing.TB
	n     *Network
	stack *stack.Stack
	ep    *channel.Endpoint
	eth   *ethernet.Endpoint
	raw   chan []byte // if not nil, gets the frames instead of the stack

	unplug func()
}

// newTestGuest plugs a guest with the network's address into n, which takes
// offloads.
func newTestGuest(t testing.TB, n *Network, offloads uint64) *testGuest {
	t.Helper()
	// The last byte of the address makes the MAC unique in a group.
	last := n.GuestIP().As4()[3]
	mac := tcpip.LinkAddress([]byte{0x52, 0x54, 0, 0, 0, last})
	ep := channel.New(4096, uint32(n.MTU())+header.EthernetMinimumSize, mac)
	ep.LinkEPCapabilities = stack.CapabilityRXChecksumOffload | stack.CapabilityResolutionRequired
	g := &testGuest{t: t, n: n, ep: ep, eth: ethernet.New(ep)}
	g.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	if err := g.stack.CreateNIC(1, g.eth); err != nil {
		t.Fatal(err)
	}
	pa := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: toAddress(n.GuestIP()), PrefixLen: n.Subnet().Bits()}}
	if err := g.stack.AddProtocolAddress(1, pa, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	local, err := tcpip.NewSubnet(toAddress(n.Subnet().Addr()), tcpip.MaskFromBytes(net.CIDRMask(n.Subnet().Bits(), 32)))
	if err != nil {
		t.Fatal(err)
	}
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: local, NIC: 1},
		{Destination: header.IPv4EmptySubnet, Gateway: toAddress(n.Gateway()), NIC: 1},
	})
	if err := n.SetOffloads(offloads); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.stack.Destroy)
	g.run()
	return g
}

// move plugs the guest into another network, as if it were restored there.
func (g *testGuest) move(n *Network) {
	g.unplug()
	g.n = n
	g.run()
}

func (g *testGuest) run() {
	ctx, cancel := context.WithCancel(context.Background())
	port := g.n.Ports()[0]
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for pkt := g.ep.ReadContext(ctx); pkt != nil; pkt = g.ep.ReadContext(ctx) {
			g.sendPacket(port, pkt)
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for ctx.Err() == nil {
			frame, err := port.Recv()
			if err == nil && frame == nil {
				err = port.Wait()
			}
			if err != nil {
				g.t.Error(err)
				return
			}
			if frame != nil {
				g.receive(frame)
			}
		}
	}()
	g.unplug = sync.OnceFunc(func() {
		cancel()
		port.Wake()
		<-done
		<-done
	})
	g.t.Cleanup(g.unplug)
}

func (g *testGuest) sendPacket(port virtionet.Port, pkt *stack.PacketBuffer) {
	defer pkt.DecRef()
	frame := append(make([]byte, virtionet.HeaderLen), pkt.ToView().AsSlice()...)
	// In two pieces, as a driver's header and data are.
	if err := port.Send([][]byte{frame[:virtionet.HeaderLen], frame[virtionet.HeaderLen:]}); err != nil {
		g.t.Error(err)
	}
}

func (g *testGuest) receive(frame [][]byte) {
	var flat []byte
	for _, b := range frame {
		flat = append(flat, b...)
	}
	if g.raw != nil {
		g.raw <- flat
		return
	}
	eth := flat[virtionet.HeaderLen:]
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(eth)})
	defer pkt.DecRef()
	g.ep.InjectInbound(header.Ethernet(eth).Type(), pkt)
}

func (g *testGuest) dial(addr netip.Addr, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return gonet.DialContextTCP(ctx, g.stack, tcpip.FullAddress{Addr: toAddress(addr), Port: port}, ipv4.ProtocolNumber)
}

func (g *testGuest) dialUDP(addr netip.Addr, port uint16) net.Conn {
	g.t.Helper()
	c, err := gonet.DialUDP(g.stack, nil, &tcpip.FullAddress{Addr: toAddress(addr), Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(20 * time.Second))
	g.t.Cleanup(func() { c.Close() })
	return c
}

func (g *testGuest) listen(port uint16) net.Listener {
	g.t.Helper()
	l, err := gonet.ListenTCP(g.stack, tcpip.FullAddress{Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	return l
}

// newTestNetwork is a network whose outside is what hosts says: an address
// that the guest dials, and the host's in its place.
func newTestNetwork(t testing.TB, cfg Config, hosts map[string]string) *Network {
	t.Helper()
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if to, ok := hosts[address]; ok {
			address = to
		} else if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().IsLoopback() {
			return nil, fmt.Errorf("%s is outside the test", address)
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// serveEcho answers each connection with what it sent, after its end.
func serveEcho(t testing.TB, l net.Listener) {
	t.Helper()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				_, _ = c.Write(b)
			}()
		}
	}()
}

func listenLocal(t testing.TB) (l net.Listener, port uint16) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, uint16(l.Addr().(*net.TCPAddr).Port)
}

func (g *testGuest) listenUDP(port uint16) net.PacketConn {
	g.t.Helper()
	c, err := gonet.DialUDP(g.stack, &tcpip.FullAddress{Port: port}, nil, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

func checksumOf(b []byte) uint16 { return checksum.Checksum(b, 0) }
