package usernet

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	resolvConf   = "/etc/resolv.conf"
	dnsTimeout   = 5 * time.Second // for one name server
	maxQueries   = 64              // of one flow, at a time
	hostName     = "host.vitrine.internal."
	hostNameTTL  = 60
	noNameserver = "the host has no name server: none is in " + resolvConf
)

// nameservers are the host's, in the order to try them.
func (n *Network) nameservers() []netip.AddrPort {
	if len(n.cfg.Nameservers) > 0 {
		return n.cfg.Nameservers
	}
	f, err := os.Open(resolvConf)
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseResolvConf(f)
}

// parseResolvConf reads the name servers from a resolv.conf(5).
func parseResolvConf(r io.Reader) []netip.AddrPort {
	var out []netip.AddrPort
	for s := bufio.NewScanner(r); s.Scan() && len(out) < 3; {
		f := strings.Fields(s.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, dnsPort))
		}
	}
	return out
}

// dialDNS connects to the first name server that takes the connection.
func (n *Network) dialDNS(ctx context.Context, network string) (net.Conn, error) {
	err := errors.New(noNameserver)
	for _, a := range n.nameservers() {
		var c net.Conn
		if c, err = n.cfg.Dial(ctx, network, a.String()); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// serveDNS answers the queries of one flow until none has come for udpIdle.
func (n *Network) serveDNS(guest net.Conn) {
	defer guest.Close()
	stop := context.AfterFunc(n.ctx, func() { guest.Close() })
	defer stop()
	slots := make(chan struct{}, maxQueries)
	buf := datagrams.Get().(*[]byte)
	defer datagrams.Put(buf)
	for {
		_ = guest.SetReadDeadline(time.Now().Add(udpIdle))
		k, err := guest.Read(*buf)
		if err != nil {
			break
		}
		query := append([]byte(nil), (*buf)[:k]...)
		select {
		case slots <- struct{}{}:
			n.wg.Go(func() {
				defer func() { <-slots }()
				if answer := n.resolve(query); answer != nil {
					_, _ = guest.Write(answer)
				}
			})
		default: // the client asks again
		}
	}
}

// resolve is the answer to a query: this network's own, or a name server's as
// it is, or SERVFAIL when there is none. A query that cannot be read gets none.
func (n *Network) resolve(query []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	if strings.EqualFold(q.Name.String(), hostName) {
		return n.answerHost(h, q)
	}
	for _, a := range n.nameservers() {
		if answer, err := n.ask(a, query); err == nil {
			return answer
		}
	}
	return reply(h, q, dnsmessage.RCodeServerFailure, nil)
}

// ask sends a query to one name server.
func (n *Network) ask(server netip.AddrPort, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(n.ctx, dnsTimeout)
	defer cancel()
	c, err := n.cfg.Dial(ctx, "udp", server.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		k, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if k >= 2 && buf[0] == query[0] && buf[1] == query[1] { // the same ID
			return buf[:k], nil
		}
	}
}

// answerHost answers for the name of the host.
func (n *Network) answerHost(h dnsmessage.Header, q dnsmessage.Question) []byte {
	if q.Type != dnsmessage.TypeA || q.Class != dnsmessage.ClassINET {
		return reply(h, q, dnsmessage.RCodeSuccess, nil)
	}
	return reply(h, q, dnsmessage.RCodeSuccess, &dnsmessage.AResource{A: n.gateway.As4()})
}

func reply(h dnsmessage.Header, q dnsmessage.Question, code dnsmessage.RCode, a *dnsmessage.AResource) []byte {
	m := dnsmessage.Message{
		Header: dnsmessage.Header{ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired,
			RecursionAvailable: true, RCode: code},
		Questions: []dnsmessage.Question{q},
	}
	if a != nil {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: hostNameTTL}, Body: a,
		}}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) }
