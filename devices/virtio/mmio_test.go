package virtio_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

func newMMIO(t *testing.T, dev virtio.Device, opts virtio.MMIOOptions) *virtio.MMIO {
	t.Helper()
	if opts.IRQ == nil {
		opts.IRQ = func() error { return nil }
	}
	m, err := virtio.NewMMIO(dev, virtiotest.Memory(t, 1<<20), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func read32(m *virtio.MMIO, off uint64) uint32 {
	p := []byte{1, 2, 3, 4}
	m.Read(off, p)
	return binary.LittleEndian.Uint32(p)
}

func write32(m *virtio.MMIO, off uint64, v uint32) {
	m.Write(off, binary.LittleEndian.AppendUint32(nil, v))
}

// Every register of virtio 1.2 table 4.1 after power-on.
func TestMMIORegistersAtPowerOn(t *testing.T) {
	m := newMMIO(t, newEcho(), virtio.MMIOOptions{})
	known := map[uint64]uint32{
		0x000: 0x74726976, 0x004: 2, 0x008: echoID, 0x00c: virtio.VendorID,
		0x010: virtio.FeatureIndirectDesc | virtio.FeatureEventIdx | echoFeature,
		0x034: 16,
		0x0b0: 0xffffffff, 0x0b4: 0xffffffff, 0x0b8: 0xffffffff, 0x0bc: 0xffffffff,
		0x100: 0x33323130, 0x104: 0x37363534, 0x108: 0x00003938,
	}
	for off := uint64(0); off < virtio.MMIOSize; off += 4 {
		if got := read32(m, off); got != known[off] {
			t.Errorf("register %#x reads %#x, want %#x", off, got, known[off])
		}
	}
}

func TestMMIORegistersThatKeepWhatIsWritten(t *testing.T) {
	m := newMMIO(t, newEcho(), virtio.MMIOOptions{})
	write32(m, 0x14, 1)
	if got := read32(m, 0x10); got != 1 { // VERSION_1
		t.Errorf("features 32-63: %#x", got)
	}
	write32(m, 0x14, 2)
	if got := read32(m, 0x10); got != 0 {
		t.Errorf("features 64-95: %#x", got)
	}
	write32(m, 0x24, 7)
	write32(m, 0x20, 0xffff_ffff)
	for i, off := range []uint64{0x80, 0x90, 0xa0} {
		write32(m, off, uint32(0x1000*(i+1)))
		write32(m, off+4, uint32(i+1))
	}
	write32(m, 0x38, 8)
	write32(m, 0x30, 1)
	if got := read32(m, 0x34); got != 64 {
		t.Errorf("queue 1 has at most %d entries", got)
	}
	info := m.Inspect()
	q := info.Queues[0]
	if info.Negotiated != 0 || q.Size != 8 || q.Desc != 0x1_0000_1000 || q.Avail != 0x2_0000_2000 || q.Used != 0x3_0000_3000 {
		t.Errorf("inspected %+v", info)
	}
	write32(m, 0x70, 1)
	if got := read32(m, 0x70); got != 1 {
		t.Errorf("status %#x", got)
	}
	write32(m, 0x70, 0)
	if q := m.Inspect().Queues[0]; q.Size != 16 || q.Desc != 0 {
		t.Errorf("after reset %+v", q)
	}
}

// §4.2.2.2: a queue that is stopped alone; the others go on.
func TestMMIOQueueStops(t *testing.T) {
	d := virtiotest.New(t, newEcho(), virtiotest.Config{})
	d.Start(0)
	for _, r := range d.Rings {
		r.Do(t, [][]byte{{1}}, 1)
	}
	zero := make([]byte, 4)
	d.Regs.Poke(0x30, zero)
	d.Regs.Poke(0x44, zero)
	if d.Regs.QueueReady(0) || !d.Regs.QueueReady(1) {
		t.Error("queue 0 alone is to be stopped")
	}
	d.Rings[0].Add([][]byte{{1}}, 1)
	d.Rings[0].Kick()
	d.Rings[1].Do(t, [][]byte{{1}}, 1)
	if d.Rings[0].Next() != nil {
		t.Error("a queue that was stopped is served")
	}
}

type countingBell struct {
	virtio.Doorbell
	rings int
}

func (b *countingBell) Ring() { b.rings++; b.Doorbell.Ring() }

func TestMMIODoorbells(t *testing.T) {
	bells := make(map[int]*countingBell)
	m := newMMIO(t, newEcho(), virtio.MMIOOptions{Doorbell: func(queue int) (virtio.Doorbell, error) {
		if queue == 0 {
			return nil, nil // the accelerator has none: one of our own
		}
		bells[queue] = &countingBell{Doorbell: virtio.NewDoorbell()}
		return bells[queue], nil
	}})
	for _, q := range []uint32{0, 1, 1, 2, 0xffffffff} {
		write32(m, virtio.NotifyOffset, q)
	}
	if len(bells) != 1 || bells[1].rings != 2 {
		t.Errorf("%d doorbells, queue 1 rang %d times", len(bells), bells[1].rings)
	}
	broken := errors.New("no more file descriptors")
	_, err := virtio.NewMMIO(newEcho(), virtiotest.Memory(t, 1<<20), virtio.MMIOOptions{
		Doorbell: func(int) (virtio.Doorbell, error) { return nil, broken }})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

// badSpec is a device whose queue has an impossible size.
type badSpec struct {
	*echo
	size uint16
}

func (b badSpec) Spec() virtio.Spec {
	return virtio.Spec{ID: echoID, QueueMax: []uint16{b.size}, Name: "bad"}
}

func TestQueueSizesOfADevice(t *testing.T) {
	for _, n := range []uint16{0, 3, 0xffff} {
		if _, err := virtio.NewMMIO(badSpec{newEcho(), n}, virtiotest.Memory(t, 1<<20), virtio.MMIOOptions{}); err == nil {
			t.Errorf("a queue of at most %d entries", n)
		}
	}
}
