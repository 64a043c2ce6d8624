package virtio_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

const pciWindow = 0xc000_0000

// slot is a device on a bus of its own.
type slot struct {
	p    *virtio.PCI
	mmio *bus.Bus
	host *pci.Host
}

type nullMSI struct{}

func (nullMSI) Set(uint64, uint32) error { return nil }
func (nullMSI) Fire() error              { return nil }
func (nullMSI) Close() error             { return nil }

func newSlot(t *testing.T, dev virtio.Device, opts virtio.PCIOptions) *slot {
	t.Helper()
	opts.NewMSI = func() (pci.MSI, error) { return nullMSI{}, nil }
	p, err := virtio.NewPCI(dev, virtiotest.Memory(t, 1<<20), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &slot{p: p, mmio: bus.New()}
	s.host = pci.NewHost(s.mmio, pci.Window{Base: pciWindow, Size: 1 << 24})
	if _, err := s.host.Add(p.Function()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *slot) get(reg uint64, n int) uint64 {
	var p [8]byte
	s.host.ECAM().Read(1<<15|reg, p[:n])
	return binary.LittleEndian.Uint64(p[:])
}

func (s *slot) set(reg uint64, n int, v uint64) {
	var p [8]byte
	binary.LittleEndian.PutUint64(p[:], v)
	s.host.ECAM().Write(1<<15|reg, p[:n])
}

// The capabilities as virtio 1.2 §4.1.4 wants them: each structure inside the
// BAR, aligned, none over another.
func TestPCICapabilities(t *testing.T) {
	s := newSlot(t, newEcho(), virtio.PCIOptions{})
	if got := s.get(0, 4); got != (0x1040+echoID)<<16|0x1af4 {
		t.Errorf("identity %#x", got)
	}
	if s.get(8, 1) < 1 || s.get(0x2c, 2) != 0x1af4 || s.get(0x2e, 2) < 0x40 {
		t.Error("not the identity of a device without a legacy interface (§4.1.2.1)")
	}
	type span struct{ from, to uint64 }
	var spans []span
	types := make(map[uint64]span)
	for at := s.get(0x34, 1); at != 0; at = s.get(at+1, 1) {
		if id := s.get(at, 1); id != 9 {
			if id != 0x11 || s.get(at+2, 2) != 2 { // 3 vectors
				t.Errorf("capability %#x, control %#x", id, s.get(at+2, 2))
			}
			table, pba := s.get(at+4, 4)&^7, s.get(at+8, 4)&^7
			spans = append(spans, span{table, table + 48}, span{pba, pba + 8})
			continue
		}
		kind, off, n := s.get(at+3, 1), s.get(at+8, 4), s.get(at+12, 4)
		types[kind] = span{off, off + n}
		if n := s.get(at+2, 1); n < 16 || (kind == 2 || kind == 5) != (n == 20) {
			t.Errorf("structure %d has a capability of %d bytes", kind, n)
		}
		if kind != 5 {
			spans = append(spans, span{off, off + n})
		}
		if kind == 2 && s.get(at+16, 4) != 4 {
			t.Errorf("notify_off_multiplier %d", s.get(at+16, 4))
		}
	}
	if len(types) != 5 || types[1].to-types[1].from != 56 || types[2].to-types[2].from != 8 || types[4].to-types[4].from != 10 {
		t.Errorf("structures %v", types)
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.from) - int(b.from) })
	s.set(0x10, 4, 0xffffffff)
	size := uint64(uint32(-int32(s.get(0x10, 4) &^ 0xf)))
	for i, p := range spans {
		if p.to > size || i > 0 && p.from < spans[i-1].to {
			t.Errorf("structures %v in %#x bytes", spans, size)
		}
	}
}

// Software that cannot map the BAR reaches it through configuration space
// (§4.1.4.9).
func TestPCIConfigurationAccess(t *testing.T) {
	s := newSlot(t, newEcho(), virtio.PCIOptions{})
	at := s.get(0x34, 1)
	for ; s.get(at, 1) != 9 || s.get(at+3, 1) != 5; at = s.get(at+1, 1) {
	}
	access := func(off, n uint64) {
		s.set(at+4, 1, 0)
		s.set(at+8, 4, off)
		s.set(at+12, 4, n)
	}
	access(20, 1) // device_status
	s.set(at+16, 1, 3)
	if got := s.get(at+16, 1); got != 3 || s.p.Inspect().Status != 3 {
		t.Errorf("status %d", got)
	}
	access(18, 2) // num_queues
	if got := s.get(at+16, 2); got != 2 {
		t.Errorf("%d queues", got)
	}
	access(0x2000, 4) // device configuration
	if got := s.get(at+16, 4); got != 0x33323130 {
		t.Errorf("configuration %#x", got)
	}
	for _, bad := range [][2]uint64{{20, 0}, {20, 3}, {20, 8}, {0xffff_fffc, 4}, {0xffff, 4}, {1 << 31, 1}} {
		access(bad[0], bad[1])
		s.set(at+16, 4, 0)
		s.get(at+16, 4)
	}
	s.set(at+4, 1, 1) // another BAR
	s.set(at+16, 4, 0)
	if s.p.Inspect().Status != 3 {
		t.Error("an access that goes nowhere reset the device")
	}
}

