package usernet

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const dnsPort = 53

// destination is the host's address for what the guest connects to, if it may.
func (n *Network) destination(id stack.TransportEndpointID) (netip.AddrPort, bool) {
	a := fromAddress(id.LocalAddress)
	switch {
	case a == n.gateway && !n.cfg.NoHost:
		a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case !a.IsValid() || n.own(a) || !n.reachable(a):
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, id.LocalPort), true
}

// forwardTCP connects a connection request of the guest's to the host. It runs
// in a goroutine of its own; maxTCPSYN bounds how many there are.
func (n *Network) forwardTCP(r *tcp.ForwarderRequest) {
	select {
	case n.tcp <- struct{}{}:
		defer func() { <-n.tcp }()
	default:
		r.Complete(true)
		return
	}
	host, err := n.dialHost(r.ID())
	if err != nil {
		n.cfg.Log.Debug("guest's connection failed", "err", err)
		r.Complete(true)
		return
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	r.Complete(terr != nil)
	if terr != nil {
		host.Close()
		return
	}
	n.splice(gonet.NewTCPConn(&wq, ep), host)
}

// dialHost opens the host's side of a connection of the guest's.
func (n *Network) dialHost(id stack.TransportEndpointID) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	defer cancel()
	if fromAddress(id.LocalAddress) == n.dns && id.LocalPort == dnsPort {
		return n.dialDNS(ctx, "tcp")
	}
	dst, ok := n.destination(id)
	if !ok {
		return nil, &net.AddrError{Err: "destination is not allowed", Addr: id.LocalAddress.String()}
	}
	return n.cfg.Dial(ctx, "tcp", dst.String())
}

// halfCloser is a connection whose sending direction ends alone.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// copyBuffers hold what passes between two sockets.
var copyBuffers = sync.Pool{New: func() any {
	b := make([]byte, 128<<10)
	return &b
}}

// splice carries bytes between a connection of the guest's and one of the host's
// until both directions have ended, or one has failed, or the network is closed.
// It closes both.
func (n *Network) splice(a *gonet.TCPConn, b net.Conn) {
	defer n.conns.add(a)()
	closeBoth := func() {
		a.Close()
		b.Close()
	}
	stop := context.AfterFunc(n.ctx, closeBoth)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { transfer(a, b, closeBoth) })
	transfer(b, a, closeBoth)
	wg.Wait()
	closeBoth()
}

// transfer copies from src to dst and passes on how it ended.
func transfer(dst, src net.Conn, closeBoth func()) {
	buf := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buf)
	// The plain interfaces make io.CopyBuffer use the buffer.
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, *buf)
	if h, ok := dst.(halfCloser); ok && err == nil && h.CloseWrite() == nil {
		return
	}
	closeBoth()
}
