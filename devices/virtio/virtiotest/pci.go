package virtiotest

import (
	"encoding/binary"
	"sync"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// The bus that a device under test is on, as its driver finds it.
const (
	pciWindow     = 0xc000_0000
	pciWindowSize = 0x100_0000
	pciECAM       = 0xe000_0000
)

// pciRegs are the structures of virtio 1.2 §4.1.4, where the capabilities say
// that they are.
type pciRegs struct {
	t        testing.TB
	bus      *bus.Bus
	config   uint64 // of the function
	bar      uint64
	common   uint64 // addresses
	isr      uint64
	device   uint64
	notify   uint64
	multiply uint32
	msix     uint64 // the capability
	queues   int
	note     [2]byte

	mu    sync.Mutex
	rings map[uint64]func() // of the doorbells, by address, while they are open
}

// address is where in memory a doorbell is, as long as it is open.
type address struct {
	r  *pciRegs
	at uint64
}

func (a address) Close() error {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	delete(a.r.rings, a.at)
	return nil
}

// doorbell returns a doorbell, an io.Closer, for writes to at.
func (r *pciRegs) doorbell(cfg *Config, at uint64) virtio.Doorbell {
	bell, ring := cfg.newBell()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rings[at] = ring
	if l, ok := bell.(virtio.Lender); ok {
		return struct {
			virtio.Lender
			address
		}{l, address{r, at}}
	}
	return struct {
		virtio.Doorbell
		address
	}{bell, address{r, at}}
}

// ringAt rings the doorbell at an address of memory; nil where there is none.
func (r *pciRegs) ringAt(at uint64) func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rings[at]
}

// fakeMSI delivers to a function what the accelerator would deliver to a CPU.
type fakeMSI struct {
	data uint32
	fire func(vector int)
}

func (m *fakeMSI) Set(_ uint64, data uint32) error { m.data = data; return nil }
func (m *fakeMSI) Fire() error                     { m.fire(int(m.data)); return nil }
func (m *fakeMSI) Close() error                    { return nil }

// newPCI puts dev on a bus of its own and finds it there. Vector 0 is the
// configuration's, vector i+1 queue i's.
func newPCI(t testing.TB, dev virtio.Device, mem *memory.Guest, cfg Config, interrupt func(queue int)) (virtio.Transport, Registers) {
	t.Helper()
	b := bus.New()
	r := &pciRegs{t: t, bus: b, queues: len(dev.Spec().QueueMax), rings: make(map[uint64]func())}
	opts := virtio.PCIOptions{Options: cfg.Options, NewMSI: func() (pci.MSI, error) {
		return &fakeMSI{fire: func(vector int) {
			if vector > 0 {
				interrupt(vector - 1)
			}
		}}, nil
	}}
	if cfg.Doorbells {
		opts.Doorbell = func(_ int, at uint64) (virtio.Doorbell, error) { return r.doorbell(&cfg, at), nil }
	}
	p, err := virtio.NewPCI(dev, mem, opts)
	if err != nil {
		t.Fatal(err)
	}
	host := pci.NewHost(b, pci.Window{Base: pciWindow, Size: pciWindowSize})
	n, err := host.Add(p.Function())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Map(bus.Range{Base: pciECAM, Size: pci.ECAMSize, Name: "ecam"}, host.ECAM()); err != nil {
		t.Fatal(err)
	}
	r.config = pciECAM + uint64(n)<<15
	r.discover()
	r.enableMSIX()
	return p, r
}

func (r *pciRegs) get(a uint64, n int) uint64 {
	var p [8]byte
	r.bus.Read(a, p[:n])
	return binary.LittleEndian.Uint64(p[:])
}

func (r *pciRegs) set(a uint64, n int, v uint64) {
	var p [8]byte
	binary.LittleEndian.PutUint64(p[:], v)
	r.bus.Write(a, p[:n])
}