func TestPCIVectors(t *testing.T) {
	s := newSlot(t, newEcho(), virtio.PCIOptions{})
	s.set(4, 2, 2)
	rw := func(off, v uint64) uint64 {
		var p [2]byte
		binary.LittleEndian.PutUint16(p[:], uint16(v))
		s.mmio.Write(pciWindow+off, p[:])
		s.mmio.Read(pciWindow+off, p[:])
		return uint64(binary.LittleEndian.Uint16(p[:]))
	}
	for _, off := range []uint64{16, 26} {
		for v, want := range map[uint64]uint64{0: 0, 2: 2, 3: 0xffff, 0xfffe: 0xffff, 0xffff: 0xffff} {
			if got := rw(off, v); got != want {
				t.Errorf("vector register %d: wrote %#x, reads %#x, want %#x", off, v, got, want)
			}
		}
	}
	if got := rw(22, 1); got != 1 || s.p.Inspect().Queues[1].Max != 64 {
		t.Errorf("queue_select %d", got)
	}
	if got := rw(30, 9); got != 1 {
		t.Errorf("queue_notify_off %d", got)
	}
}

type addressBell struct {
	virtio.Doorbell
	addr   uint64
	closed *[]uint64
}

func (b addressBell) Close() error { *b.closed = append(*b.closed, b.addr); return nil }

// Doorbells are at addresses, and go where the guest moves the BAR, also while
// the device works.
func TestPCIDoorbellsMove(t *testing.T) {
	var closed, opened []uint64
	bells := make(map[uint64]virtio.Doorbell)
	e := newEcho()
	s := newSlot(t, e, virtio.PCIOptions{Doorbell: func(queue int, addr uint64) (virtio.Doorbell, error) {
		if addr%0x1000/4 != uint64(queue) {
			return nil, fmt.Errorf("queue %d at %#x", queue, addr)
		}
		b := addressBell{virtio.NewDoorbell(), addr, &closed}
		opened, bells[addr] = append(opened, addr), b
		return b, nil
	}})
	if len(opened) != 0 {
		t.Error("doorbells before the BAR is mapped")
	}
	s.set(4, 2, 2)
	s.set(0x10, 4, pciWindow+0x10_0000)
	s.set(4, 2, 0)
	s.set(4, 2, 2)
	want := []uint64{pciWindow + 0x3000, pciWindow + 0x3004, pciWindow + 0x10_3000, pciWindow + 0x10_3004, pciWindow + 0x10_3000, pciWindow + 0x10_3004}
	if !slices.Equal(opened, want) || !slices.Equal(closed, want[:4]) {
		t.Errorf("opened %#x, closed %#x, want %#x", opened, closed, want)
	}
}

// A working device is served through the doorbells at its new address.
func TestPCIMovesWhileServing(t *testing.T) {
	d := virtiotest.New(t, newEcho(), virtiotest.Config{PCI: true, Doorbells: true})
	d.Start(0)
	for range 3 {
		d.Rings[0].Do(t, [][]byte{{1}}, 1)
		req := d.Rings[1].Prepare([][]byte{{1}}, 1)
		d.Regs.Poke(0x10000+4, []byte{0, 0}) // memory space off
		d.Rings[1].Submit(req)
		d.Regs.Poke(0x10000+4, []byte{2, 0}) // and on
		d.Rings[1].Kick()
		if d.Rings[1].Wait(t) != req {
			t.Error("not the request")
		}
		d.Rings[1].Release(req)
	}
}

// wide has more queues than PCI has room for.
type wide struct{ *echo }

func (wide) Spec() virtio.Spec {
	return virtio.Spec{ID: echoID, QueueMax: slices.Repeat([]uint16{2}, 1025), Name: "wide"}
}

func TestPCIQueueLimit(t *testing.T) {
	if _, err := virtio.NewPCI(wide{newEcho()}, virtiotest.Memory(t, 1<<20), virtio.PCIOptions{}); err == nil {
		t.Error("1025 queues")
	}
}
