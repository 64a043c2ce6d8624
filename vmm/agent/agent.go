// Package agent is the host's end of the conversation with the agent in the
// default guest, which runs commands there, copies files, and changes what a
// restored guest must not share with its twin. docs/agent.md has the protocol.
//
// Every request is a connection of its own: after a snapshot was restored, and
// all connections are gone, the next request is as good as any. What the guest
// sends is not trusted.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Port is the vsock port at which the agent listens.
const Port = 1024

// Dialer opens a connection to the agent: to vsock port Port of the guest.
type Dialer func(ctx context.Context) (net.Conn, error)

// Client talks to the agent of one guest. It may be used by several goroutines.
type Client struct{ dial Dialer }

// New returns a client whose every request dials once.
func New(dial Dialer) *Client { return &Client{dial} }

// ErrLost is wrapped by errors of requests whose connection ended before the
// answer came: the guest stopped, was restored from a snapshot, or has no agent.
var ErrLost = errors.New("the connection to the guest's agent was lost")

// conn is a request's connection.
type conn struct {
	net.Conn
	ctx  context.Context
	stop func() bool
	buf  []byte
	kept KeptConn // the Conn, if it goes into snapshots

	mu  sync.Mutex // of writes
	out []byte
}

// start dials and sends the request.
func (c *Client) start(ctx context.Context, t frameType, e *encoder) (*conn, error) {
	payload, err := e.bytes()
	if err != nil {
		return nil, err
	}
	nc, err := c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach the guest's agent: %w", err)
	}
	k := newConn(ctx, nc)
	if err := k.send(t, payload); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

func newConn(ctx context.Context, nc net.Conn) *conn {
	k := &conn{Conn: nc, ctx: ctx, buf: make([]byte, maxPayload)}
	k.stop = context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	return k
}

func (k *conn) close() {
	k.stop()
	_ = k.Close() // the answer is here or will not come
}

// send writes one frame.
func (k *conn) send(t frameType, payload []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.out = appendFrame(k.out[:0], t, payload)
	if _, err := k.Write(k.out); err != nil {
		return k.lost(err)
	}
	return nil
}

// lost explains an error of the connection.
func (k *conn) lost(err error) error {
	if k.ctx.Err() != nil {
		return context.Cause(k.ctx)
	}
	if errors.Is(err, errProtocol) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// next reads a frame. An error frame becomes an *Error.
func (k *conn) next() (frameType, *decoder, error) {
	t, p, err := readFrame(k, k.buf)
	if err != nil {
		return 0, nil, k.lost(err)
	}
	d := &decoder{b: p}
	if t != outError {
		return t, d, nil
	}
	e := &Error{Errno: d.u32()}
	e.What = string(d.b)
	if err := d.err(); err != nil {
		return 0, nil, err
	}
	return 0, nil, e
}

func unexpected(t frameType) error {
	return fmt.Errorf("%w: unexpected frame %#x", errProtocol, uint32(t))
}

// call makes a request that is answered by one frame.
func (c *Client) call(ctx context.Context, t frameType, e *encoder) (*decoder, error) {
	k, err := c.start(ctx, t, e)
	if err != nil {
		return nil, err
	}
	defer k.close()
	got, d, err := k.next()
	if err != nil {
		return nil, err
	}
	if got != outOK && got != outEntry {
		return nil, unexpected(got)
	}
	return d, nil
}

// Info is what the agent says of its guest.
type Info struct {
	Version  uint32        // of the protocol
	Uptime   time.Duration // since the kernel began, suspended time included
	Clock    time.Time     // the guest's wall clock
	Hostname string
	Kernel   string // release
}

// Ping asks whether the agent is there.
func (c *Client) Ping(ctx context.Context) (Info, error) {
	d, err := c.call(ctx, reqPing, &encoder{})
	if err != nil {
		return Info{}, err
	}
	i := Info{Version: d.u32(), Uptime: time.Duration(d.u64()), Clock: time.Unix(0, int64(d.u64()))}
	i.Hostname, i.Kernel = d.str(), d.str()
	return i, d.err()
}

// Ways to end a guest. The agent answers, then ends programs and file systems,
// and after them the machine.
const (
	powerOff = 0
	reboot   = 1
	halt     = 2
)

// PowerOff asks the guest to turn itself off in order.
func (c *Client) PowerOff(ctx context.Context) error { return c.shutdown(ctx, powerOff) }

// Reboot asks the guest to start again in order.
func (c *Client) Reboot(ctx context.Context) error { return c.shutdown(ctx, reboot) }

// Halt asks the guest to end in order and to leave its CPUs halted.
func (c *Client) Halt(ctx context.Context) error { return c.shutdown(ctx, halt) }

func (c *Client) shutdown(ctx context.Context, kind uint8) error {
	e := &encoder{}
	e.u8(kind)
	_, err := c.call(ctx, reqShutdown, e)
	return err
}

// Mount flags, as in mount(2).
const (
	MountReadOnly = 1
	MountNoSUID   = 2
	MountNoDev    = 4
	MountNoExec   = 8
)

// Mount is a file system to mount in the guest.
type Mount struct {
	Type   string // "9p", "virtiofs", "ext4", "tmpfs", …
	Source string // a share's tag, or a device
	Target string // made if it is missing
	Flags  uint64
	Data   string // options; "" is right for virtiofs and 9p
}

// Mount mounts a file system in the guest.
func (c *Client) Mount(ctx context.Context, m Mount) error {
	e := &encoder{}
	e.str(m.Type)
	e.str(m.Source)
	e.str(m.Target)
	e.u64(m.Flags)
	e.str(m.Data)
	_, err := c.call(ctx, reqMount, e)
	return err
}

// Interface is a network interface to set up.
type Interface struct {
	Name    string           // eth0
	MAC     net.HardwareAddr // nil: keep
	CIDR    string           // "10.0.2.15/24"; "": keep
	Gateway string           // "": none
}

// Settings are what a guest gets that was restored from a snapshot, above all
// one of several from the same. Zero fields are left as they are.
type Settings struct {
	Clock      time.Time
	Entropy    []byte // at most 512 bytes; credited, and the generator reseeded
	Hostname   string
	Interfaces []Interface
	DNS        string // addresses, with commas
}

const (
	cfgClock = 1 + iota
	cfgEntropy
	cfgHostname
	cfgInterface
	cfgDNS
)

// Configure applies settings in the order of the fields; the first that fails
// ends it.
func (c *Client) Configure(ctx context.Context, s Settings) error {
	e := &encoder{}
	if len(s.Entropy) > 512 {
		return errors.New("more than 512 bytes of entropy")
	}
	if !s.Clock.IsZero() {
		e.u8(cfgClock)
		e.u64(uint64(s.Clock.UnixNano()))
	}
	if len(s.Entropy) > 0 {
		e.u8(cfgEntropy)
		e.raw(s.Entropy)
	}
	if s.Hostname != "" {
		e.u8(cfgHostname)
		e.str(s.Hostname)
	}
	for _, i := range s.Interfaces {
		e.u8(cfgInterface)
		e.str(i.Name)
		e.raw(i.MAC)
		e.str(i.CIDR)
		e.str(i.Gateway)
	}
	if s.DNS != "" {
		e.u8(cfgDNS)
		e.str(s.DNS)
	}
	_, err := c.call(ctx, reqConfigure, e)
	return err
}

var _ io.Reader = (*conn)(nil)
