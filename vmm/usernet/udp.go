package usernet

import (
	"context"
	"net"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// udpIdle is how long a flow without datagrams keeps its socket.
	udpIdle = 60 * time.Second

	maxDatagram = 65535
)

var datagrams = sync.Pool{New: func() any {
	b := make([]byte, maxDatagram)
	return &b
}}

// forwardUDP starts a flow of the guest's; it gets its first datagram. It runs
// in the goroutine that took the frame, so it does not block.
func (n *Network) forwardUDP(r *udp.ForwarderRequest) {
	id := r.ID()
	toDNS := fromAddress(id.LocalAddress) == n.dns && id.LocalPort == dnsPort
	dst, ok := n.destination(id)
	if !ok && !toDNS {
		return
	}
	select {
	case n.udp <- struct{}{}:
	default:
		return
	}
	var wq waiter.Queue
	ep, terr := r.CreateEndpoint(&wq)
	if terr != nil {
		<-n.udp
		return
	}
	guest := gonet.NewUDPConn(&wq, ep)
	n.wg.Go(func() {
		defer func() { <-n.udp }()
		if toDNS {
			n.serveDNS(guest)
			return
		}
		host, err := n.cfg.Dial(n.ctx, "udp", dst.String())
		if err != nil {
			guest.Close()
			return
		}
		n.relay(guest, host)
	})
}

// relay carries datagrams between two connected sockets until none has come
// from either side for udpIdle. It closes both.
func (n *Network) relay(a, b net.Conn) {
	closeBoth := func() {
		a.Close()
		b.Close()
	}
	stop := context.AfterFunc(n.ctx, closeBoth)
	defer stop()
	idle := time.AfterFunc(udpIdle, closeBoth)
	defer idle.Stop()
	var wg sync.WaitGroup
	wg.Go(func() { datagramsTo(a, b, idle) })
	datagramsTo(b, a, idle)
	closeBoth()
	wg.Wait()
}

// datagramsTo passes on what src receives until it is closed. An error that a
// datagram met, such as a refusing port, ends neither direction.
func datagramsTo(dst, src net.Conn, idle *time.Timer) {
	buf := datagrams.Get().(*[]byte)
	defer datagrams.Put(buf)
	for failures := 0; failures < 8; {
		k, err := src.Read(*buf)
		if err != nil {
			if isClosed(err) {
				return
			}
			failures++
			continue
		}
		failures = 0
		idle.Reset(udpIdle)
		if _, err := dst.Write((*buf)[:k]); err != nil && isClosed(err) {
			return
		}
	}
}
