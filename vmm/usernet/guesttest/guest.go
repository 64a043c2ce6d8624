// Package guesttest is a guest for tests of networks: a TCP/IP stack (gVisor's)
// behind a virtio driver that uses every offload the device has, as Linux does.
package guesttest

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
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
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

// queueLen is how many packets wait for the driver, which is more than TCP ever
// sends before it hears from its peer: none is lost in the guest.
const queueLen = 16384

// Config describes a guest and its network device.
type Config struct {
	Device   virtionet.Config
	Address  netip.Prefix // the guest's IPv4 address, and its subnet
	Gateway  netip.Addr   // none if zero
	Features uint64       // that the driver takes, as far as they are offered
}

// Guest is a running guest. It ends with the test.
type Guest struct {
	Dev    *virtionet.Device
	Driver *virtiotest.Driver
	Stack  *stack.Stack

	t  testing.TB
	ep *endpoint
}

// endpoint is the stack's link: it leaves segmentation to the device if the
// driver has agreed on that.
type endpoint struct {
	*channel.Endpoint
	segments bool
}

// SupportedGSO implements stack.GSOEndpoint.
func (e *endpoint) SupportedGSO() stack.SupportedGSO {
	if e.segments {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}

// GSOMaxSize implements stack.GSOEndpoint.
func (e *endpoint) GSOMaxSize() uint32 { return 60000 }

// New starts a guest.
func New(t testing.TB, cfg Config) *Guest {
	t.Helper()
	dev, err := virtionet.New(cfg.Device)
	if err != nil {
		t.Fatal(err)
	}
	g := &Guest{t: t, Dev: dev, Driver: virtiotest.New(t, dev, virtiotest.Config{Memory: 64 << 20})}
	g.Driver.Start(cfg.Features)
	mtu := cfg.Device.MTU
	if mtu == 0 {
		mtu = 1500
	}
	const tso = virtionet.FeatureCsum | virtionet.FeatureHostTSO4
	g.ep = &endpoint{channel.New(queueLen, uint32(mtu)+header.EthernetMinimumSize, tcpip.LinkAddress(dev.MAC())),
		g.Driver.Features&tso == tso}
	g.ep.LinkEPCapabilities = stack.CapabilityResolutionRequired
	if g.Driver.Features&virtionet.FeatureGuestCsum != 0 {
		g.ep.LinkEPCapabilities |= stack.CapabilityRXChecksumOffload
	}
	g.buildStack(cfg)
	g.run()
	return g
}

func (g *Guest) buildStack(cfg Config) {
	g.t.Helper()
	g.Stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	sack := tcpip.TCPSACKEnabled(true)
	g.Stack.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	if err := g.Stack.CreateNIC(1, &gsoEthernet{ethernet.New(g.ep), g.ep}); err != nil {
		g.t.Fatal(err)
	}
	pa := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{
		Address: address(cfg.Address.Addr()), PrefixLen: cfg.Address.Bits()}}
	if err := g.Stack.AddProtocolAddress(1, pa, stack.AddressProperties{}); err != nil {
		g.t.Fatal(err)
	}
	routes := []tcpip.Route{{Destination: pa.AddressWithPrefix.Subnet(), NIC: 1}}
	if cfg.Gateway.IsValid() {
		routes = append(routes, tcpip.Route{Destination: header.IPv4EmptySubnet, Gateway: address(cfg.Gateway), NIC: 1})
	}
	g.Stack.SetRouteTable(routes)
}

// gsoEthernet is Ethernet over a link that segments.
type gsoEthernet struct {
	*ethernet.Endpoint
	ep *endpoint
}

// SupportedGSO implements stack.GSOEndpoint.
func (e *gsoEthernet) SupportedGSO() stack.SupportedGSO { return e.ep.SupportedGSO() }

// GSOMaxSize implements stack.GSOEndpoint.
func (e *gsoEthernet) GSOMaxSize() uint32 { return e.ep.GSOMaxSize() }

