package decode

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

// frame says what an Ethernet frame is, from its first bytes. b begins with
// virtio's header, n is the length of both.
func frame(b []byte, n uint32) string {
	if len(b) < net.HeaderLen || n < net.HeaderLen {
		return "a frame without a whole header"
	}
	s := ethernet(b[net.HeaderLen:])
	s += fmt.Sprintf(", %d B", n-net.HeaderLen)
	if more := net.Describe(b); more != "" {
		s += ", " + more
	}
	return s
}

func ethernet(b []byte) string {
	if len(b) < header.EthernetMinimumSize {
		return "a short frame"
	}
	eth := header.Ethernet(b)
	b = b[header.EthernetMinimumSize:]
	switch eth.Type() {
	case header.IPv4ProtocolNumber:
		return ipv4(b)
	case header.IPv6ProtocolNumber:
		return ipv6(b)
	case header.ARPProtocolNumber:
		return arp(b)
	}
	return fmt.Sprintf("%v → %v type %#04x", eth.SourceAddress(), eth.DestinationAddress(), uint16(eth.Type()))
}

func arp(b []byte) string {
	if len(b) < header.ARPSize || !header.ARP(b).IsValid() {
		return "ARP"
	}
	a := header.ARP(b)
	from, to := tcpip.AddrFromSlice(a.ProtocolAddressSender()), tcpip.AddrFromSlice(a.ProtocolAddressTarget())
	if a.Op() == header.ARPRequest {
		return fmt.Sprintf("ARP who has %v? tell %v", to, from)
	}
	return fmt.Sprintf("ARP %v is at %v", from, tcpip.LinkAddress(a.HardwareAddressSender()))
}

func ipv4(b []byte) string {
	if len(b) < header.IPv4MinimumSize {
		return "IPv4"
	}
	h := header.IPv4(b)
	n := int(h.HeaderLength())
	if n < header.IPv4MinimumSize || n > len(b) {
		return "IPv4 with a bad header"
	}
	from, to := h.SourceAddress(), h.DestinationAddress()
	if h.FragmentOffset() != 0 {
		return fmt.Sprintf("IPv4 fragment %v → %v", from, to)
	}
	return transport(h.TransportProtocol(), from, to, b[n:])
}

func ipv6(b []byte) string {
	if len(b) < header.IPv6MinimumSize {
		return "IPv6"
	}
	h := header.IPv6(b)
	return transport(h.TransportProtocol(), h.SourceAddress(), h.DestinationAddress(), b[header.IPv6MinimumSize:])
}

func transport(proto tcpip.TransportProtocolNumber, from, to tcpip.Address, b []byte) string {
	switch {
	case proto == header.TCPProtocolNumber && len(b) >= header.TCPMinimumSize:
		t := header.TCP(b)
		return fmt.Sprintf("TCP %v:%d → %v:%d %s", from, t.SourcePort(), to, t.DestinationPort(), tcpFlags(t.Flags()))
	case proto == header.UDPProtocolNumber && len(b) >= header.UDPMinimumSize:
		u := header.UDP(b)
		return fmt.Sprintf("UDP %v:%d → %v:%d%s", from, u.SourcePort(), to, u.DestinationPort(), service(u.SourcePort(), u.DestinationPort()))
	case proto == header.ICMPv4ProtocolNumber && len(b) > 0:
		return fmt.Sprintf("ICMP %v → %v type %d", from, to, b[0])
	case proto == header.ICMPv6ProtocolNumber && len(b) > 0:
		return fmt.Sprintf("ICMPv6 %v → %v type %d", from, to, b[0])
	}
	return fmt.Sprintf("IP protocol %d %v → %v", proto, from, to)
}

func service(ports ...uint16) string {
	for _, p := range ports {
		switch p {
		case 53:
			return " (DNS)"
		case 67, 68:
			return " (DHCP)"
		case 123:
			return " (NTP)"
		}
	}
	return ""
}

func tcpFlags(f header.TCPFlags) string {
	s := ""
	for _, n := range []struct {
		bit  header.TCPFlags
		name string
	}{{header.TCPFlagSyn, "SYN"}, {header.TCPFlagFin, "FIN"}, {header.TCPFlagRst, "RST"}, {header.TCPFlagPsh, "PSH"}, {header.TCPFlagAck, "ACK"}, {header.TCPFlagUrg, "URG"}} {
		if f&n.bit != 0 {
			if s != "" {
				s += ","
			}
			s += n.name
		}
	}
	return "[" + s + "]"
}
