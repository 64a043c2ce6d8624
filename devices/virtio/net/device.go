// Package net is the network device of virtio 1.2 §5.1, and the back ends that
// need nothing but a file or a socket. Checksums and TCP segmentation are left
// to whoever needs them done, in both directions; a frame for the guest may
// fill several receive buffers; several queue pairs carry traffic side by side.
package net

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	stdnet "net"
	"sync"
	"sync/atomic"
)

const (
	defaultQueueSize = 256
	maxPairs         = 0x8000 // virtio 1.2 §5.1.4.1
	minMTU           = 68     // virtio 1.2 §5.1.4.1
)

// Config describes a device. Only Backend has to be set.
type Config struct {
	Backend Backend

	// MAC is the guest's address; a random one, locally administered, if nil.
	MAC stdnet.HardwareAddr
	// MTU is the largest IP packet of the network; 0 leaves it to the driver.
	MTU int
	// QueueSize is that of each receive and transmit queue, a power of two;
	// 256 if 0. A driver allocates as many buffers when it starts.
	QueueSize uint16
	// BitsPerSecond bounds each direction's traffic; 0 does not.
	BitsPerSecond uint64

	Name string       // for messages; "net" if empty
	Log  *slog.Logger // discarded if nil
}

// Observer sees every frame that passes.
type Observer interface {
	// Frame is called from the goroutine that carries the frame, before a
	// driver or a back end gets it. The pieces begin with the Header, and are
	// only valid during the call.
	Frame(toGuest bool, frame [][]byte)
}

// Device is a virtio network device.
type Device struct {
	cfg   Config
	pairs []*pair

	observer atomic.Pointer[Observer]
	filter   atomic.Pointer[filter]
	down     atomic.Bool // the link is

	mu       sync.Mutex
	notify   func() // raises the configuration interrupt; nil before the transport is there
	active   int    // pairs that the driver uses
	announce bool   // the driver is asked to announce the guest
	restored bool   // the next Serve asks it to
}

// New returns a device on cfg's network.
func New(cfg Config) (*Device, error) {
	if cfg.QueueSize == 0 {
		cfg.QueueSize = defaultQueueSize
	}
	if cfg.Name == "" {
		cfg.Name = "net"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MAC == nil {
		cfg.MAC = randomMAC()
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("network device %s: %w", cfg.Name, err)
	}
	d := &Device{cfg: cfg, active: 1}
	toGuest, fromGuest := newLimit(cfg.BitsPerSecond), newLimit(cfg.BitsPerSecond)
	for _, p := range cfg.Backend.Ports() {
		d.pairs = append(d.pairs, newPair(d, p, toGuest, fromGuest))
	}
	d.resetFilter()
	return d, nil
}

func randomMAC() stdnet.HardwareAddr {
	mac := make(stdnet.HardwareAddr, macLen)
	_, _ = rand.Read(mac) // never fails (crypto/rand)
	mac[0] = mac[0]&^1 | 2
	return mac
}

func (cfg *Config) check() error {
	switch n := cfg.QueueSize; {
	case cfg.Backend == nil:
		return errors.New("it has no back end")
	case len(cfg.MAC) != macLen || cfg.MAC[0]&1 != 0:
		return fmt.Errorf("MAC address %s: want 6 bytes, the first of them even", cfg.MAC)
	case cfg.MTU != 0 && (cfg.MTU < minMTU || cfg.MTU > 65535):
		return fmt.Errorf("MTU %d: want %d to 65535", cfg.MTU, minMTU)
	case n&(n-1) != 0 || n > 1<<15:
		return fmt.Errorf("queue of %d descriptors: want a power of two up to 32768", n)
	}
	if n := len(cfg.Backend.Ports()); n < 1 || n > maxPairs {
		return fmt.Errorf("%d queue pairs: want 1 to %d", n, maxPairs)
	}
	return nil
}

// MAC is the guest's address: the one configured, or the one that the driver
// has set since.
func (d *Device) MAC() stdnet.HardwareAddr {
	f := d.filter.Load()
	return append(stdnet.HardwareAddr(nil), f.MAC[:]...)
}

// SetLink plugs the guest's cable in or out. Frames that pass while it is out
// are dropped.
func (d *Device) SetLink(up bool) {
	if d.down.Swap(!up) == up {
		d.configChanged()
	}
}

// Link says whether the cable is in, as it is at first.
func (d *Device) Link() bool { return !d.down.Load() }

// Observe has o see every frame from now on; nil ends it.
func (d *Device) Observe(o Observer) {
	if o == nil {
		d.observer.Store(nil)
		return
	}
	d.observer.Store(&o)
}

// OnConfigChange implements virtio.ConfigNotifier.
func (d *Device) OnConfigChange(notify func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notify = notify
}

func (d *Device) configChanged() {
	d.mu.Lock()
	notify := d.notify
	d.mu.Unlock()
	if notify != nil {
		notify()
	}
}

// Traffic counts one direction since the device was made.
type Traffic struct {
	Frames, Bytes uint64 // without virtio headers
	Dropped       uint64 // frames that did not get through
}

// Stats are a device's counters.
type Stats struct{ ToGuest, FromGuest Traffic }

// Stats returns the device's counters.
func (d *Device) Stats() (s Stats) {
	for _, p := range d.pairs {
		p.rx.addTo(&s.ToGuest)
		p.tx.addTo(&s.FromGuest)
	}
	return s
}

// counters are Traffic with one writer.
type counters struct{ frames, bytes, dropped atomic.Uint64 }

func (c *counters) passed(n int) {
	add(&c.frames, 1)
	add(&c.bytes, uint64(n))
}

func (c *counters) addTo(t *Traffic) {
	t.Frames += c.frames.Load()
	t.Bytes += c.bytes.Load()
	t.Dropped += c.dropped.Load()
}
