package vsock

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
)

const stateVersion = 2

// deviceState is what a snapshot keeps of a device: the streams that the guest
// takes for open. Most of their other ends are sockets of a process that the
// restored guest does not share, and are gone.
type deviceState struct {
	Version int
	CID     uint32
	Streams []*streamState `json:",omitempty"`
}

// streamState is one of them. Only one with Kept can go on, and only it has
// more than its ports.
type streamState struct {
	Local, Peer        uint32 // ports of the host and of the guest
	Kept               bool   `json:",omitempty"`
	Again, In          []byte `json:",omitempty"` // see Conn
	FwdCnt, TxCnt      uint32 `json:",omitempty"`
	PeerAlloc, PeerFwd uint32 `json:",omitempty"`
	SentShut, PeerShut uint32 `json:",omitempty"`
}

// maxAgain bounds what a stream's user may read before it calls Done.
const maxAgain = 1 << 20

// Keep has the stream go into snapshots, for Device.Resume in a device that is
// restored from one. Its user must call Done whenever it has dealt with all
// that it has read: what it has read since is read again in the restored one.
// A stream that is being written to is not kept.
func (c *Conn) Keep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keeps = true
}

// Done says that all that Read has returned is dealt with.
func (c *Conn) Done() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = c.kept[:0]
}

// HostPort is the host's port of the stream: its name for Device.Resume.
func (c *Conn) HostPort() uint32 { return c.key.local }

// State implements virtio.Stater.
func (d *Device) State() ([]byte, error) {
	return json.Marshal(deviceState{Version: stateVersion, CID: d.mux.cid(), Streams: d.mux.streams()})
}

// streams are those that the guest knows or is to be told the end of.
func (m *mux) streams() (list []*streamState) {
	m.mu.Lock()
	for _, k := range m.rsts[m.rstsSent:] {
		list = append(list, &streamState{Local: k.local, Peer: k.peer})
	}
	list = slices.AppendSeq(list, maps.Values(m.saved))
	conns := slices.Collect(maps.Values(m.conns))
	m.mu.Unlock()
	for _, c := range conns {
		if s := c.save(); s != nil {
			list = append(list, s)
		}
	}
	return list
}

// save is the stream's state; nil if the guest does not know it yet.
func (c *Conn) save() *streamState {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &streamState{Local: c.key.local, Peer: c.key.peer}
	if c.due&dueRequest != 0 {
		return nil
	}
	again := len(c.kept) + len(c.again)
	if !c.keeps || c.closed || c.state != stateEstablished || c.due&^(dueCreditUpdate|dueCreditRequest) != 0 || len(c.out) > 0 || again > maxAgain {
		return s
	}
	s.Kept = true
	s.Again = slices.Concat(c.kept, c.again)
	s.In = c.in.bytes()
	s.FwdCnt, s.TxCnt = c.fwdCnt, c.txCnt
	s.PeerAlloc, s.PeerFwd = c.peerAlloc, c.peerFwd
	s.SentShut, s.PeerShut = c.sentShut, c.peerShut
	return s
}

// SetState implements virtio.Stater. The guest's streams are gone unless one is
// resumed, which the driver learns by a transport-reset event (virtio 1.2
// §5.10.6.8) as soon as the device serves; nothing else reaches it before. A
// guest that had none is spared the event. The device keeps the context ID that
// it was made with: if that is another one, the event has the driver read it
// anew.
func (d *Device) SetState(state []byte) error {
	var s deviceState
	err := json.Unmarshal(state, &s)
	if err == nil {
		err = d.fits(&s)
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", d.cfg.Name, err)
	}
	d.mux.resetAll()
	d.mux.setSaved(s.Streams)
	d.restored.Store(len(s.Streams) > 0 || s.CID != d.mux.cid())
	return nil
}

// fits checks a state: it may come from anybody.
func (d *Device) fits(s *deviceState) error {
	if s.Version != stateVersion {
		return fmt.Errorf("state of version %d, want %d", s.Version, stateVersion)
	}
	if err := checkCID(s.CID); err != nil {
		return err
	}
	// Beside open streams there are those whose reset was due.
	if most := d.cfg.MaxConns + rstBacklog + d.cfg.MaxConns; len(s.Streams) > most {
		return fmt.Errorf("%d streams, and there can be %d", len(s.Streams), most)
	}
	for _, t := range s.Streams {
		if t == nil || len(t.In) > bufAlloc || len(t.Again) > maxAgain || (t.SentShut|t.PeerShut)&^shutBoth != 0 {
			return fmt.Errorf("a stream that no device has")
		}
	}
	return nil
}

// setSaved notes the streams of a restored guest. New ones get other ports, so
// that a late packet for an old one is not taken for one of theirs.
func (m *mux) setSaved(list []*streamState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved = make(map[key]*streamState, len(list))
	for _, s := range list {
		m.saved[key{s.Local, s.Peer}] = s
		if s.Local >= m.nextPort && s.Local < 0xffff_fffe {
			m.nextPort = s.Local + 1
		}
	}
}

// forgetSaved is for a driver that has forgotten all streams itself.
func (m *mux) forgetSaved() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved = nil
}

// Resume takes up a kept stream of a restored guest where it stood: the one
// whose HostPort was port. It must be called before the device serves. The
// guest's other streams are then reset one by one.
func (d *Device) Resume(port uint32) (net.Conn, error) {
	c, err := d.mux.resume(port)
	if err != nil {
		return nil, fmt.Errorf("resume a stream of %s: %w", d.cfg.Name, err)
	}
	d.restored.Store(false)
	d.kick()
	return c, nil
}

func (m *mux) resume(port uint32) (*Conn, error) {
	m.mu.Lock()
	var s *streamState
	for k, t := range m.saved {
		if k.local == port && t.Kept {
			s = t
		}
	}
	if s == nil {
		m.mu.Unlock()
		return nil, fmt.Errorf("the snapshot has none from port %d that can go on", port)
	}
	c := m.add(key{s.Local, s.Peer}, stateEstablished)
	for k := range m.saved {
		if k != c.key {
			m.rsts = append(m.rsts, k)
		}
	}
	m.saved = nil
	m.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keeps = true
	c.again, c.fwdCnt, c.fwdTold, c.txCnt = s.Again, s.FwdCnt, s.FwdCnt, s.TxCnt
	c.in.put(s.In)
	c.peerAlloc, c.peerFwd, c.sentShut, c.peerShut = s.PeerAlloc, s.PeerFwd, s.SentShut, s.PeerShut
	c.post(dueCreditUpdate) // one may have been due
	return c, nil
}
