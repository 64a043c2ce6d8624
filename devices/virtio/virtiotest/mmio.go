package virtiotest

import (
	"encoding/binary"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// mmioRegs are the registers of virtio 1.2 §4.2.2.
type mmioRegs struct {
	m     *virtio.MMIO
	notes [][4]byte // a queue's notification, ready: sending one must not allocate
	rings []func()  // of the queues' doorbells
}

func newMMIO(t testing.TB, dev virtio.Device, mem *memory.Guest, cfg Config, interrupt func(queue int)) (virtio.Transport, Registers) {
	t.Helper()
	n := len(dev.Spec().QueueMax)
	r := &mmioRegs{notes: make([][4]byte, n), rings: make([]func(), n)}
	for i := range r.notes {
		binary.LittleEndian.PutUint32(r.notes[i][:], uint32(i))
	}
	opts := virtio.MMIOOptions{Options: cfg.Options, IRQ: func() error { interrupt(-1); return nil }}
	if cfg.Doorbells {
		opts.Doorbell = func(queue int) (bell virtio.Doorbell, err error) {
			bell, r.rings[queue] = cfg.newBell()
			return bell, nil
		}
	}
	var err error
	if r.m, err = virtio.NewMMIO(dev, mem, opts); err != nil {
		t.Fatal(err)
	}
	return r.m, r
}

func (r *mmioRegs) get(off uint64) uint32 {
	var p [4]byte
	r.m.Read(off, p[:])
	return binary.LittleEndian.Uint32(p[:])
}

func (r *mmioRegs) set(off uint64, v uint32) {
	var p [4]byte
	binary.LittleEndian.PutUint32(p[:], v)
	r.m.Write(off, p[:])
}

func (r *mmioRegs) set64(off uint64, v memory.Addr) {
	r.set(off, uint32(v))
	r.set(off+4, uint32(v>>32))
}

func (r *mmioRegs) Status() uint8     { return uint8(r.get(0x70)) }
func (r *mmioRegs) SetStatus(v uint8) { r.set(0x70, uint32(v)) }

func (r *mmioRegs) DeviceFeatures() uint64 {
	r.set(0x14, 0)
	low := r.get(0x10)
	r.set(0x14, 1)
	return uint64(r.get(0x10))<<32 | uint64(low)
}

func (r *mmioRegs) SetDriverFeatures(v uint64) {
	r.set(0x24, 0)
	r.set(0x20, uint32(v))
	r.set(0x24, 1)
	r.set(0x20, uint32(v>>32))
}

func (r *mmioRegs) QueueMax(queue int) uint16 {
	r.set(0x30, uint32(queue))
	return uint16(r.get(0x34))
}

func (r *mmioRegs) SetQueue(queue int, size uint16, desc, avail, used memory.Addr) {
	r.set(0x30, uint32(queue))
	r.set(0x38, uint32(size))
	r.set64(0x80, desc)
	r.set64(0x90, avail)
	r.set64(0xa0, used)
}

func (r *mmioRegs) EnableQueue(queue int) {
	r.set(0x30, uint32(queue))
	r.set(0x44, 1)
}

func (r *mmioRegs) QueueReady(queue int) bool {
	r.set(0x30, uint32(queue))
	return r.get(0x44) == 1
}

func (r *mmioRegs) Notify(queue int) {
	if ring := r.rings[queue]; ring != nil {
		ring()
		return
	}
	r.m.Write(virtio.NotifyOffset, r.notes[queue][:])
}

func (r *mmioRegs) Interrupt() uint8 {
	s := r.get(0x60)
	r.set(0x64, s)
	return uint8(s)
}

func (r *mmioRegs) Generation() uint32               { return r.get(0xfc) }
func (r *mmioRegs) ReadConfig(off uint64, p []byte)  { r.m.Read(0x100+off, p) }
func (r *mmioRegs) WriteConfig(off uint64, p []byte) { r.m.Write(0x100+off, p) }
func (r *mmioRegs) Poke(off uint64, p []byte)        { r.m.Write(off, p) }
func (r *mmioRegs) Peek(off uint64, p []byte)        { r.m.Read(off, p) }
