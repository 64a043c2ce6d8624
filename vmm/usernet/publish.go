package usernet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// Publish is a port of the guest's that the host listens for.
type Publish struct {
	Host  netip.AddrPort // where the host listens; port 0 means any free one
	Guest uint16
	UDP   bool // TCP if false
}

// String is the form that ParsePublish takes.
func (p Publish) String() string {
	s := fmt.Sprintf("%s:%d", p.Host, p.Guest)
	if p.UDP {
		s += "/udp"
	}
	return s
}

// ParsePublish reads [IP:]HOST:GUEST[/tcp|/udp]. Without an IP the host listens
// on 127.0.0.1: only programs of the host's own reach the guest. An IPv6
// address stands in brackets.
func ParsePublish(s string) (Publish, error) {
	fail := func(why string) (Publish, error) {
		return Publish{}, fmt.Errorf("parse published port %q: %s: want [IP:]HOST:GUEST[/udp]", s, why)
	}
	var p Publish
	rest, proto, ok := strings.Cut(s, "/")
	if ok && proto != "tcp" && proto != "udp" {
		return fail(fmt.Sprintf("protocol %q", proto))
	}
	p.UDP = proto == "udp"
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return fail("one port is missing")
	}
	guest, err := strconv.ParseUint(rest[i+1:], 10, 16)
	if err != nil || guest == 0 {
		return fail(fmt.Sprintf("guest port %q", rest[i+1:]))
	}
	p.Guest = uint16(guest)
	host := rest[:i]
	if !strings.Contains(host, ":") {
		host = "127.0.0.1:" + host
	}
	if p.Host, err = netip.ParseAddrPort(host); err != nil {
		return fail(fmt.Sprintf("host %q", rest[:i]))
	}
	return p, nil
}

// publish listens for p.
func (n *Network) publish(p Publish) error {
	if p.Guest == 0 || !p.Host.Addr().IsValid() {
		return fmt.Errorf("publish %s: not a port", p)
	}
	if p.UDP {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(p.Host))
		if err != nil {
			return explainListen(p, err)
		}
		p.Host = c.LocalAddr().(*net.UDPAddr).AddrPort()
		n.wg.Go(func() { n.servePublishedUDP(c, p.Guest) })
	} else {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(p.Host))
		if err != nil {
			return explainListen(p, err)
		}
		p.Host = l.Addr().(*net.TCPAddr).AddrPort()
		n.wg.Go(func() { n.servePublishedTCP(l, p.Guest) })
	}
	n.published = append(n.published, p)
	return nil
}

func explainListen(p Publish, err error) error {
	hint := "choose another port"
	if errors.Is(err, os.ErrPermission) {
		hint = "choose a port from 1024, or lower sysctl net.ipv4.ip_unprivileged_port_start"
	}
	return fmt.Errorf("publish %s: %w: %s", p, err, hint)
}

func (n *Network) servePublishedTCP(l *net.TCPListener, port uint16) {
	defer l.Close()
	stop := context.AfterFunc(n.ctx, func() { l.Close() })
	defer stop()
	for {
		host, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no descriptor left, or a client that went away
			n.cfg.Log.Warn("accept on published port", "err", err)
			n.pause(100 * time.Millisecond)
			continue
		}
		select {
		case n.tcp <- struct{}{}:
			n.wg.Go(func() {
				defer func() { <-n.tcp }()
				n.connectGuest(host, port)
			})
		default:
			host.Close()
		}
	}
}

// Release lets the clients of published ports through that Config.Hold has
// wait. It may be called more than once.
func (n *Network) Release() { n.release() }

// awaitRelease waits until nobody holds the published ports; false if the
// network was closed before.
func (n *Network) awaitRelease() bool {
	select {
	case <-n.released:
		return true
	case <-n.ctx.Done():
		return false
	}
}

// pause waits for d, or less if the network is closed.
func (n *Network) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-n.ctx.Done():
	}
}

func (n *Network) connectGuest(host net.Conn, port uint16) {
	if !n.awaitRelease() {
		host.Close()
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	defer cancel()
	guest, err := gonet.DialTCPWithBind(ctx, n.stack, n.fullAddress(n.gateway, 0), n.fullAddress(n.guest, port), ipv4.ProtocolNumber)
	if err != nil {
		host.Close()
		return
	}
	n.splice(guest, host)
}

func (n *Network) fullAddress(a netip.Addr, port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: toAddress(a), Port: port}
}

// udpClients are the flows of one published UDP port, by the client's address.
type udpClients struct {
	mu sync.Mutex
	m  map[netip.AddrPort]*udpClient
}

// udpClient is a client of a published port, as a connection: it reads nothing
// (the port's reader does), and writes to the client.
type udpClient struct {
	guest net.Conn
	idle  *time.Timer
}

func (n *Network) servePublishedUDP(c *net.UDPConn, port uint16) {
	defer c.Close()
	stop := context.AfterFunc(n.ctx, func() { c.Close() })
	defer stop()
	clients := udpClients{m: make(map[netip.AddrPort]*udpClient)}
	buf := make([]byte, maxDatagram)
	for {
		k, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an answer to some client
		}
		if !n.awaitRelease() {
			return
		}
		if u := n.udpClient(&clients, c, from, port); u != nil {
			u.idle.Reset(udpIdle)
			_, _ = u.guest.Write(buf[:k])
		}
	}
}

// udpClient is the client's flow, a new one if there is room.
func (n *Network) udpClient(clients *udpClients, c *net.UDPConn, from netip.AddrPort, port uint16) *udpClient {
	clients.mu.Lock()
	defer clients.mu.Unlock()
	if u := clients.m[from]; u != nil {
		return u
	}
	select {
	case n.udp <- struct{}{}:
	default:
		return nil
	}
	local, remote := n.fullAddress(n.gateway, 0), n.fullAddress(n.guest, port)
	guest, err := gonet.DialUDP(n.stack, &local, &remote, ipv4.ProtocolNumber)
	if err != nil {
		<-n.udp
		return nil
	}
	u := &udpClient{guest: guest, idle: time.AfterFunc(udpIdle, func() { guest.Close() })}
	clients.m[from] = u
	n.wg.Go(func() {
		defer func() { <-n.udp }()
		n.answerClient(c, from, u)
		clients.mu.Lock()
		delete(clients.m, from)
		clients.mu.Unlock()
	})
	return u
}

// answerClient passes the guest's datagrams on to one client.
func (n *Network) answerClient(c *net.UDPConn, to netip.AddrPort, u *udpClient) {
	defer u.guest.Close()
	defer u.idle.Stop()
	stop := context.AfterFunc(n.ctx, func() { u.guest.Close() })
	defer stop()
	buf := datagrams.Get().(*[]byte)
	defer datagrams.Put(buf)
	for failures := 0; failures < 8; {
		k, err := u.guest.Read(*buf)
		if err != nil {
			if isClosed(err) {
				return
			}
			failures++
			continue
		}
		failures = 0
		u.idle.Reset(udpIdle)
		_, _ = c.WriteToUDPAddrPort((*buf)[:k], to)
	}
}
