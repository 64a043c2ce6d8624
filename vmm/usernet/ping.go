package usernet

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	maxPings = 32               // sockets, one for each ping program of the guest's
	pingIdle = 10 * time.Second // without an answer or a request
)

// pinger passes the guest's echo requests on through the kernel's unprivileged
// ICMP sockets (icmp(7), net.ipv4.ping_group_range). Where the host does not
// permit them the guest gets no answer, never a false one.
type pinger struct {
	n      *Network
	listen func() (net.PacketConn, error) // opens a socket; replaced by tests

	mu     sync.Mutex
	socks  map[pingKey]*pingSocket
	denied bool // the host permits none: said once
}

type pingKey struct {
	guest netip.Addr
	ident uint16
}

type pingSocket struct {
	net.PacketConn
	idle *time.Timer
}

func (p *pinger) start(n *Network) {
	p.n, p.socks = n, make(map[pingKey]*pingSocket)
	if p.listen == nil {
		p.listen = func() (net.PacketConn, error) { return icmp.ListenPacket("udp4", "0.0.0.0") }
	}
}

// request passes on an ICMP packet of the guest's, if it is an echo request.
func (p *pinger) request(ip header.IPv4, dst netip.Addr) {
	msg := header.ICMPv4(ip.Payload())
	if len(msg) < header.ICMPv4MinimumSize || msg.Type() != header.ICMPv4Echo {
		return
	}
	s := p.socket(pingKey{fromAddress(ip.SourceAddress()), msg.Ident()})
	if s == nil {
		return
	}
	s.idle.Reset(pingIdle)
	// The kernel puts its own identifier and the checksum in.
	_, _ = s.WriteTo(msg, &net.UDPAddr{IP: dst.AsSlice()})
}

// socket is the socket for requests of k, a new one if there is room.
func (p *pinger) socket(k pingKey) *pingSocket {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.socks[k]; s != nil {
		return s
	}
	if len(p.socks) >= maxPings || p.n.ctx.Err() != nil {
		return nil
	}
	c, err := p.listen()
	if err != nil {
		if !p.denied {
			p.denied = true
			p.n.cfg.Log.Warn("guest's pings go unanswered: add the VMM's group to sysctl net.ipv4.ping_group_range", "err", err)
		}
		return nil
	}
	s := &pingSocket{PacketConn: c, idle: time.AfterFunc(pingIdle, func() { c.Close() })}
	p.socks[k] = s
	p.n.wg.Go(func() { p.replies(k, s) })
	return s
}

// replies passes on what comes back until the socket is closed.
func (p *pinger) replies(k pingKey, s *pingSocket) {
	defer func() {
		p.mu.Lock()
		delete(p.socks, k)
		p.mu.Unlock()
		s.idle.Stop()
		s.Close()
	}()
	buf := make([]byte, maxDatagram)
	for {
		size, from, err := s.ReadFrom(buf)
		if err != nil {
			return
		}
		msg := header.ICMPv4(buf[:size])
		u, ok := from.(*net.UDPAddr)
		if !ok || size < header.ICMPv4MinimumSize || msg.Type() != header.ICMPv4EchoReply {
			continue
		}
		msg.SetIdent(k.ident)
		msg.SetChecksum(0)
		msg.SetChecksum(header.ICMPv4Checksum(msg, 0))
		p.n.sendIPv4(u.AddrPort().Addr().Unmap(), k.guest, header.ICMPv4ProtocolNumber, msg)
	}
}

func (p *pinger) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.socks {
		s.Close()
	}
}
