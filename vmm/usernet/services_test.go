package usernet

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

var testMAC = net.HardwareAddr{0x52, 0x54, 0, 1, 2, 3}

// udpFrame is a frame of a guest's with a datagram in it.
func udpFrame(src, dst netip.AddrPort, payload []byte) []byte {
	const l3, l4 = virtionet.HeaderLen + header.EthernetMinimumSize, virtionet.HeaderLen + header.EthernetMinimumSize + header.IPv4MinimumSize
	b := make([]byte, l4+header.UDPMinimumSize+len(payload))
	eth := header.Ethernet(b[virtionet.HeaderLen:])
	eth.Encode(&header.EthernetFields{SrcAddr: "\x52\x54\x00\x01\x02\x03", DstAddr: header.EthernetBroadcastAddress, Type: header.IPv4ProtocolNumber})
	ip := header.IPv4(b[l3:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
		SrcAddr: toAddress(src.Addr()), DstAddr: toAddress(dst.Addr())})
	ip.SetChecksum(^ip.CalculateChecksum())
	u := header.UDP(b[l4:])
	u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(len(u))})
	copy(u.Payload(), payload)
	return b
}

// exchange sends a DHCP message and returns the answer, nil if there is none.
func exchange(t *testing.T, n *Network, m *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	t.Helper()
	port := n.Ports()[0]
	frame := udpFrame(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), m.ToBytes())
	if err := port.Send([][]byte{frame}); err != nil {
		t.Fatal(err)
	}
	got, err := port.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if got == nil {
		return nil
	}
	eth := header.Ethernet(got[0][virtionet.HeaderLen:])
	ip := header.IPv4(eth[header.EthernetMinimumSize:])
	u := header.UDP(ip.Payload())
	if !ip.IsValid(len(ip)) || !ip.IsChecksumValid() || u.DestinationPort() != 68 ||
		!u.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksumOf(u.Payload())) {
		t.Fatalf("malformed answer % x", got[0])
	}
	if string(eth.DestinationAddress()) != string(testMAC) {
		t.Errorf("answer went to %s", eth.DestinationAddress())
	}
	resp, err := dhcpv4.FromBytes(u.Payload())
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestDHCPLease(t *testing.T) {
	n := newTestNetwork(t, Config{MTU: 9000}, nil)
	discover, err := dhcpv4.NewDiscovery(testMAC)
	if err != nil {
		t.Fatal(err)
	}
	offer := exchange(t, n, discover)
	if offer == nil || offer.MessageType() != dhcpv4.MessageTypeOffer || !offer.YourIPAddr.Equal(net.IPv4(10, 0, 2, 15)) {
		t.Fatalf("offer: %v", offer)
	}
	request, err := dhcpv4.NewRequestFromOffer(offer)
	if err != nil {
		t.Fatal(err)
	}
	ack := exchange(t, n, request)
	if ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(net.IPv4(10, 0, 2, 15)) {
		t.Fatalf("ack: %v", ack)
	}
	if ones, _ := ack.SubnetMask().Size(); ones != 24 {
		t.Errorf("subnet mask %v", ack.SubnetMask())
	}
	if r := ack.Router(); len(r) != 1 || !r[0].Equal(net.IPv4(10, 0, 2, 2)) {
		t.Errorf("router %v", r)
	}
	if d := ack.DNS(); len(d) != 1 || !d[0].Equal(net.IPv4(10, 0, 2, 3)) {
		t.Errorf("name servers %v", d)
	}
	if mtu := ack.Options.Get(dhcpv4.OptionInterfaceMTU); !bytes.Equal(mtu, []byte{0x23, 0x28}) {
		t.Errorf("mtu % x", mtu)
	}
}

func TestDHCPRefusals(t *testing.T) {
	n := newTestNetwork(t, Config{}, nil)
	request := func(mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(testMAC), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest)}, mods...)...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	wrong := request(dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IPv4(10, 0, 2, 99))))
	if r := exchange(t, n, wrong); r == nil || r.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("request for another address: %v", r)
	}
	other := request(dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 2, 1))))
	if r := exchange(t, n, other); r != nil {
		t.Errorf("request to another server: %v", r)
	}
	renew := request(dhcpv4.WithClientIP(net.IPv4(10, 0, 2, 15)))
	if r := exchange(t, n, renew); r == nil || r.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("renewal: %v", r)
	}
	inform := request(dhcpv4.WithMessageType(dhcpv4.MessageTypeInform))
	if r := exchange(t, n, inform); r == nil || !r.YourIPAddr.IsUnspecified() {
		t.Errorf("inform: %v", r)
	}
	release := request(dhcpv4.WithMessageType(dhcpv4.MessageTypeRelease))
	if r := exchange(t, n, release); r != nil {
		t.Errorf("release: %v", r)
	}
}