func (g *Guest) run() {
	ctx, cancel := context.WithCancel(context.Background())
	// Requests are prepared here, since the arena is not for two goroutines.
	rx, tx := g.Driver.Rings[0], g.Driver.Rings[1]
	for range 128 {
		rx.Submit(rx.Prepare(nil, 4096))
	}
	rx.Kick()
	free := make([]*virtiotest.Request, 0, 64)
	for range cap(free) {
		free = append(free, tx.Prepare([][]byte{make([]byte, virtionet.MaxFrame)}))
	}
	var wg sync.WaitGroup
	wg.Go(func() { g.transmit(ctx, tx, free) })
	wg.Go(func() { g.receive(ctx, rx) })
	g.t.Cleanup(func() {
		cancel()
		wg.Wait()
		g.Stack.Destroy()
	})
}

// poll is how often a goroutine looks for what the other side did.
func poll() { time.Sleep(50 * time.Microsecond) }

func (g *Guest) transmit(ctx context.Context, r *virtiotest.Ring, free []*virtiotest.Request) {
	for {
		pkt := g.ep.ReadContext(ctx)
		if pkt == nil {
			return
		}
		for len(free) == 0 {
			for q := r.Next(); q != nil; q = r.Next() {
				free = append(free, q)
			}
			if len(free) == 0 {
				if ctx.Err() != nil {
					pkt.DecRef()
					return
				}
				poll()
			}
		}
		q := free[len(free)-1]
		free = free[:len(free)-1]
		h := vnetHeader(pkt)
		h.Encode(q.Out(0))
		n := virtionet.HeaderLen + copy(q.Out(0)[virtionet.HeaderLen:], pkt.ToView().AsSlice())
		pkt.DecRef()
		r.SetDescriptor(q.Head(), virtiotest.Descriptor{Addr: q.Addr(0), Len: uint32(n)})
		r.Submit(q)
		r.Kick()
	}
}

// vnetHeader says what the stack leaves to the device.
func vnetHeader(pkt *stack.PacketBuffer) virtionet.Header {
	var h virtionet.Header
	o := pkt.GSOOptions
	if o.Type == stack.GSONone || !o.NeedsCsum {
		return h
	}
	h.Flags, h.CsumStart, h.CsumOffset = virtionet.HeaderNeedsCsum, header.EthernetMinimumSize+o.L3HdrLen, o.CsumOffset
	if o.Type == stack.GSOTCPv4 && pkt.Data().Size() > int(o.MSS) {
		h.GSOType, h.GSOSize, h.HdrLen = virtionet.GSOTCPv4, o.MSS, uint16(pkt.HeaderSize())
	}
	return h
}

func (g *Guest) receive(ctx context.Context, r *virtiotest.Ring) {
	for ctx.Err() == nil {
		q := r.Next()
		if q == nil {
			poll()
			continue
		}
		frame := q.In()[:q.Written]
		r.Submit(q)
		if len(frame) == 0 { // a buffer that a pause gave back
			r.Kick()
			continue
		}
		var h virtionet.Header
		h.Decode(frame)
		for range int(h.NumBuffers) - 1 {
			q := r.Next()
			if q == nil {
				g.t.Error("a frame did not come with all its buffers")
				return
			}
			frame = append(frame, q.In()[:q.Written]...)
			r.Submit(q)
		}
		r.Kick()
		g.inject(frame[virtionet.HeaderLen:])
	}
}

func (g *Guest) inject(eth []byte) {
	if len(eth) < header.EthernetMinimumSize {
		g.t.Errorf("frame of %d bytes", len(eth))
		return
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(eth)})
	defer pkt.DecRef()
	pkt.RXChecksumValidated = g.ep.LinkEPCapabilities&stack.CapabilityRXChecksumOffload != 0
	g.ep.InjectInbound(header.Ethernet(eth).Type(), pkt)
}

// Dial connects the guest to a TCP port.
func (g *Guest) Dial(to netip.AddrPort) net.Conn {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), virtiotest.Timeout)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, g.Stack, tcpip.FullAddress{Addr: address(to.Addr()), Port: to.Port()}, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c
}

// Listen takes TCP connections to the guest's port.
func (g *Guest) Listen(port uint16) net.Listener {
	g.t.Helper()
	l, err := gonet.ListenTCP(g.Stack, tcpip.FullAddress{Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	return l
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }
