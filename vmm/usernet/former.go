package usernet

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// Connection is a TCP connection between the guest and somebody else, with the
// addresses that the guest sees.
type Connection struct {
	Guest netip.AddrPort `json:"guest"`
	Peer  netip.AddrPort `json:"peer"`
}

// connections are those that are open.
type connections struct {
	mu sync.Mutex
	m  map[Connection]struct{}
}

// add notes the connection with the stack's end c, until the function that it
// returns is called.
func (s *connections) add(c *gonet.TCPConn) (remove func()) {
	guest, ok := c.RemoteAddr().(*net.TCPAddr)
	peer, ok2 := c.LocalAddr().(*net.TCPAddr)
	if !ok || !ok2 { // it has ended already
		return func() {}
	}
	k := Connection{Guest: guest.AddrPort(), Peer: peer.AddrPort()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[Connection]struct{})
	}
	s.m[k] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.m, k)
	}
}

// Connections are the guest's open TCP connections, for Reset in a network that
// takes this one's place.
func (n *Network) Connections() []Connection {
	n.conns.mu.Lock()
	defer n.conns.mu.Unlock()
	list := make([]Connection, 0, len(n.conns.m))
	for k := range n.conns.m {
		list = append(list, k)
	}
	return list
}

const (
	resetTime = 10 * time.Second // for a guest to answer
	maxResets = 32               // at once
)

// Reset ends connections that the guest had through another network, before it
// was saved: a program that waits for an answer would learn of their end from
// its keep-alive at best. It does not wait: a guest may need a while to answer,
// or never do.
//
// Their peer begins anew. The guest acknowledges where the old connection is,
// and what it acknowledges is not what was sent, so it is answered by a reset
// that it takes (RFC 9293, section 3.5.1, half-open connections).
func (n *Network) Reset(former []Connection) {
	if len(former) == 0 || n.ctx.Err() != nil {
		return
	}
	n.wg.Go(func() { n.resetAll(former) })
}

func (n *Network) resetAll(former []Connection) {
	var wg sync.WaitGroup
	defer wg.Wait()
	turns := make(chan struct{}, maxResets)
	for _, c := range former {
		if c.Guest.Addr() != n.guest || !c.Peer.Addr().Is4() {
			continue // the guest has another address now: all its connections break
		}
		select {
		case turns <- struct{}{}:
		case <-n.ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-turns }()
			n.reset(c)
		})
	}
}

func (n *Network) reset(c Connection) {
	ctx, cancel := context.WithTimeout(n.ctx, resetTime)
	defer cancel()
	conn, err := gonet.DialTCPWithBind(ctx, n.stack, n.fullAddress(c.Peer.Addr(), c.Peer.Port()),
		n.fullAddress(c.Guest.Addr(), c.Guest.Port()), ipv4.ProtocolNumber)
	if err == nil { // the guest listens there, and had no such connection any more
		conn.Close()
	}
}
