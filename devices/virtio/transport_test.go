package virtio_test

import (
	"bytes"
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

// echo answers what it reads: a device with everything that a transport
// supports.
type echo struct {
	mu     sync.Mutex
	config []byte
	kept   atomic.Uint32 // state of the driver's: the first byte of the last request
	resets int
	notify func()

	hold    chan struct{} // not nil: a request waits for it
	serving atomic.Int32
	served  atomic.Int32
}

func newEcho() *echo { return &echo{config: []byte("0123456789")} }

const (
	echoID      = 42
	echoFeature = 1 << 5
)

func (e *echo) Spec() virtio.Spec {
	return virtio.Spec{ID: echoID, Features: echoFeature, QueueMax: []uint16{16, 64}, ConfigLen: 10, Name: "echo0"}
}

func (e *echo) ReadConfig(off uint64, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	copy(p, e.config[off:])
}

func (e *echo) WriteConfig(off uint64, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	copy(e.config[off:], p)
}

func (e *echo) OnConfigChange(f func()) { e.notify = f }

func (e *echo) Reset() { e.resets++; e.kept.Store(0) }

func (e *echo) State() ([]byte, error) {
	return strconv.AppendUint(nil, uint64(e.kept.Load()), 10), nil
}

func (e *echo) SetState(s []byte) error {
	n, err := strconv.ParseUint(string(s), 10, 8)
	if err != nil {
		return err
	}
	e.kept.Store(uint32(n))
	return nil
}

func (e *echo) Serve(ctx context.Context, features uint64, qs []*virtio.Queue) error {
	e.serving.Add(1)
	defer e.serving.Add(-1)
	return virtio.Work(ctx, qs, func(ctx context.Context, q *virtio.Queue) error {
		return virtio.Loop(ctx, q, func(c *virtio.Chain) (uint32, error) { return e.answer(q, c) })
	})
}

func (e *echo) answer(q *virtio.Queue, c *virtio.Chain) (uint32, error) {
	if e.hold != nil {
		<-e.hold
	}
	if c.ReadableLen() == 0 {
		return 0, virtio.Fault(q.Index(), "5", "nothing to answer")
	}
	r, w := virtio.NewReader(c.Readable()), virtio.NewWriter(c.Writable())
	first := r
	e.kept.Store(uint32(first.Uint8()))
	n := uint32(0)
	for _, s := range r.Rest() {
		m, _ := w.Write(s)
		n += uint32(m)
	}
	e.served.Add(1)
	return n, nil
}

const allFeatures = ^uint64(0)

// bothTransports runs a test behind each.
func bothTransports(t *testing.T, test func(t *testing.T, cfg virtiotest.Config)) {
	for name, cfg := range map[string]virtiotest.Config{
		"mmio": {}, "pci": {PCI: true}, "mmio doorbells": {Doorbells: true}, "pci doorbells": {PCI: true, Doorbells: true},
	} {
		t.Run(name, func(t *testing.T) { test(t, cfg) })
	}
}

func TestRequestsOverEitherTransport(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		d := virtiotest.New(t, newEcho(), cfg)
		for name, features := range ringFeatures {
			d.Start(features)
			if got := d.Features & (virtio.FeatureEventIdx | virtio.FeatureIndirectDesc); got != features {
				t.Fatalf("%s: features %#x", name, got)
			}
			for i, r := range d.Rings {
				r.Indirect = features&virtio.FeatureIndirectDesc != 0
				if got := r.Do(t, [][]byte{[]byte("ab"), []byte("cd")}, 3, 4); string(got) != "abcd" {
					t.Errorf("%s: queue %d answered %q", name, i, got)
				}
			}
		}
	})
}

func TestInterruptStatus(t *testing.T) {
	e := newEcho()
	d := virtiotest.New(t, e, virtiotest.Config{})
	d.Start(0)
	d.Rings[0].Do(t, [][]byte{{1}}, 1)
	if s := d.Regs.Interrupt(); s != 1 {
		t.Errorf("interrupt status %d after a request, want 1", s)
	}
	e.notify()
	if s := d.Regs.Interrupt(); s != 2 {
		t.Errorf("interrupt status %d after a configuration change, want 2", s)
	}
	if s := d.Regs.Interrupt(); s != 0 {
		t.Errorf("interrupt status %d after acknowledgement", s)
	}
}

