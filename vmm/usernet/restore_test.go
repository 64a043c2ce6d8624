package usernet

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

// TestUnknownConnectionIsReset sends a segment of a connection that another
// process had, as a restored guest does: it must learn that it is gone.
func TestUnknownConnectionIsReset(t *testing.T) {
	n := newTestNetwork(t, Config{}, nil)
	for _, dst := range []string{"10.0.2.2:80", "93.184.215.14:443"} {
		frame := segmentFrame(netip.AddrPortFrom(n.GuestIP(), 4000), netip.MustParseAddrPort(dst))
		port := n.Ports()[0]
		if err := port.Send([][]byte{frame}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); ; {
			got, err := port.Recv()
			if err != nil || time.Now().After(deadline) {
				t.Fatalf("%s: no answer, %v", dst, err)
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
			tcp := header.TCP(ip.Payload())
			if from := netip.AddrPortFrom(fromAddress(ip.SourceAddress()), tcp.SourcePort()); from.String() != dst ||
				tcp.Flags()&header.TCPFlagRst == 0 || tcp.SequenceNumber() != 2000 {
				t.Errorf("%s: answer from %v with flags %v, sequence number %d", dst, from, tcp.Flags(), tcp.SequenceNumber())
			}
			break
		}
	}
}

// TestFormerConnectionsAreReset: a guest's programs that wait for an answer are
// told that nobody will give one, whoever had begun the connection.
func TestFormerConnectionsAreReset(t *testing.T) {
	host, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	before := newTestNetwork(t, Config{Publish: []Publish{{Host: netip.MustParseAddrPort("127.0.0.1:0"), Guest: 80}}}, nil)
	g := newTestGuest(t, before, 0)
	ours, err := g.dial(before.Gateway(), uint16(host.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	l := g.listen(80)
	client, err := net.Dial("tcp", before.Published()[0].Host.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var former []Connection
	for deadline := time.Now().Add(10 * time.Second); len(former) != 2; former = before.Connections() {
		if time.Now().After(deadline) {
			t.Fatalf("connections %v", former)
		}
		time.Sleep(time.Millisecond)
	}
	after := newTestNetwork(t, Config{}, nil)
	g.move(after)
	after.Reset(append(former, Connection{Guest: netip.MustParseAddrPort("10.0.2.99:80"), Peer: former[0].Peer}))
	for _, c := range []net.Conn{ours, theirs} {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		if n, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("read from a former connection: %d bytes, %v", n, err)
		}
	}
	before.Close()
	for deadline := time.Now().Add(10 * time.Second); len(before.Connections()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("connections of a closed network: %v", before.Connections())
		}
	}
}

// segmentFrame is a frame with an acknowledgement of byte 2000.
func segmentFrame(src, dst netip.AddrPort) []byte {
	b := udpFrame(src, dst, make([]byte, header.TCPMinimumSize-header.UDPMinimumSize))
	copy(b[virtionet.HeaderLen:], gatewayMAC)
	ip := header.IPv4(b[virtionet.HeaderLen+header.EthernetMinimumSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip)), TTL: 64, Protocol: uint8(header.TCPProtocolNumber),
		SrcAddr: ip.SourceAddress(), DstAddr: ip.DestinationAddress()})
	ip.SetChecksum(^ip.CalculateChecksum())
	tcp := header.TCP(ip.Payload())
	tcp.Encode(&header.TCPFields{SrcPort: src.Port(), DstPort: dst.Port(), SeqNum: 1000, AckNum: 2000,
		DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck, WindowSize: 1000})
	return b
}
