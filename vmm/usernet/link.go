package usernet

import (
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

// queueBytes and queueFrames bound what waits for the guest to take it. TCP
// slows down by itself before that; what else comes is dropped, as a switch
// does.
const (
	queueBytes  = 8 << 20
	queueFrames = 2048
)

// port is link's side towards the device.
type port struct{ *link }

// link is the Ethernet between the stack and the guest: the stack's link
// endpoint on one side, the device's only port on the other.
type link struct {
	n *Network

	mu         sync.Mutex
	dispatcher stack.NetworkDispatcher
	closed     bool
	guestMAC   tcpip.LinkAddress // where its last frame came from
	offloads   uint64
	mtu        uint32
	queue      []queued // a ring
	first, len int
	bytes      int

	ready chan struct{} // holds a token when Wait is to return

	// Of Recv's caller:
	current queued // what the last frame's pieces belong to
	hdr     [virtionet.HeaderLen]byte
	pieces  [][]byte
}

// queued is a frame for the guest: a packet of the stack's, or bytes.
type queued struct {
	pkt *stack.PacketBuffer
	raw []byte // with the header of virtio
}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
	_ virtionet.Port     = port{}
	_ virtionet.Switched = (*Network)(nil)
)

func newLink(n *Network) *link {
	return &link{n: n, mtu: uint32(n.cfg.MTU), queue: make([]queued, 64), ready: make(chan struct{}, 1)}
}

// Offloads implements virtionet.Backend: the stack neither checks nor needs
// the guest's checksums, and takes TCP unsegmented. In a group another guest
// may be the receiver, which might take only frames that fit its link.
func (n *Network) Offloads() uint64 {
	o := uint64(virtionet.FeatureCsum | virtionet.FeatureGuestCsum | virtionet.FeatureGuestTSO4)
	if n.group == nil {
		o |= virtionet.FeatureHostTSO4
	}
	return o
}

// SetOffloads implements virtionet.Backend.
func (n *Network) SetOffloads(offloads uint64) error {
	n.link.mu.Lock()
	defer n.link.mu.Unlock()
	n.link.offloads = offloads
	return nil
}

// SetPairs implements virtionet.Backend.
func (n *Network) SetPairs(int) error { return nil }

// Switched implements virtionet.Switched: only a group's members remember where
// a guest is.
func (n *Network) Switched() bool { return n.group != nil }

// Ports implements virtionet.Backend.
func (n *Network) Ports() []virtionet.Port { return []virtionet.Port{port{n.link}} }

// Send implements virtionet.Port: it takes a frame from the guest.
func (p port) Send(frame [][]byte) error {
	total := 0
	for _, b := range frame {
		total += len(b)
	}
	if total < virtionet.HeaderLen+header.EthernetMinimumSize || total > virtionet.MaxFrame {
		return nil
	}
	view := buffer.NewViewSize(total)
	dst := view.AsSlice()
	for _, b := range frame {
		dst = dst[copy(dst, b):]
	}
	p.n.fromGuest(view)
	return nil
}

// Flush implements virtionet.Port: nothing is kept back.
func (p port) Flush() error { return nil }

// deliver gives the stack an Ethernet frame; it owns view.
func (l *link) deliver(view *buffer.View) {
	eth := header.Ethernet(view.AsSlice())
	proto := eth.Type()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(view)})
	defer pkt.DecRef()
	// Nothing on the way here can have damaged it, and the guest may have
	// left the checksum to the device.
	pkt.RXChecksumValidated = true
	l.mu.Lock()
	d := l.dispatcher
	l.mu.Unlock()
	if d != nil && l.ParseHeader(pkt) {
		d.DeliverNetworkPacket(proto, pkt)
	}
}

// push queues a frame for the guest, and says whether there was room.
func (l *link) push(q queued) bool {
	size := len(q.raw)
	if q.pkt != nil {
		size = q.pkt.Size()
	}
	l.mu.Lock()
	if l.closed || l.len == queueFrames || l.bytes+size > queueBytes {
		l.mu.Unlock()
		return false
	}
	if l.len == len(l.queue) {
		l.grow()
	}
	l.queue[(l.first+l.len)%len(l.queue)] = q
	l.len++
	l.bytes += size
	l.mu.Unlock()
	l.Wake()
	return true
}

func (l *link) grow() {
	q := make([]queued, 2*len(l.queue))
	k := copy(q, l.queue[l.first:])
	copy(q[k:], l.queue[:l.first])
	l.queue, l.first = q, 0
}

func (l *link) pop() (q queued, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.len == 0 {
		return q, false
	}
	q, l.queue[l.first] = l.queue[l.first], queued{}
	l.first = (l.first + 1) % len(l.queue)
	l.len--
	if q.pkt != nil {
		l.bytes -= q.pkt.Size()
	} else {
		l.bytes -= len(q.raw)
	}
	return q, true
}

// Recv implements virtionet.Port.
func (p port) Recv() ([][]byte, error) {
	p.current.release()
	var ok bool
	if p.current, ok = p.pop(); !ok {
		return nil, nil
	}
	p.pieces = p.pieces[:0]
	if p.current.pkt == nil {
		p.pieces = append(p.pieces, p.current.raw)
		return p.pieces, nil
	}
	h := vnetHeader(p.current.pkt)
	h.Encode(p.hdr[:])
	p.pieces = append(p.pieces, p.hdr[:])
	views, skip := p.current.pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		p.pieces = append(p.pieces, b[skip:])
		skip = 0
	}
	return p.pieces, nil
}

func (q *queued) release() {
	if q.pkt != nil {
		q.pkt.DecRef()
	}
	*q = queued{}
}

// vnetHeader says what the stack has left to the device.
func vnetHeader(pkt *stack.PacketBuffer) virtionet.Header {
	var h virtionet.Header
	g := pkt.GSOOptions
	if g.Type == stack.GSONone {
		return h
	}
	h.HdrLen = uint16(pkt.HeaderSize())
	if g.NeedsCsum {
		h.Flags = virtionet.HeaderNeedsCsum
		h.CsumStart, h.CsumOffset = header.EthernetMinimumSize+g.L3HdrLen, g.CsumOffset
	}
	if g.Type == stack.GSOTCPv4 && pkt.Data().Size() > int(g.MSS) {
		h.GSOType, h.GSOSize = virtionet.GSOTCPv4, g.MSS
	}
	return h
}

// Wait implements virtionet.Port.
func (p port) Wait() error {
	<-p.ready
	return nil
}

// Wake implements virtionet.Port.
func (l *link) Wake() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for q, ok := l.pop(); ok; q, ok = l.pop() {
		q.release()
	}
	l.Wake()
}
