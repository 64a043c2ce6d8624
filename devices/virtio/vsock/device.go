// Package vsock is the socket device of virtio 1.2 §5.10: streams between
// programs in the guest and the host, addressed by context ID and port, with
// no network in between.
//
// The host's end of each stream is a net.Conn of this process: Dial connects
// to a port of the guest's, Listen takes the guest's connections to a port of
// the host's, and Forward takes those that nobody listens for.
package vsock

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
)

// Limits of a Config.
const (
	// MinCID is the least context ID of a guest: those below belong to the
	// hypervisor, the local system and the host (virtio 1.2 §5.10.4).
	MinCID = 3

	defaultConns = 1024
	defaultQueue = 64
)

// Config describes a device. Only CID has to be set.
type Config struct {
	CID       uint32 // the guest's context ID, from MinCID to 0xfffffffe
	MaxConns  int    // streams at a time, both directions together; 1024 if 0
	QueueSize uint16 // of the two data queues, a power of two; 64 if 0
	Name      string // for messages; "vsock" if empty
}

// Device is a virtio socket device.
type Device struct {
	cfg Config
	mux *mux

	work     chan struct{} // holds a token when something became due to the guest
	room     chan struct{} // holds a token when the guest took resets
	restored atomic.Bool   // the driver is to be told that all its streams are gone

	toGuest, fromGuest traffic
}

// traffic counts packets of one direction; it has one writer.
type traffic struct{ packets, bytes atomic.Uint64 }

func (t *traffic) count(payload int) {
	t.packets.Store(t.packets.Load() + 1)
	t.bytes.Store(t.bytes.Load() + uint64(payload))
}

// Stats counts what a device has carried since it was made.
type Stats struct {
	Conns                            int    // streams that either side holds now
	PacketsToGuest, BytesToGuest     uint64 // bytes of payload
	PacketsFromGuest, BytesFromGuest uint64
}

// Stats returns the device's counters.
func (d *Device) Stats() Stats {
	return Stats{
		Conns:          d.mux.openConns(),
		PacketsToGuest: d.toGuest.packets.Load(), BytesToGuest: d.toGuest.bytes.Load(),
		PacketsFromGuest: d.fromGuest.packets.Load(), BytesFromGuest: d.fromGuest.bytes.Load(),
	}
}

// New returns a device for the guest with cfg's context ID.
func New(cfg Config) (*Device, error) {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = defaultConns
	}
	if cfg.QueueSize == 0 {
		cfg.QueueSize = defaultQueue
	}
	if cfg.Name == "" {
		cfg.Name = "vsock"
	}
	if err := checkCID(cfg.CID); err != nil {
		return nil, err
	}
	if q := cfg.QueueSize; q&(q-1) != 0 || q > 1<<15 {
		return nil, fmt.Errorf("vsock queue of %d descriptors: want a power of two up to 32768", q)
	}
	if cfg.MaxConns < 0 {
		return nil, fmt.Errorf("vsock with %d connections: want at least 1", cfg.MaxConns)
	}
	d := &Device{cfg: cfg, mux: newMux(cfg.CID, cfg.MaxConns), work: make(chan struct{}, 1), room: make(chan struct{}, 1)}
	d.mux.kick = d.kick
	return d, nil
}

func checkCID(cid uint32) error {
	if cid < MinCID || cid == 0xffff_ffff {
		return fmt.Errorf("vsock context ID %d: a guest's is from %d to 4294967294", cid, MinCID)
	}
	return nil
}

func (d *Device) kick() { signal(d.work) }

// signal leaves a token in c, which has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// CID is the guest's context ID.
func (d *Device) CID() uint32 { return d.mux.cid() }

// Dial connects to a port that a program in the guest listens at. It waits
// until the guest has answered or ctx is done: a guest without a driver answers
// when it has one. The error wraps ECONNREFUSED when nobody listens there. The
// connection is a *Conn.
func (d *Device) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	c, err := d.mux.dialContext(ctx, port)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Listen takes the connections that programs in the guest make to a port of
// the host's (context ID 2). Connections that come while 64 wait for Accept
// are refused.
func (d *Device) Listen(port uint32) (net.Listener, error) {
	l, err := d.mux.listen(port)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Forward has f called with each connection that the guest asks for and no
// Listener takes; nil, as at the start, refuses them. f must not block: it
// starts a goroutine that calls either Accept or Refuse. When Forward returns,
// the function before is not running.
func (d *Device) Forward(f func(Request)) {
	if f == nil {
		d.mux.setForward(nil)
		return
	}
	d.mux.setForward(func(c *Conn) { f(Request{c}) })
}

// Request is a connection that the guest has asked for and that nobody has
// answered yet.
type Request struct{ c *Conn }

// Port is the host's port that the guest connects to.
func (r Request) Port() uint32 { return r.c.key.local }

// Accept answers that the host takes the connection. It fails if the guest has
// given up meanwhile. The connection is a *Conn.
func (r Request) Accept() (net.Conn, error) {
	ok := r.c.accept()
	r.c.m.kick()
	if !ok {
		r.Refuse()
		return nil, r.c.opError("accept", net.ErrClosed)
	}
	return r.c, nil
}

// Refuse answers that nobody takes the connection.
func (r Request) Refuse() {
	r.c.refuse()
	r.c.m.kick()
}