// discover walks the capability list (PCI 3.0 §6.7, virtio 1.2 §4.1.4).
func (r *pciRegs) discover() {
	r.t.Helper()
	r.set(r.config+4, 2, 2) // memory space
	r.bar = r.get(r.config+0x10, 4) &^ 0xf
	for at := r.get(r.config+0x34, 1); at != 0; at = r.get(r.config+at+1, 1) {
		c := r.config + at
		where := r.bar + r.get(c+8, 4)
		switch id := r.get(c, 1); {
		case id == 0x11:
			r.msix = c
		case id != 9:
			r.t.Fatalf("capability %#x", id)
		case r.get(c+3, 1) == 1:
			r.common = where
		case r.get(c+3, 1) == 2:
			r.notify, r.multiply = where, uint32(r.get(c+16, 4))
		case r.get(c+3, 1) == 3:
			r.isr = where
		case r.get(c+3, 1) == 4:
			r.device = where
		}
	}
	if r.common == 0 || r.notify == 0 || r.isr == 0 || r.msix == 0 {
		r.t.Fatal("structures missing from the capability list")
	}
}

func (r *pciRegs) enableMSIX() {
	table := r.bar + r.get(r.msix+4, 4)&^7
	for v := range uint64(r.queues + 1) {
		r.set(table+16*v, 4, 0xfee0_0000)
		r.set(table+16*v+8, 4, v)
		r.set(table+16*v+12, 4, 0)
	}
	r.set(r.msix+2, 2, 0x8000)
}

func (r *pciRegs) Status() uint8     { return uint8(r.get(r.common+20, 1)) }
func (r *pciRegs) SetStatus(v uint8) { r.set(r.common+20, 1, uint64(v)) }

func (r *pciRegs) DeviceFeatures() uint64 {
	r.set(r.common, 4, 0)
	low := r.get(r.common+4, 4)
	r.set(r.common, 4, 1)
	return r.get(r.common+4, 4)<<32 | low
}

func (r *pciRegs) SetDriverFeatures(v uint64) {
	r.set(r.common+8, 4, 0)
	r.set(r.common+12, 4, v&0xffffffff)
	r.set(r.common+8, 4, 1)
	r.set(r.common+12, 4, v>>32)
}

func (r *pciRegs) sel(queue int) { r.set(r.common+22, 2, uint64(queue)) }

func (r *pciRegs) QueueMax(queue int) uint16 {
	r.sel(queue)
	return uint16(r.get(r.common+24, 2))
}

func (r *pciRegs) SetQueue(queue int, size uint16, desc, avail, used memory.Addr) {
	r.sel(queue)
	r.set(r.common+24, 2, uint64(size))
	r.set(r.common+26, 2, uint64(queue+1))
	for i, a := range []memory.Addr{desc, avail, used} {
		at := r.common + 32 + 8*uint64(i)
		r.set(at, 4, uint64(a)&0xffffffff)
		r.set(at+4, 4, uint64(a)>>32)
	}
}

func (r *pciRegs) EnableQueue(queue int) {
	r.sel(queue)
	r.set(r.common+28, 2, 1)
}

func (r *pciRegs) QueueReady(queue int) bool {
	r.sel(queue)
	return r.get(r.common+28, 2) == 1
}

func (r *pciRegs) Notify(queue int) {
	// What notify_off says for a queue needs its selection, which others may
	// be using: here it is the queue's number.
	at := r.notify + uint64(queue)*uint64(r.multiply)
	if ring := r.ringAt(at); ring != nil {
		ring()
		return
	}
	r.bus.Write(at, r.note[:])
}

func (r *pciRegs) Interrupt() uint8                 { return uint8(r.get(r.isr, 1)) }
func (r *pciRegs) Generation() uint32               { return uint32(r.get(r.common+21, 1)) }
func (r *pciRegs) ReadConfig(off uint64, p []byte)  { r.bus.Read(r.device+off, p) }
func (r *pciRegs) WriteConfig(off uint64, p []byte) { r.bus.Write(r.device+off, p) }

// Poke and Peek reach the first 256 bytes of configuration space from offset
// 0x10000, behind the BAR.
func (r *pciRegs) Poke(off uint64, p []byte) { r.bus.Write(r.anywhere(off), p) }
func (r *pciRegs) Peek(off uint64, p []byte) { r.bus.Read(r.anywhere(off), p) }

func (r *pciRegs) anywhere(off uint64) uint64 {
	if off >= 0x10000 {
		return r.config + off - 0x10000
	}
	return r.bar + off
}
