package usernet

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	dhcpServerPort = 67
	dhcpClientPort = 68

	// leaseTime is long: the address is the guest's as long as it runs.
	leaseTime = 24 * time.Hour
)

// answerDHCP answers one message of the guest's DHCP client (RFC 2131). The
// network has one guest, so there is one address to give, whoever asks.
func (n *Network) answerDHCP(msg []byte) {
	req, err := dhcpv4.FromBytes(msg)
	if err != nil || req.OpCode != dhcpv4.OpcodeBootRequest {
		return
	}
	typ, ok := n.dhcpReply(req)
	if !ok {
		return
	}
	resp, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(typ), dhcpv4.WithServerIP(n.gateway.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(n.gateway.AsSlice())))
	if err != nil {
		return
	}
	if typ != dhcpv4.MessageTypeNak {
		n.describe(resp, req.MessageType() != dhcpv4.MessageTypeInform)
	}
	// To the broadcast address: the client may have no address yet.
	n.sendUDP(netip.AddrPortFrom(n.gateway, dhcpServerPort),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcpClientPort), resp.ToBytes())
}

// dhcpReply is the type of the answer to req, if it gets one.
func (n *Network) dhcpReply(req *dhcpv4.DHCPv4) (dhcpv4.MessageType, bool) {
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return dhcpv4.MessageTypeOffer, true
	case dhcpv4.MessageTypeInform:
		return dhcpv4.MessageTypeAck, true
	case dhcpv4.MessageTypeRequest:
		if id := req.ServerIdentifier(); id != nil && !id.Equal(n.gateway.AsSlice()) {
			return 0, false // it took another server's offer
		}
		want := req.RequestedIPAddress()
		if want == nil || want.IsUnspecified() {
			want = req.ClientIPAddr // it renews its lease
		}
		if want.Equal(n.guest.AsSlice()) {
			return dhcpv4.MessageTypeAck, true
		}
		return dhcpv4.MessageTypeNak, true
	}
	return 0, false
}

// describe puts the network's parameters into an answer.
func (n *Network) describe(resp *dhcpv4.DHCPv4, lease bool) {
	if lease {
		resp.YourIPAddr = n.guest.AsSlice()
		resp.UpdateOption(dhcpv4.OptIPAddressLeaseTime(leaseTime))
	}
	resp.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(n.subnet.Bits(), 32)))
	resp.UpdateOption(dhcpv4.OptRouter(n.gateway.AsSlice()))
	resp.UpdateOption(dhcpv4.OptDNS(n.dns.AsSlice()))
	resp.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(n.cfg.MTU))))
}