func question(name string, typ dnsmessage.Type) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 0x1234, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}}}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// nameserver answers every query with 1.2.3.4, by UDP and TCP.
func nameserver(t *testing.T) netip.AddrPort {
	t.Helper()
	l, _ := listenLocal(t)
	answer := func(q []byte) []byte {
		var m dnsmessage.Message
		if err := m.Unpack(q); err != nil {
			t.Error(err)
		}
		return reply(m.Header, m.Questions[0], dnsmessage.RCodeSuccess, &dnsmessage.AResource{A: [4]byte{1, 2, 3, 4}})
	}
	u, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Skipf("no port free for both protocols: %v", err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			k, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(answer(buf[:k]), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			a := answer(b[2:])
			_, _ = c.Write(append([]byte{byte(len(a) >> 8), byte(len(a))}, a...))
			c.Close()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func addressIn(t *testing.T, b []byte) (netip.Addr, dnsmessage.RCode) {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("answer % x: %v", b, err)
	}
	if m.ID != 0x1234 || !m.Response {
		t.Errorf("header %v", m.Header)
	}
	if len(m.Answers) == 0 {
		return netip.Addr{}, m.RCode
	}
	return netip.AddrFrom4(m.Answers[0].Body.(*dnsmessage.AResource).A), m.RCode
}

func TestDNS(t *testing.T) {
	n := newTestNetwork(t, Config{Nameservers: []netip.AddrPort{nameserver(t)}}, nil)
	g := newTestGuest(t, n, 0)
	c := g.dialUDP(n.DNS(), 53)
	for name, want := range map[string]string{"example.com.": "1.2.3.4", hostName: "10.0.2.2"} {
		if _, err := c.Write(question(name, dnsmessage.TypeA)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 512)
		k, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := addressIn(t, buf[:k]); got.String() != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	tcp, err := g.dial(n.DNS(), 53)
	if err != nil {
		t.Fatal(err)
	}
	q := question("example.com.", dnsmessage.TypeA)
	got := echo(t, tcp, append([]byte{0, byte(len(q))}, q...))
	if a, _ := addressIn(t, got[2:]); a.String() != "1.2.3.4" {
		t.Errorf("by TCP: %s", a)
	}
}

func TestDNSWithoutNameserver(t *testing.T) {
	n := newTestNetwork(t, Config{Nameservers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}}, nil)
	if _, code := addressIn(t, n.resolve(question("example.com.", dnsmessage.TypeA))); code != dnsmessage.RCodeServerFailure {
		t.Errorf("answer is %v, want SERVFAIL", code)
	}
	if a, code := addressIn(t, n.resolve(question(hostName, dnsmessage.TypeAAAA))); a.IsValid() || code != dnsmessage.RCodeSuccess {
		t.Errorf("the host's AAAA: %v, %v", a, code)
	}
	if got := n.resolve([]byte("nonsense")); got != nil {
		t.Errorf("nonsense answered with % x", got)
	}
}

func TestParseResolvConf(t *testing.T) {
	got := parseResolvConf(strings.NewReader("# c\nsearch x\nnameserver 127.0.0.53\nnameserver\nnameserver junk\n nameserver ::1 \nnameserver 1.1.1.1\nnameserver 9.9.9.9\n"))
	var s []string
	for _, a := range got {
		s = append(s, a.String())
	}
	if want := "127.0.0.53:53 [::1]:53 1.1.1.1:53"; strings.Join(s, " ") != want {
		t.Errorf("got %q, want %q", s, want)
	}
}

// fakeICMP is the kernel's ICMP socket: every host answers.
type fakeICMP struct {
	net.PacketConn
	sent   chan fakePing
	closed context.Context
	close  context.CancelFunc
}

type fakePing struct {
	msg header.ICMPv4
	to  net.Addr
}

func newFakeICMP() *fakeICMP {
	f := &fakeICMP{sent: make(chan fakePing, 8)}
	f.closed, f.close = context.WithCancel(context.Background())
	return f
}

func (f *fakeICMP) WriteTo(b []byte, to net.Addr) (int, error) {
	f.sent <- fakePing{append(header.ICMPv4(nil), b...), to}
	return len(b), nil
}

func (f *fakeICMP) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-f.sent:
		p.msg.SetType(header.ICMPv4EchoReply)
		p.msg.SetIdent(0x7777) // the kernel's own
		return copy(b, p.msg), p.to, nil
	case <-f.closed.Done():
		return 0, nil, net.ErrClosed
	}
}

func (f *fakeICMP) Close() error {
	f.close()
	return nil
}

