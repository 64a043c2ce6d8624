package virtio

import (
	"encoding/binary"
	"fmt"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// MMIOSize is the size of a device's register window (virtio 1.2 §4.2.2).
const MMIOSize = 0x1000

// NotifyOffset is where in the window a driver writes a queue's number to
// notify it (QueueNotify, virtio 1.2 §4.2.2).
const NotifyOffset = regQueueNotify

// VendorID identifies Vitrine in the registers of a virtio-mmio device: the
// letters "VTRN".
const VendorID = 0x4e525456

// Registers (virtio 1.2 §4.2.2, table 4.1).
const (
	regMagic             = 0x000
	regVersion           = 0x004
	regDeviceID          = 0x008
	regVendorID          = 0x00c
	regDeviceFeatures    = 0x010
	regDeviceFeaturesSel = 0x014
	regDriverFeatures    = 0x020
	regDriverFeaturesSel = 0x024
	regQueueSel          = 0x030
	regQueueNumMax       = 0x034
	regQueueNum          = 0x038
	regQueueReady        = 0x044
	regQueueNotify       = 0x050
	regInterruptStatus   = 0x060
	regInterruptACK      = 0x064
	regStatus            = 0x070
	regQueueDescLow      = 0x080
	regQueueDescHigh     = 0x084
	regQueueDriverLow    = 0x090
	regQueueDriverHigh   = 0x094
	regQueueDeviceLow    = 0x0a0
	regQueueDeviceHigh   = 0x0a4
	regSHMLenLow         = 0x0b0
	regSHMBaseHigh       = 0x0bc
	regConfigGeneration  = 0x0fc
	regConfig            = 0x100

	mmioMagic   = 0x74726976 // "virt"
	mmioVersion = 2
)

// MMIOOptions are what a virtio-mmio device needs of its machine.
type MMIOOptions struct {
	Options
	// IRQ pulses the device's interrupt line, an edge.
	IRQ func() error
	// Doorbell returns the doorbell of a queue: what a 4-byte write of the
	// queue's number to offset NotifyOffset of the window rings. nil, or a
	// nil Doorbell: the write reaches the device as an access.
	Doorbell func(queue int) (Doorbell, error)
}

// MMIO is a device behind the MMIO transport, version 2 (virtio 1.2 §4.2): a
// bus.Device of MMIOSize bytes, and a Transport.
type MMIO struct {
	core
	irq func() error
}

var _ Transport = (*MMIO)(nil)

// NewMMIO puts dev behind the MMIO transport.
func NewMMIO(dev Device, mem *memory.Guest, opts MMIOOptions) (*MMIO, error) {
	m := &MMIO{irq: opts.IRQ}
	if err := m.init(dev, mem, opts.Options, m.deliver); err != nil {
		return nil, err
	}
	if opts.Doorbell == nil {
		return m, nil
	}
	for i := range m.queues {
		bell, err := opts.Doorbell(i)
		if err != nil {
			return nil, fmt.Errorf("virtio device %s: doorbell of queue %d: %w", m.spec.Name, i, err)
		}
		if bell != nil {
			m.queues[i].bell = bell
		}
	}
	return m, nil
}

// deliver raises the one interrupt; InterruptStatus says what it is for.
func (m *MMIO) deliver(queue int) error {
	if queue != configInterrupt {
		m.isr.Or(isrQueue)
	}
	return m.irq()
}

// Inspect implements Transport.
func (m *MMIO) Inspect() Info { return m.inspect("mmio") }

// Close implements Transport.
func (m *MMIO) Close() error { return m.close() }

// Read implements bus.Device. A driver must use aligned accesses of 32 bits
// below the configuration space (§4.2.2.2); others read zero.
func (m *MMIO) Read(off uint64, p []byte) {
	if off >= regConfig {
		m.readConfig(off-regConfig, p)
		return
	}
	clear(p)
	if len(p) == 4 && off%4 == 0 {
		binary.LittleEndian.PutUint32(p, m.load(off))
	}
}

func (m *MMIO) load(off uint64) uint32 {
	switch off {
	case regMagic:
		return mmioMagic
	case regVersion:
		return mmioVersion
	case regDeviceID:
		return uint32(m.spec.ID)
	case regVendorID:
		return VendorID
	case regInterruptStatus:
		return m.isr.Load()
	case regStatus:
		return m.status.Load()
	case regConfigGeneration:
		return m.generation.Load()
	}
	if off >= regSHMLenLow && off <= regSHMBaseHigh {
		return 0xffffffff // no shared memory region has this id (§4.2.2.1)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch off {
	case regDeviceFeatures:
		return m.deviceFeatures()
	case regQueueNumMax:
		if m.queue() != nil {
			return uint32(m.spec.QueueMax[m.queueSel])
		}
	case regQueueReady:
		if q := m.queue(); q != nil && q.ready {
			return 1
		}
	}
	return 0
}

// Write implements bus.Device.
func (m *MMIO) Write(off uint64, p []byte) {
	if off >= regConfig {
		m.writeConfig(off-regConfig, p)
		return
	}
	if len(p) == 4 && off%4 == 0 {
		m.store(off, binary.LittleEndian.Uint32(p))
	}
}

func (m *MMIO) store(off uint64, v uint32) {
	switch off {
	case regQueueNotify:
		m.notify(v)
		return
	case regInterruptACK:
		m.isr.And(^v)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch off {
	case regStatus:
		m.setStatus(uint8(v))
	case regDeviceFeaturesSel:
		m.deviceSel = v
	case regDriverFeaturesSel:
		m.driverSel = v
	case regDriverFeatures:
		m.setDriverFeatures(v)
	case regQueueSel:
		m.queueSel = v
	case regQueueNum:
		m.setSize(v)
	case regQueueReady:
		if v&1 != 0 {
			m.enableQueue()
		} else {
			m.disableQueue()
		}
	default:
		m.storeAddress(off, v)
	}
}

func (m *MMIO) storeAddress(off uint64, v uint32) {
	q := m.editable()
	if q == nil {
		return
	}
	sel := uint32(off>>2) & 1
	switch off {
	case regQueueDescLow, regQueueDescHigh:
		q.desc = setHalf(q.desc, sel, v)
	case regQueueDriverLow, regQueueDriverHigh:
		q.avail = setHalf(q.avail, sel, v)
	case regQueueDeviceLow, regQueueDeviceHigh:
		q.used = setHalf(q.used, sel, v)
	}
}
