package usernet

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

// fromGuest is the switch: it sends a frame of the guest's, with its virtio
// header, where its destination says.
func (n *Network) fromGuest(view *buffer.View) {
	frame := view.AsSlice()
	eth := header.Ethernet(frame[virtionet.HeaderLen:])
	dst := eth.DestinationAddress()
	n.link.learn(eth.SourceAddress())
	group := dst[0]&1 != 0 // broadcast or multicast
	if n.group != nil && dst != gatewayMAC {
		n.group.send(frame, dst, group)
	}
	if dst != gatewayMAC && !group {
		view.Release()
		return
	}
	view.TrimFront(virtionet.HeaderLen)
	if !n.handle(view.AsSlice()) {
		view.Release()
		return
	}
	n.link.deliver(view)
}

// learn notes the guest's MAC address.
func (l *link) learn(mac tcpip.LinkAddress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.guestMAC != mac {
		l.guestMAC = mac
	}
}

func (l *link) guestAddress() tcpip.LinkAddress {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.guestMAC
}

// handle answers what the stack is not to see, and says whether the Ethernet
// frame is the stack's.
func (n *Network) handle(frame []byte) (forStack bool) {
	eth, rest := header.Ethernet(frame), frame[header.EthernetMinimumSize:]
	switch eth.Type() {
	case header.ARPProtocolNumber:
		arp := header.ARP(rest)
		return arp.IsValid() && n.own(addrFrom(arp.ProtocolAddressTarget()))
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(rest)
		return ip.IsValid(len(rest)) && n.handleIPv4(ip)
	}
	return false
}

func addrFrom(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// own says whether the network itself has the address.
func (n *Network) own(a netip.Addr) bool { return a == n.gateway || a == n.dns }

func (n *Network) handleIPv4(ip header.IPv4) (forStack bool) {
	src, dst := fromAddress(ip.SourceAddress()), fromAddress(ip.DestinationAddress())
	fragment := ip.More() || ip.FragmentOffset() != 0
	if p := ip.TransportProtocol(); p == header.UDPProtocolNumber && !fragment {
		if u := header.UDP(ip.Payload()); len(u) >= header.UDPMinimumSize && u.DestinationPort() == dhcpServerPort {
			n.answerDHCP(u.Payload())
			return false
		}
	}
	if !n.subnet.Contains(src) || !n.reachable(dst) {
		return false
	}
	if ip.TransportProtocol() == header.ICMPv4ProtocolNumber && !n.own(dst) {
		if !fragment {
			n.pings.request(ip, dst)
		}
		return false
	}
	return true
}

// reachable says whether the guest may send to the address: to the network's
// own, and to what lies outside. The host's loopback is reached at the
// gateway's address only; link-local addresses are left out because cloud
// providers hand out the host's credentials there.
func (n *Network) reachable(dst netip.Addr) bool {
	if n.own(dst) {
		return true
	}
	return !n.subnet.Contains(dst) && dst.IsGlobalUnicast() && !dst.IsLinkLocalUnicast()
}

// sendIPv4 queues a packet for the guest.
func (n *Network) sendIPv4(src, dst netip.Addr, proto tcpip.TransportProtocolNumber, payload []byte) {
	const headers = virtionet.HeaderLen + header.EthernetMinimumSize + header.IPv4MinimumSize
	mac := n.link.guestAddress()
	if len(payload) > n.cfg.MTU-header.IPv4MinimumSize || len(mac) == 0 {
		return
	}
	raw := make([]byte, headers+len(payload))
	header.Ethernet(raw[virtionet.HeaderLen:]).Encode(&header.EthernetFields{
		SrcAddr: gatewayMAC, DstAddr: mac, Type: header.IPv4ProtocolNumber,
	})
	ip := header.IPv4(raw[virtionet.HeaderLen+header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(proto),
		SrcAddr: toAddress(src), DstAddr: toAddress(dst),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	copy(raw[headers:], payload)
	n.link.push(queued{raw: raw})
}

// sendUDP queues a datagram for the guest.
func (n *Network) sendUDP(src, dst netip.AddrPort, payload []byte) {
	u := header.UDP(make([]byte, header.UDPMinimumSize+len(payload)))
	u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(len(u))})
	copy(u.Payload(), payload)
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, toAddress(src.Addr()), toAddress(dst.Addr()), uint16(len(u)))
	u.SetChecksum(^u.CalculateChecksum(checksum.Checksum(payload, sum)))
	n.sendIPv4(src.Addr(), dst.Addr(), header.UDPProtocolNumber, u)
}