func TestConfigurationSpace(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		e := newEcho()
		d := virtiotest.New(t, e, cfg)
		for _, tt := range []struct {
			off  uint64
			want string
		}{{0, "0"}, {3, "34"}, {4, "4567"}, {0, "01234567"}, {8, "89\x00\x00"}, {9, "9\x00\x00\x00\x00\x00\x00\x00"}, {10, "\x00"}, {0x800, "\x00\x00\x00\x00"}} {
			p := bytes.Repeat([]byte{0xee}, len(tt.want))
			d.Regs.ReadConfig(tt.off, p)
			if string(p) != tt.want {
				t.Errorf("read at %#x: %q, want %q", tt.off, p, tt.want)
			}
		}
		d.Regs.WriteConfig(8, []byte("wxyz"))
		d.Regs.WriteConfig(10, []byte("lost"))
		if string(e.config) != "01234567wx" {
			t.Errorf("configuration %q", e.config)
		}
		before := d.Regs.Generation()
		e.notify()
		if d.Regs.Generation() == before {
			t.Error("the generation is the same after a change")
		}
	})
}

func TestFeatureNegotiation(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		d := virtiotest.New(t, newEcho(), cfg)
		const base = virtio.FeatureVersion1 | virtio.FeatureEventIdx | virtio.FeatureIndirectDesc
		if got := d.Regs.DeviceFeatures(); got != base|echoFeature {
			t.Fatalf("offered %#x", got)
		}
		for _, tt := range []struct {
			choice uint64
			ok     bool
		}{{virtio.FeatureVersion1, true}, {base | echoFeature, true}, {echoFeature, false}, {0, false},
			{virtio.FeatureVersion1 | 1<<40, false}, {virtio.FeatureVersion1 | 1, false}} {
			d.Regs.SetStatus(0)
			d.Regs.SetStatus(3)
			d.Regs.SetDriverFeatures(tt.choice)
			d.Regs.SetStatus(11)
			if got := d.Regs.Status()&virtio.StatusFeaturesOK != 0; got != tt.ok {
				t.Errorf("features %#x: accepted %v", tt.choice, got)
			}
		}
		// They are fixed from FEATURES_OK on.
		d.Negotiate(0)
		d.Regs.SetDriverFeatures(base | 1<<50)
		if got := d.Transport.Inspect().Negotiated; got != virtio.FeatureVersion1 {
			t.Errorf("features became %#x", got)
		}
	})
	d := virtiotest.New(t, newEcho(), virtiotest.Config{Options: virtio.Options{NoIndirect: true, NoEventIdx: true}})
	if got := d.Regs.DeviceFeatures(); got != virtio.FeatureVersion1|echoFeature {
		t.Errorf("offered %#x without ring features", got)
	}
}

func TestStatusBits(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		d := virtiotest.New(t, newEcho(), cfg)
		d.Start(0)
		if s := d.Regs.Status(); s != 15 {
			t.Fatalf("status %d", s)
		}
		d.Regs.SetStatus(1) // bits cannot be taken back
		d.Regs.SetStatus(15 | virtio.StatusNeedsReset)
		if s := d.Regs.Status(); s != 15 {
			t.Errorf("status %d, want 15", s)
		}
		d.Regs.SetStatus(15 | virtio.StatusFailed)
		if s := d.Regs.Status(); s != 15|virtio.StatusFailed {
			t.Errorf("status %d after FAILED", s)
		}
		d.Regs.SetStatus(0)
		if s := d.Regs.Status(); s != 0 {
			t.Errorf("status %d after reset", s)
		}
	})
}

// What a driver does wrong before or with DRIVER_OK costs it the device, until
// it resets it.
func TestHostileSetup(t *testing.T) {
	tests := map[string]func(d *virtiotest.Driver){
		"DRIVER_OK first":        func(d *virtiotest.Driver) { d.Regs.SetStatus(0); d.Regs.SetStatus(4) },
		"queue outside memory":   func(d *virtiotest.Driver) { d.Regs.SetQueue(0, 8, 1<<40, 0, 0); d.Regs.EnableQueue(0) },
		"queue in the hole":      func(d *virtiotest.Driver) { d.Regs.SetQueue(0, 8, 0xd000_0000, 0, 0); d.Regs.EnableQueue(0) },
		"queue not aligned":      func(d *virtiotest.Driver) { d.Regs.SetQueue(0, 8, 0x1008, 0, 0); d.Regs.EnableQueue(0) },
		"size of no queue":       func(d *virtiotest.Driver) { d.Regs.SetQueue(0, 7, 0x1000, 0, 0); d.Regs.EnableQueue(0) },
		"size 0":                 func(d *virtiotest.Driver) { d.Regs.SetQueue(0, 0, 0x1000, 0, 0); d.Regs.EnableQueue(0) },
		"larger than the device": func(d *virtiotest.Driver) { d.Regs.SetQueue(0, 32, 0x1000, 0, 0); d.Regs.EnableQueue(0) },
		"enabled too late":       func(d *virtiotest.Driver) { d.Regs.SetStatus(15); d.Regs.EnableQueue(0) },
	}
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		for name, do := range tests {
			t.Run(name, func(t *testing.T) {
				var logged atomic.Int32
				cfg.Options.Log = func(error) { logged.Add(1) }
				d := virtiotest.New(t, newEcho(), cfg)
				d.Negotiate(0)
				do(d)
				if !d.NeedsReset() || d.Transport.Inspect().Error == "" || logged.Load() != 1 {
					t.Errorf("status %#x, error %q, %d lines logged", d.Regs.Status(), d.Transport.Inspect().Error, logged.Load())
				}
				d.Start(0)
				d.Rings[0].Do(t, [][]byte{{1}}, 1)
			})
		}
	})
}

