package virtiotest

import (
	"context"
	"encoding/binary"
	"sync/atomic"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Config is how a device under test is built in.
type Config struct {
	PCI       bool   // the PCI transport; otherwise MMIO
	Memory    uint64 // bytes of guest memory; default 16 MiB
	QueueSize uint16 // at most; default what the device offers
	Options   virtio.Options

	// Doorbells has notifications go straight to doorbells, as with an
	// accelerator that has them; otherwise they are register accesses.
	Doorbells bool
	// Lends has these doorbells lend the device's work to the driver, as those
	// of an accelerator do that runs on our own goroutines.
	Lends bool
}

// Driver drives one device through a transport, as a guest's driver would.
type Driver struct {
	Mem       *memory.Guest
	Arena     *Arena
	Device    virtio.Device
	Transport virtio.Transport
	Features  uint64  // negotiated by Start
	Rings     []*Ring // of Start, one a queue
	Regs      Registers

	wake atomic.Pointer[[]*Ring] // whom an interrupt wakes

	t    testing.TB
	cfg  Config
	base memory.Addr // where the arena begins
}

// Registers are a transport's, by what they mean.
type Registers interface {
	Status() uint8
	SetStatus(v uint8)
	DeviceFeatures() uint64
	SetDriverFeatures(v uint64)
	QueueMax(queue int) uint16
	SetQueue(queue int, size uint16, desc, avail, used memory.Addr)
	EnableQueue(queue int)
	QueueReady(queue int) bool
	Notify(queue int)
	// Interrupt reads and acknowledges the interrupt status.
	Interrupt() uint8
	Generation() uint32
	ReadConfig(off uint64, p []byte)
	WriteConfig(off uint64, p []byte)
	// Poke writes anything anywhere in the device's registers, Peek reads.
	Poke(off uint64, p []byte)
	Peek(off uint64, p []byte)
}

// New puts dev behind a transport and a driver before it. The device is closed
// when the test ends.
func New(t testing.TB, dev virtio.Device, cfg Config) *Driver {
	t.Helper()
	if cfg.Memory == 0 {
		cfg.Memory = 16 << 20
	}
	d := &Driver{Mem: Memory(t, cfg.Memory), Device: dev, t: t, cfg: cfg, base: 0x1000}
	d.newArena()
	d.connect()
	t.Cleanup(func() {
		if err := d.Transport.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// connect builds the transport over the driver's memory.
func (d *Driver) connect() {
	d.t.Helper()
	if d.cfg.PCI {
		d.Transport, d.Regs = newPCI(d.t, d.Device, d.Mem, d.cfg, d.interrupt)
	} else {
		d.Transport, d.Regs = newMMIO(d.t, d.Device, d.Mem, d.cfg, d.interrupt)
	}
}

func (d *Driver) newArena() { d.Arena = NewArena(d.Mem, d.base, memory.Addr(d.cfg.Memory)) }

// interrupt wakes whoever waits for queue; all, where the transport has one
// interrupt.
func (d *Driver) interrupt(queue int) {
	rings := d.wake.Load()
	if rings == nil {
		return
	}
	for i, r := range *rings {
		if r != nil && (queue < 0 || queue == i) {
			r.Interrupt()
		}
	}
}

// Negotiate resets the device and goes as far as FEATURES_OK with those of
// want that are offered (virtio 1.2 §3.1.1, steps 1 to 6).
func (d *Driver) Negotiate(want uint64) {
	d.t.Helper()
	d.Regs.SetStatus(0)
	if s := d.Regs.Status(); s != 0 {
		d.t.Fatalf("status %#x after reset", s)
	}
	d.Regs.SetStatus(virtio.StatusAcknowledge)
	d.Regs.SetStatus(virtio.StatusAcknowledge | virtio.StatusDriver)
	d.Features = d.Regs.DeviceFeatures() & (want | virtio.FeatureVersion1)
	d.Regs.SetDriverFeatures(d.Features)
	const s = virtio.StatusAcknowledge | virtio.StatusDriver | virtio.StatusFeaturesOK
	d.Regs.SetStatus(s)
	if got := d.Regs.Status(); got != s {
		d.t.Fatalf("status %#x after FEATURES_OK, want %#x", got, s)
	}
}

// Start negotiates want, sets every queue up and says DRIVER_OK. Rings and
// memory of an earlier Start are given up.
func (d *Driver) Start(want uint64) {
	d.t.Helper()
	d.Negotiate(want)
	d.newArena()
	rings := make([]*Ring, len(d.Device.Spec().QueueMax))
	for i := range rings {
		rings[i] = d.setupQueue(i)
	}
	d.Rings = rings
	d.wake.Store(&rings)
	d.Regs.SetStatus(d.Regs.Status() | virtio.StatusDriverOK)
	if s := d.Regs.Status(); s&virtio.StatusNeedsReset != 0 {
		d.t.Fatalf("status %#x after DRIVER_OK: %s", s, d.Transport.Inspect().Error)
	}
}

func (d *Driver) setupQueue(i int) *Ring {
	d.t.Helper()
	size := d.Regs.QueueMax(i)
	if d.cfg.QueueSize != 0 {
		size = min(size, d.cfg.QueueSize)
	}
	r := NewRing(d.Arena, size, d.Features, func() { d.Regs.Notify(i) })
	d.Regs.SetQueue(i, size, r.Desc, r.Avail, r.Used)
	d.Regs.EnableQueue(i)
	if !d.Regs.QueueReady(i) {
		d.t.Fatalf("queue %d is not ready: %s", i, d.Transport.Inspect().Error)
	}
	return r
}

// SaveRestore pauses the device, saves it, and goes on with dev, a device built
// like the first, from what was saved. The first one is closed.
func (d *Driver) SaveRestore(dev virtio.Device) {
	d.t.Helper()
	if err := d.Transport.Pause(context.Background()); err != nil {
		d.t.Fatal(err)
	}
	state, err := d.Transport.State()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.Transport.Close(); err != nil {
		d.t.Fatal(err)
	}
	d.Device = dev
	d.connect()
	if err := d.Transport.Pause(context.Background()); err != nil {
		d.t.Fatal(err)
	}
	if err := d.Transport.SetState(state); err != nil {
		d.t.Fatal(err)
	}
	if err := d.Transport.Resume(); err != nil {
		d.t.Fatal(err)
	}
}

// NeedsReset says whether the device has given up.
func (d *Driver) NeedsReset() bool { return d.Regs.Status()&virtio.StatusNeedsReset != 0 }

// Config32 reads 32 bits of configuration space.
func (d *Driver) Config32(off uint64) uint32 {
	var p [4]byte
	d.Regs.ReadConfig(off, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

// Config16 reads 16 bits of configuration space.
func (d *Driver) Config16(off uint64) uint16 {
	var p [2]byte
	d.Regs.ReadConfig(off, p[:])
	return binary.LittleEndian.Uint16(p[:])
}

// Config64 reads 64 bits of configuration space, in halves.
func (d *Driver) Config64(off uint64) uint64 {
	return uint64(d.Config32(off)) | uint64(d.Config32(off+4))<<32
}
