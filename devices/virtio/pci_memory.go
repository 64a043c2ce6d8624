package virtio

import (
	"encoding/binary"
	"sync/atomic"
)

// Fields of the common configuration structure (virtio 1.2 §4.1.4.3).
const (
	comDeviceFeatureSelect = 0
	comDeviceFeature       = 4
	comDriverFeatureSelect = 8
	comDriverFeature       = 12
	comConfigVector        = 16
	comNumQueues           = 18
	comStatus              = 20
	comGeneration          = 21
	comQueueSelect         = 22
	comQueueSize           = 24
	comQueueVector         = 26
	comQueueEnable         = 28
	comQueueNotifyOff      = 30
	comQueueDesc           = 32
	comQueueDriver         = 40
	comQueueDevice         = 48
	commonSize             = 56
)

// pciMemory is the device's BAR, a bus.Device.
type pciMemory struct{ *PCI }

// Read implements bus.Device.
func (p pciMemory) Read(off uint64, b []byte) {
	clear(b)
	page := off % pciPage
	switch {
	case off >= pciMSIXPBA:
		p.msix.ReadPBA(off-pciMSIXPBA, b)
	case off >= pciMSIXTable:
		p.msix.ReadTable(off-pciMSIXTable, b)
	case off >= pciNotify:
	case off >= pciDevice:
		p.readConfig(page, b)
	case off >= pciISR:
		if page == 0 && len(b) > 0 {
			b[0] = byte(p.isr.Swap(0)) // reading acknowledges (§4.1.4.5)
		}
	default:
		p.readCommon(page, b)
	}
}

// Write implements bus.Device.
func (p pciMemory) Write(off uint64, b []byte) {
	page := off % pciPage
	switch {
	case off >= pciMSIXPBA:
	case off >= pciMSIXTable:
		p.msix.WriteTable(off-pciMSIXTable, b)
	case off >= pciNotify:
		p.notify(uint32(page / notifyMultiplier))
	case off >= pciDevice:
		p.writeConfig(page, b)
	case off >= pciISR:
	default:
		p.writeCommon(page, b)
	}
}

// field is a field of the common configuration: where an access that has its
// width finds it. 64-bit fields are accessed in halves (§4.1.3.1).
type field struct {
	at    uint64
	width int
}

func (f field) is(at uint64, width int) bool { return f.at == at && f.width == width }

func (p pciMemory) readCommon(off uint64, b []byte) {
	switch f := (field{off, len(b)}); {
	case f.is(comStatus, 1):
		b[0] = byte(p.status.Load())
		return
	case f.is(comGeneration, 1):
		b[0] = byte(p.generation.Load())
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch len(b) {
	case 2:
		binary.LittleEndian.PutUint16(b, p.load16(off))
	case 4:
		binary.LittleEndian.PutUint32(b, p.load32(off))
	case 8:
		if off >= comQueueDesc && off%8 == 0 {
			binary.LittleEndian.PutUint64(b, uint64(p.load32(off))|uint64(p.load32(off+4))<<32)
		}
	}
}

func (p pciMemory) load16(off uint64) uint16 {
	switch off {
	case comConfigVector:
		return uint16(p.configVector.Load())
	case comNumQueues:
		return uint16(len(p.queues))
	case comQueueSelect:
		return uint16(p.queueSel)
	}
	q := p.queue()
	if q == nil {
		return 0 // a size of 0 says that there is no such queue (§4.1.4.3.1)
	}
	switch off {
	case comQueueSize:
		return q.size
	case comQueueVector:
		return uint16(p.vectors[p.queueSel].Load())
	case comQueueEnable:
		if q.ready {
			return 1
		}
	case comQueueNotifyOff:
		return uint16(p.queueSel)
	}
	return 0
}

func (p pciMemory) load32(off uint64) uint32 {
	switch off {
	case comDeviceFeatureSelect:
		return p.deviceSel
	case comDeviceFeature:
		return p.deviceFeatures()
	case comDriverFeatureSelect:
		return p.driverSel
	case comDriverFeature:
		return half(p.driverFeatures, p.driverSel)
	}
	if q := p.queue(); q != nil {
		if a := q.address(off &^ 7); a != nil && off%4 == 0 {
			return half(*a, uint32(off>>2)&1)
		}
	}
	return 0
}

// address is the area that the 64-bit field at off places.
func (q *queueState) address(off uint64) *uint64 {
	switch off {
	case comQueueDesc:
		return &q.desc
	case comQueueDriver:
		return &q.avail
	case comQueueDevice:
		return &q.used
	}
	return nil
}

func (p pciMemory) writeCommon(off uint64, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch len(b) {
	case 1:
		if off == comStatus {
			p.setStatus(b[0])
		}
	case 2:
		p.store16(off, binary.LittleEndian.Uint16(b))
	case 4:
		p.store32(off, binary.LittleEndian.Uint32(b))
	case 8:
		if off >= comQueueDesc && off%8 == 0 {
			p.store32(off, binary.LittleEndian.Uint32(b))
			p.store32(off+4, binary.LittleEndian.Uint32(b[4:]))
		}
	}
}

func (p pciMemory) store16(off uint64, v uint16) {
	switch off {
	case comConfigVector:
		p.setVector(&p.configVector, v)
	case comQueueSelect:
		p.queueSel = uint32(v)
	case comQueueSize:
		p.setSize(uint32(v))
	case comQueueVector:
		if p.queue() != nil {
			p.setVector(&p.vectors[p.queueSel], v)
		}
	case comQueueEnable:
		if v == 1 { // a driver must not write 0 (§4.1.4.3.2)
			p.enableQueue()
		}
	}
}

// setVector takes a choice of MSI-X vector. One that is not there reads back
// as none, which tells the driver (§4.1.5.1.2.1).
func (p pciMemory) setVector(at *atomic.Uint32, v uint16) {
	if int(v) >= p.msix.Vectors() {
		v = noVector
	}
	at.Store(uint32(v))
}

func (p pciMemory) store32(off uint64, v uint32) {
	switch off {
	case comDeviceFeatureSelect:
		p.deviceSel = v
		return
	case comDriverFeatureSelect:
		p.driverSel = v
		return
	case comDriverFeature:
		p.setDriverFeatures(v)
		return
	}
	if q := p.editable(); q != nil {
		if a := q.address(off &^ 7); a != nil && off%4 == 0 {
			*a = setHalf(*a, uint32(off>>2)&1, v)
		}
	}
}
