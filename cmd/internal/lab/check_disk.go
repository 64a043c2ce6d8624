package lab

import (
	"fmt"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// Registers of the first virtio-mmio device (virtio 1.2 §4.2.2).
const (
	diskAt         = 0xd0000000
	diskQueueNum   = 0x038
	diskQueueReady = 0x044
	diskNotify     = 0x050
	diskStatus     = 0x070
)

const sectors = 8

// diskStart is a program of lab 6 that is to read a sector.
func diskStart(sector uint64) Start {
	disk := make([]byte, sectors*blk.SectorSize)
	for i := range sectors {
		copy(disk[i*blk.SectorSize:], sectorText(uint64(i)))
	}
	return Start{AX: sector, Flat: true, Disk: disk}
}

func sectorText(sector uint64) string { return fmt.Sprintf("this is sector %d\n", sector) }

// register is an access to a register of the disk.
type register struct {
	off   uint64
	value uint32
	write bool
}

// diskDriver is what a driver did, judged.
type diskDriver struct {
	r        *Result
	accesses []register
	info     virtio.Info
	queue    virtio.QueueInfo
}

func checkDisk(r *Result) []string {
	d := diskDriver{r: r, info: r.Devices[0], queue: r.Devices[0].Queues[0]}
	for i := range r.Events {
		if e := &r.Events[i]; e.Kind == trace.KindMMIO && e.Addr >= diskAt && e.Addr < diskAt+virtio.MMIOSize {
			d.accesses = append(d.accesses, register{e.Addr - diskAt, uint32(e.Value), e.Write})
		}
	}
	broken := r.said(sectorText(r.Start.AX))
	for _, step := range []func() string{d.status, d.features, d.setUp, d.finished, d.available, d.chain, d.notified, d.working} {
		if s := step(); s != "" {
			return append(broken, s)
		}
	}
	return broken
}

// written are the values that a register was written, in order.
func (d *diskDriver) written(off uint64) (values []uint32) {
	for _, a := range d.accesses {
		if a.write && a.off == off {
			values = append(values, a.value)
		}
	}
	return values
}

// index is the place of the first access of that kind, -1 if there is none.
func (d *diskDriver) index(write bool, off uint64, from int, match uint32) int {
	for i, a := range d.accesses {
		if i >= from && a.write == write && a.off == off && a.value&match == match {
			return i
		}
	}
	return -1
}

// status is the order of §3.1.1.
func (d *diskDriver) status() string {
	want := []uint32{0, 1, 3, 0xb, 0xf}
	for i, v := range d.written(diskStatus) {
		if i >= len(want) || v != want[i] {
			return fmt.Sprintf("Status must be written 0x0, 0x1, 0x3, 0xb and 0xf in turn: reset, then ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK are added (virtio 1.2 §3.1.1); it was written %#x", d.written(diskStatus))
		}
	}
	return ""
}

func (d *diskDriver) features() string {
	ok := d.index(true, diskStatus, 0, virtio.StatusFeaturesOK)
	switch {
	case ok < 0:
		return ""
	case d.info.Negotiated&virtio.FeatureVersion1 == 0:
		return "VERSION_1 must be accepted, bit 0 of DriverFeatures while DriverFeaturesSel is 1, before FEATURES_OK: without it the device has refused the features (virtio 1.2 §6.1)"
	case d.info.Status&virtio.StatusFeaturesOK == 0:
		return fmt.Sprintf("the device has refused the features %#x: it offers %#x", d.info.Negotiated, d.info.Offered)
	case d.index(false, diskStatus, ok, 0) < 0:
		return "Status must be read after FEATURES_OK was written: only the device knows whether it agrees (virtio 1.2 §3.1.1)"
	}
	return ""
}

func (d *diskDriver) setUp() string {
	for _, n := range d.written(diskQueueNum) {
		if n == 0 || n&(n-1) != 0 || n > uint32(d.queue.Max) {
			return fmt.Sprintf("QueueNum must be a power of two up to QueueNumMax (%d), and was written %#x (virtio 1.2 §2.7)", d.queue.Max, n)
		}
	}
	done := d.index(true, diskStatus, 0, virtio.StatusDriverOK)
	ready := d.index(true, diskQueueReady, 0, 1)
	if done >= 0 && (ready < 0 || ready > done) {
		return "QueueReady must be written before DRIVER_OK: with DRIVER_OK the device begins to work with the queues that there are (virtio 1.2 §3.1.1)"
	}
	return ""
}

func (d *diskDriver) finished() string {
	if d.info.Status&virtio.StatusDriverOK != 0 {
		return ""
	}
	last := "never written"
	if v := d.written(diskStatus); len(v) > 0 {
		last = fmt.Sprintf("last written %#x", v[len(v)-1])
	}
	return "the driver has not set DRIVER_OK: Status was " + last
}

func (d *diskDriver) available() string {
	if d.queue.AvailIdx != 0 {
		return ""
	}
	return fmt.Sprintf("a chain is available once the index of the available ring says so, and its index (at %#x) is 0 (virtio 1.2 §2.7.13.3)", d.queue.Avail+2)
}

// chain is the request (§5.2.6).
func (d *diskDriver) chain() string {
	const next, write, headerSize, readType = 1, 2, 16, 0
	head, _ := d.r.Mem.LoadUint16(memory.Addr(d.queue.Avail + 4)) // what is not there reads as zero
	var sizes [2]uint64
	i := uint64(head)
	for range d.queue.Size {
		at := memory.Addr(d.queue.Desc + 16*i)
		n, _ := d.r.Mem.LoadUint32(at + 8)
		flags, _ := d.r.Mem.LoadUint16(at + 12)
		sizes[flags&write/write] += uint64(n)
		if flags&next == 0 {
			break
		}
		link, _ := d.r.Mem.LoadUint16(at + 14)
		i = uint64(link)
	}
	header, _ := d.r.Mem.LoadUint64(memory.Addr(d.queue.Desc + 16*uint64(head)))
	kind, _ := d.r.Mem.LoadUint32(memory.Addr(header))
	sector, _ := d.r.Mem.LoadUint64(memory.Addr(header + 8))
	switch {
	case sizes[1] != blk.SectorSize+1:
		return fmt.Sprintf("the chain from descriptor %d on must have %d bytes that the device writes (512 of data, 1 of status), and has %d: look at NEXT (1) and WRITE (2) in the flags", head, blk.SectorSize+1, sizes[1])
	case sizes[0] != headerSize:
		return fmt.Sprintf("the chain from descriptor %d on must have %d bytes that the device reads, the header, and has %d", head, headerSize, sizes[0])
	case kind != readType:
		return fmt.Sprintf("the header's type must be 0, a read, and is %d", kind)
	case sector != d.r.Start.AX:
		return fmt.Sprintf("the header must ask for sector %d, and asks for %d", d.r.Start.AX, sector)
	}
	return ""
}

func (d *diskDriver) notified() string {
	if len(d.written(diskNotify)) > 0 {
		return ""
	}
	return "the device looks at the ring when it is told to, and QueueNotify was never written (virtio 1.2 §2.7.13.4)"
}

func (d *diskDriver) working() string {
	if d.info.Error == "" {
		return ""
	}
	return "the device needs a reset: " + d.info.Error
}
