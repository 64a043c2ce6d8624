// Package usernet is a network for a guest that needs no privileges: a TCP/IP
// stack in this process (gVisor's) answers the guest's frames and opens
// ordinary sockets on the host for what the guest connects to.
//
// The network looks as QEMU's user network does: the guest is 10.0.2.15/24,
// the host 10.0.2.2, which is also the gateway, and the name server 10.0.2.3.
// The guest learns this by DHCP, or is told by the kernel's command line.
package usernet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

const (
	nicID = 1

	// DefaultMTU makes a TCP segment as large as an IP packet can be: a
	// guest spends its instructions per packet, not per byte.
	DefaultMTU = 65520

	dialTimeout = 15 * time.Second
	maxTCP      = 2048 // connections that the guest may have open
	maxTCPSYN   = 256  // of them, those that are being opened
	maxUDP      = 256  // UDP flows that the guest may have open
)

// gatewayMAC is the stack's own address: locally administered, as QEMU's.
var gatewayMAC = tcpip.LinkAddress("\x52\x55\x0a\x00\x02\x02")

// Config describes a network. The zero value is a working one.
type Config struct {
	Subnet  netip.Prefix // IPv4, at most /28; 10.0.2.0/24 if zero
	GuestIP netip.Addr   // what DHCP gives the guest; the 15th address if zero
	MTU     int          // of the guest's link; DefaultMTU if 0
	Publish []Publish    // the guest's ports that the host listens for

	// Hold has clients of published ports wait until Release is called: the
	// host accepts them, and the guest sees nothing of them yet.
	Hold bool

	// NoHost keeps the guest from the host's own services: what listens on
	// the host's loopback addresses is otherwise reached at the gateway's.
	NoHost bool

	// Nameservers are asked for the guest's names; those of
	// /etc/resolv.conf, as it is at the time, if empty.
	Nameservers []netip.AddrPort

	// Group is a folder that several networks share: their guests, each with
	// an address of its own, reach each other. Empty for none.
	Group string

	// Dial opens the host's side of connections; a net.Dialer's if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Log *slog.Logger // discarded if nil
}

// Network is a user network with one guest. It is a back end of a virtio
// network device.
type Network struct {
	cfg     Config
	subnet  netip.Prefix
	gateway netip.Addr
	dns     netip.Addr
	guest   netip.Addr
	link    *link
	stack   *stack.Stack
	pings   pinger
	group   *group // nil without one

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	tcp    chan struct{} // a token for each connection
	udp    chan struct{} // a token for each flow

	conns connections

	published []Publish
	released  chan struct{}
	release   func() // closes released
}

var _ virtionet.Backend = (*Network)(nil)

// New returns a network that listens for the published ports already.
func New(cfg Config) (*Network, error) {
	n := &Network{tcp: make(chan struct{}, maxTCP), udp: make(chan struct{}, maxUDP), released: make(chan struct{})}
	n.release = sync.OnceFunc(func() { close(n.released) })
	if !cfg.Hold {
		n.release()
	}
	if err := n.configure(cfg); err != nil {
		return nil, fmt.Errorf("configure user network: %w", err)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	if err := n.start(); err != nil {
		n.Close()
		return nil, fmt.Errorf("start user network: %w", err)
	}
	return n, nil
}

func (n *Network) configure(cfg Config) error {
	if !cfg.Subnet.IsValid() {
		cfg.Subnet = netip.MustParsePrefix("10.0.2.0/24")
	}
	if !cfg.Subnet.Addr().Is4() || cfg.Subnet.Bits() > 28 || cfg.Subnet.Bits() < 8 {
		return fmt.Errorf("subnet %s: want an IPv4 prefix from /8 to /28", cfg.Subnet)
	}
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	if cfg.MTU < 576 || cfg.MTU > 65535 {
		return fmt.Errorf("mtu %d: want 576 to 65535", cfg.MTU)
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n.subnet = cfg.Subnet.Masked()
	n.gateway, n.dns, n.guest = n.numbered(2), n.numbered(3), cfg.GuestIP
	if !n.guest.IsValid() {
		n.guest = n.numbered(n.firstGuest())
	}
	if !n.subnet.Contains(n.guest) || n.guest == n.gateway || n.guest == n.dns {
		return fmt.Errorf("guest address %s is not one for a guest in %s", n.guest, n.subnet)
	}
	n.cfg = cfg
	return nil
}

// firstGuest is the number of the only guest, or of a group's first: its
// address less the subnet's.
func (n *Network) firstGuest() uint16 {
	if n.subnet.Bits() == 28 { // 15 is the broadcast address there
		return 4
	}
	return 15
}

// numbered is the subnet's address with the number i.
func (n *Network) numbered(i uint16) netip.Addr {
	b := n.subnet.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(i))
	return netip.AddrFrom4(b)
}

// start builds what holds resources.
func (n *Network) start() error {
	if n.cfg.Group != "" {
		g, err := joinGroup(n)
		if err != nil {
			return err
		}
		n.group = g
	}
	n.link = newLink(n)
	if err := n.buildStack(); err != nil {
		return err
	}
	n.pings.start(n)
	if n.group != nil {
		n.wg.Go(n.group.receive)
	}
	for _, p := range n.cfg.Publish {
		if err := n.publish(p); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) buildStack() error {
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	s := n.stack
	if err := s.CreateNIC(nicID, n.link); err != nil {
		return tcpipError(err)
	}
	for _, a := range []netip.Addr{n.gateway, n.dns} {
		pa := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: toAddress(a), PrefixLen: n.subnet.Bits()}}
		if err := s.AddProtocolAddress(nicID, pa, stack.AddressProperties{}); err != nil {
			return tcpipError(err)
		}
	}
	// Connections to any address end in this stack, and answers come from
	// that address.
	if err := s.SetPromiscuousMode(nicID, true); err != nil {
		return tcpipError(err)
	}
	if err := s.SetSpoofing(nicID, true); err != nil {
		return tcpipError(err)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}})
	sack := tcpip.TCPSACKEnabled(true)
	s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s, 0, maxTCPSYN, n.forwardTCP).HandlePacket)
	s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s, n.forwardUDP).HandlePacket)
	return nil
}

// Close ends all connections and stops listening.
func (n *Network) Close() error {
	n.cancel()
	if n.group != nil {
		n.group.close()
	}
	if n.link != nil {
		n.link.close()
	}
	n.pings.close()
	if n.stack != nil {
		n.stack.Destroy()
	}
	n.wg.Wait()
	return nil
}

// GuestIP is the address that DHCP gives the guest.
func (n *Network) GuestIP() netip.Addr { return n.guest }

// GuestMAC is an address for the guest's network device that is its alone among
// those of a group.
func (n *Network) GuestMAC() net.HardwareAddr {
	b := n.guest.As4()
	return append(net.HardwareAddr{0x52, 0x54}, b[:]...)
}

// Gateway is the guest's gateway, and the host.
func (n *Network) Gateway() netip.Addr { return n.gateway }

// DNS is the guest's name server.
func (n *Network) DNS() netip.Addr { return n.dns }

// Subnet is the guest's subnet.
func (n *Network) Subnet() netip.Prefix { return n.subnet }

// MTU is the link's MTU, for virtionet.Config.
func (n *Network) MTU() int { return n.cfg.MTU }

// Published are the published ports, with the host's port filled in where 0
// was asked for.
func (n *Network) Published() []Publish { return n.published }

func toAddress(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func fromAddress(a tcpip.Address) netip.Addr {
	if a.Len() != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4(a.As4())
}

func tcpipError(err tcpip.Error) error { return errors.New(err.String()) }