// ping sends an echo request and returns the source of the answer.
func ping(t *testing.T, n *Network, dst string, wait bool) (from netip.Addr, ok bool) {
	t.Helper()
	icmp := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+32))
	icmp.SetType(header.ICMPv4Echo)
	icmp.SetIdent(0x4242)
	icmp.SetSequence(7)
	icmp.SetChecksum(header.ICMPv4Checksum(icmp, 0))
	frame := udpFrame(netip.AddrPortFrom(n.GuestIP(), 0), netip.AddrPortFrom(netip.MustParseAddr(dst), 0), make([]byte, 32))
	ip := header.IPv4(frame[virtionet.HeaderLen+header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: ip.SourceAddress(), DstAddr: ip.DestinationAddress()})
	ip.SetChecksum(^ip.CalculateChecksum())
	copy(ip.Payload(), icmp)
	copy(frame[virtionet.HeaderLen:], gatewayMAC)
	port := n.Ports()[0]
	if err := port.Send([][]byte{frame}); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, err := port.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got == nil && (!wait || time.Now().After(deadline)) {
			return netip.Addr{}, false
		}
		if got == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		flat := bytes.Join(got, nil)[virtionet.HeaderLen:]
		if header.Ethernet(flat).Type() == header.ARPProtocolNumber {
			answerARP(t, n, flat)
			continue
		}
		ip := header.IPv4(flat[header.EthernetMinimumSize:])
		m := header.ICMPv4(ip.Payload())
		if m.Type() != header.ICMPv4EchoReply || m.Ident() != 0x4242 || m.Sequence() != 7 || header.ICMPv4Checksum(m, 0) != m.Checksum() {
			t.Fatalf("answer % x", flat)
		}
		return fromAddress(ip.SourceAddress()), true
	}
}

func answerARP(t *testing.T, n *Network, request []byte) {
	t.Helper()
	b := append(make([]byte, virtionet.HeaderLen), request...)
	header.Ethernet(b[virtionet.HeaderLen:]).Encode(&header.EthernetFields{SrcAddr: "\x52\x54\x00\x01\x02\x03", DstAddr: gatewayMAC, Type: header.ARPProtocolNumber})
	req, resp := header.ARP(request[header.EthernetMinimumSize:]), header.ARP(b[virtionet.HeaderLen+header.EthernetMinimumSize:])
	resp.SetOp(header.ARPReply)
	copy(resp.HardwareAddressSender(), testMAC)
	copy(resp.ProtocolAddressSender(), req.ProtocolAddressTarget())
	copy(resp.HardwareAddressTarget(), req.HardwareAddressSender())
	copy(resp.ProtocolAddressTarget(), req.ProtocolAddressSender())
	if err := n.Ports()[0].Send([][]byte{b}); err != nil {
		t.Fatal(err)
	}
}

func TestPing(t *testing.T) {
	n := newTestNetwork(t, Config{}, nil)
	n.pings.listen = func() (net.PacketConn, error) { return newFakeICMP(), nil }
	for _, dst := range []string{"10.0.2.2", "10.0.2.3", "1.1.1.1", "93.184.215.14"} {
		if from, ok := ping(t, n, dst, true); !ok || from.String() != dst {
			t.Errorf("ping %s: answer from %v", dst, from)
		}
	}
	for _, dst := range []string{"10.0.2.77", "127.0.0.1", "224.0.0.1", "169.254.169.254"} {
		if _, ok := ping(t, n, dst, false); ok {
			t.Errorf("ping %s was answered", dst)
		}
	}
}

func TestPingDenied(t *testing.T) {
	n := newTestNetwork(t, Config{}, nil)
	n.pings.listen = func() (net.PacketConn, error) { return nil, errors.New("permission denied") }
	if _, ok := ping(t, n, "1.1.1.1", false); ok {
		t.Error("a ping that could not be sent was answered")
	}
}

func FuzzFromGuest(f *testing.F) {
	f.Add(udpFrame(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), []byte("\x01\x01\x06")))
	f.Add(udpFrame(netip.MustParseAddrPort("10.0.2.15:5000"), netip.MustParseAddrPort("10.0.2.3:53"), question("a.", dnsmessage.TypeA)))
	if d, err := dhcpv4.NewDiscovery(testMAC); err == nil {
		f.Add(udpFrame(netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), d.ToBytes()))
	}
	n := newTestNetwork(f, Config{NoHost: true, Nameservers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}}, nil)
	n.pings.listen = func() (net.PacketConn, error) { return nil, errors.New("no sockets in a fuzz test") }
	port := n.Ports()[0]
	f.Fuzz(func(t *testing.T, frame []byte) {
		if err := port.Send([][]byte{frame}); err != nil {
			t.Fatal(err)
		}
		for {
			got, err := port.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if got == nil {
				return
			}
			if n := len(bytes.Join(got, nil)); n < virtionet.HeaderLen+header.EthernetMinimumSize || n > virtionet.MaxFrame {
				t.Fatalf("frame of %d bytes for the guest", n)
			}
		}
	})
}