func TestRegistersOfQueuesThatAreNotThere(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		d := virtiotest.New(t, newEcho(), cfg)
		d.Negotiate(0)
		for _, q := range []int{2, 3, 0xffff} {
			if n := d.Regs.QueueMax(q); n != 0 {
				t.Errorf("queue %d has %d entries", q, n)
			}
			d.Regs.SetQueue(q, 8, 0x1000, 0x2000, 0x3000)
			d.Regs.EnableQueue(q)
			if d.Regs.QueueReady(q) {
				t.Errorf("queue %d is ready", q)
			}
		}
		if d.Regs.QueueMax(0) != 16 || d.Regs.QueueMax(1) != 64 {
			t.Error("sizes of the queues that are there")
		}
		if d.NeedsReset() {
			t.Error("the device gave up")
		}
	})
}

// A queue's configuration does not change under a device that uses it.
func TestEnabledQueueKeepsItsPlace(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		d := virtiotest.New(t, newEcho(), cfg)
		d.Start(0)
		d.Regs.SetQueue(0, 2, 0x1000, 0x2000, 0x3000)
		if q := d.Transport.Inspect().Queues[0]; q.Desc != uint64(d.Rings[0].Desc) || q.Size != 16 {
			t.Errorf("queue %+v", q)
		}
		d.Rings[0].Do(t, [][]byte{{1}}, 1)
	})
}

// tracer counts.
type tracer struct{ popped, pushed, written, interrupts atomic.Int32 }

func (c *tracer) Popped(queue int, _ *virtio.Chain) { c.popped.Add(int32(queue)) }
func (c *tracer) Pushed(queue int, _ *virtio.Chain, n uint32) {
	c.pushed.Add(int32(queue))
	c.written.Add(int32(n))
}
func (c *tracer) Interrupted(queue int) { c.interrupts.Add(int32(queue)) }

func TestTrace(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		d := virtiotest.New(t, newEcho(), cfg)
		d.Start(0)
		var c tracer
		d.Transport.Trace(&c)
		d.Rings[1].Do(t, [][]byte{{1, 2, 3}}, 3)
		waitFor(t, "interrupt in the trace", func() bool { return c.interrupts.Load() == 1 })
		d.Transport.Trace(nil)
		d.Rings[1].Do(t, [][]byte{{1, 2, 3}}, 3)
		if c.popped.Load() != 1 || c.pushed.Load() != 1 || c.written.Load() != 3 {
			t.Errorf("traced %d popped, %d pushed, %d bytes", c.popped.Load(), c.pushed.Load(), c.written.Load())
		}
	})
}

// Unaligned, narrow, wide and far accesses read as nothing and change nothing.
func TestAccessesOfAnyShape(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		d := virtiotest.New(t, newEcho(), cfg)
		d.Start(0)
		end := uint64(0x1000)
		if cfg.PCI {
			end = 0x10000
		}
		for off := uint64(0); off < end; off++ {
			for _, n := range []int{1, 2, 4, 8} {
				d.Regs.Peek(off, make([]byte, n))
			}
		}
		if !cfg.PCI {
			for _, off := range []uint64{0x6f, 0x71, 0x72} {
				d.Regs.Poke(off, make([]byte, 4))
			}
			d.Regs.Poke(0x70, make([]byte, 1))
			d.Regs.Poke(0x70, make([]byte, 8))
		}
		d.Rings[0].Do(t, [][]byte{{1}}, 1)
		for off := range uint64(min(end, 0x4000)) { // as far as MSI-X, which would be masked
			for _, n := range []int{1, 2, 4, 8} {
				d.Regs.Poke(off, bytes.Repeat([]byte{0xff}, n))
			}
		}
		d.Start(0)
		d.Rings[0].Do(t, [][]byte{{1}}, 1)
	})
}

func TestNotificationBeforeReady(t *testing.T) {
	bothTransports(t, func(t *testing.T, cfg virtiotest.Config) {
		e := newEcho()
		d := virtiotest.New(t, e, cfg)
		for q := range 4 {
			if q < 2 || cfg.PCI {
				d.Regs.Notify(q)
			}
		}
		d.Start(0)
		d.Rings[0].Do(t, [][]byte{{1}}, 1)
	})
}

func FuzzTransports(f *testing.F) {
	virtiotest.Fuzz(f, func(testing.TB) virtio.Device { return newEcho() })
}
