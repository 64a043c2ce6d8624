package usernet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

const (
	// peerPatience is how long a frame waits for a member that does not
	// keep up, before it is dropped.
	peerPatience = 20 * time.Millisecond

	maxMACs       = 1024
	socketSuffix  = ".sock"
	groupLock     = "lock"
	memberTimeout = time.Second // how long a list of members is used
)

// group joins the guests of several networks to one Ethernet without a process
// in the middle: every member has a datagram socket in the group's folder,
// named by its guest's number in the subnet, and sends frames for the other
// guests straight there. Each guest keeps the gateway of its own network.
//
// A datagram is a frame with its virtio header, whose num_buffers says the
// sender's number; the header alone announces a new member.
type group struct {
	n      *Network
	dir    string
	number uint16
	conn   *net.UnixConn // receives

	mu     sync.Mutex
	peers  map[uint16]*net.UnixConn
	listed time.Time // when peers was last brought up to date
	macs   map[tcpip.LinkAddress]uint16
}

// joinGroup takes a number in the folder, and gives n's guest the address that
// belongs to it.
func joinGroup(n *Network) (*group, error) {
	g := &group{n: n, dir: n.cfg.Group, peers: make(map[uint16]*net.UnixConn), macs: make(map[tcpip.LinkAddress]uint16)}
	if err := os.MkdirAll(g.dir, 0o700); err != nil {
		return nil, fmt.Errorf("join group: %w", err)
	}
	unlock, err := lockFile(filepath.Join(g.dir, groupLock))
	if err != nil {
		return nil, fmt.Errorf("join group: %w", err)
	}
	defer unlock()
	if err := g.takeNumber(); err != nil {
		return nil, fmt.Errorf("join group %s: %w", g.dir, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refresh()
	hello := make([]byte, virtionet.HeaderLen)
	g.stamp(hello)
	for number := range g.peers {
		g.write(number, hello)
	}
	return g, nil
}

// takeNumber binds the first free number's socket, or that of the address
// which the configuration asks for.
func (g *group) takeNumber() error {
	first, last := g.n.firstGuest(), uint16(min(1<<(32-g.n.subnet.Bits())-2, 1<<15))
	if g.n.cfg.GuestIP.IsValid() {
		b, base := g.n.guest.As4(), g.n.subnet.Addr().As4()
		first = uint16(binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(base[:]))
		last = first
	}
	for i := first; i <= last; i++ {
		conn, err := claim(g.path(i))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return err
		}
		g.conn, g.number = conn, i
		g.n.guest = g.n.numbered(i)
		return nil
	}
	return errors.New("no address is left")
}

func (g *group) path(number uint16) string {
	return filepath.Join(g.dir, strconv.Itoa(int(number))+socketSuffix)
}

// claim binds path, over a socket that a dead process left. The folder is
// locked.
func claim(path string) (*net.UnixConn, error) {
	addr := &net.UnixAddr{Name: path, Net: "unixgram"}
	c, err := net.ListenUnixgram("unixgram", addr)
	if !errors.Is(err, syscall.EADDRINUSE) {
		if errors.Is(err, syscall.EINVAL) {
			err = fmt.Errorf("%w: the path has %d bytes, and UNIX sockets allow about 100", err, len(path))
		}
		return c, err
	}
	if probe, derr := net.DialUnix("unixgram", nil, addr); derr == nil {
		probe.Close()
		return nil, err
	} else if !errors.Is(derr, syscall.ECONNREFUSED) {
		return nil, derr
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return net.ListenUnixgram("unixgram", addr)
}

// refresh brings peers in line with the folder; g.mu is held.
func (g *group) refresh() {
	if time.Since(g.listed) < memberTimeout {
		return
	}
	g.listed = time.Now()
	entries, err := os.ReadDir(g.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		s, ok := strings.CutSuffix(e.Name(), socketSuffix)
		number, err := strconv.ParseUint(s, 10, 16)
		if !ok || err != nil || uint16(number) == g.number || g.peers[uint16(number)] != nil {
			continue
		}
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: g.path(uint16(number)), Net: "unixgram"})
		if err != nil {
			continue // it has left
		}
		_ = c.SetWriteBuffer(1 << 20)
		g.peers[uint16(number)] = c
	}
}

func (g *group) stamp(frame []byte) { binary.LittleEndian.PutUint16(frame[10:], g.number) }

// send passes a frame of this guest's on: to the member that dst was last seen
// at, or to all.
func (g *group) send(frame []byte, dst tcpip.LinkAddress, toAll bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stamp(frame)
	if number, ok := g.macs[dst]; ok && !toAll {
		if g.peers[number] == nil { // it came after us, and spoke first
			g.refresh()
		}
		g.write(number, frame)
		return
	}
	g.refresh()
	for number := range g.peers {
		g.write(number, frame)
	}
}

// write sends a datagram to one member; g.mu is held. A member that is gone is
// forgotten.
func (g *group) write(number uint16, b []byte) {
	c := g.peers[number]
	if c == nil {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(peerPatience))
	if _, err := c.Write(b); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	c.Close()
	delete(g.peers, number)
	for mac, at := range g.macs {
		if at == number {
			delete(g.macs, mac)
		}
	}
}

// receive passes frames of other members on to the guest until close.
func (g *group) receive() {
	buf := make([]byte, virtionet.MaxFrame+1)
	for {
		k, err := g.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || k < virtionet.HeaderLen || k > virtionet.MaxFrame {
			continue
		}
		g.accept(buf[:k])
	}
}

// accept takes one datagram.
func (g *group) accept(b []byte) {
	number := binary.LittleEndian.Uint16(b[10:])
	if len(b) < virtionet.HeaderLen+header.EthernetMinimumSize {
		g.mu.Lock()
		defer g.mu.Unlock()
		if c := g.peers[number]; c != nil { // it left and came back
			c.Close()
			delete(g.peers, number)
		}
		g.listed = time.Time{}
		return
	}
	g.learn(header.Ethernet(b[virtionet.HeaderLen:]).SourceAddress(), number)
	if raw := g.n.link.adapt(slices.Clone(b)); raw != nil {
		g.n.link.push(queued{raw: raw})
	}
}

func (g *group) learn(mac tcpip.LinkAddress, number uint16) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at, ok := g.macs[mac]; ok && at == number || mac == gatewayMAC {
		return
	}
	if len(g.macs) >= maxMACs {
		clear(g.macs)
	}
	g.macs[mac] = number
}

// adapt makes a frame of another guest's fit what this one takes: it completes
// the checksum if need be. It returns nil for a frame that does not fit.
func (l *link) adapt(raw []byte) []byte {
	var h virtionet.Header
	h.Decode(raw)
	frame := raw[virtionet.HeaderLen:]
	if h.Check(len(frame), virtionet.FeatureCsum) != nil {
		return nil
	}
	l.mu.Lock()
	partial := l.offloads&virtionet.FeatureGuestCsum != 0
	l.mu.Unlock()
	if h.Flags&virtionet.HeaderNeedsCsum != 0 && !partial {
		sum := ^checksum.Checksum(frame[h.CsumStart:], 0)
		if sum == 0 {
			sum = 0xffff // in UDP, 0 means no checksum
		}
		binary.BigEndian.PutUint16(frame[h.CsumStart+h.CsumOffset:], sum)
		h = virtionet.Header{}
	}
	h.Encode(raw)
	return raw
}

func (g *group) close() {
	g.conn.Close()
	_ = os.Remove(g.path(g.number))
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.peers {
		c.Close()
	}
}
