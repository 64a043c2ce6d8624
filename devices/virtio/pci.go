package virtio

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// The one BAR, with a page for each structure so that none shares one with
// another (virtio 1.2 §4.1.4). MSI-X comes last: its table may be larger.
const (
	pciBAR        = 0
	pciCommon     = 0x0000
	pciISR        = 0x1000
	pciDevice     = 0x2000
	pciNotify     = 0x3000
	pciMSIXTable  = 0x4000
	pciMSIXPBA    = 0xc000
	pciBARSize    = 0x10000
	pciPage       = 0x1000
	pciMaxVectors = (pciMSIXPBA - pciMSIXTable) / 16

	// notifyMultiplier gives each queue an address of its own (§4.1.4.4).
	notifyMultiplier = 4
	maxQueues        = pciPage / notifyMultiplier
)

// Structures of the virtio capabilities (§4.1.4).
const (
	capVendor    = 0x09
	cfgCommon    = 1
	cfgNotify    = 2
	cfgISR       = 3
	cfgDevice    = 4
	cfgPCI       = 5
	vendorVirtio = 0x1af4
	modernBase   = 0x1040 // PCI device id of device type 0 (§4.1.2.1)
)

// PCIOptions are what a virtio-pci device needs of its machine.
type PCIOptions struct {
	Options
	// NewMSI returns a message-signalled interrupt of the accelerator's.
	NewMSI func() (pci.MSI, error)
	// Doorbell returns the doorbell of a queue: what a 2-byte write of any
	// value to the guest physical address addr rings. It is called again
	// when the guest moves the device; doorbells that are io.Closers are
	// closed when they are done with. nil, or a nil Doorbell: the write
	// reaches the device as an access.
	Doorbell func(queue int, addr uint64) (Doorbell, error)
}

// PCI is a device behind the PCI transport, modern only (virtio 1.2 §4.1), and
// a Transport. Its queues interrupt by MSI-X only.
type PCI struct {
	core
	fn       *pci.Function
	msix     *pci.MSIX
	doorbell func(queue int, addr uint64) (Doorbell, error)
}

var _ Transport = (*PCI)(nil)

// NewPCI puts dev behind the PCI transport. The caller adds Function to its
// host bridge.
func NewPCI(dev Device, mem *memory.Guest, opts PCIOptions) (*PCI, error) {
	p := &PCI{doorbell: opts.Doorbell}
	if err := p.init(dev, mem, opts.Options, p.deliver); err != nil {
		return nil, err
	}
	vectors := len(p.queues) + 1 // one each, and one for the configuration
	if len(p.queues) > maxQueues || vectors > pciMaxVectors {
		return nil, fmt.Errorf("virtio device %s: %d queues are too many for PCI", p.spec.Name, len(p.queues))
	}
	var err error
	if p.msix, err = pci.NewMSIX(vectors, opts.NewMSI, p.report); err != nil {
		return nil, err
	}
	p.fn = pci.NewFunction(pci.Identity{
		Vendor: vendorVirtio, Device: modernBase + uint16(p.spec.ID), Revision: 1, // §4.1.2.1
		SubVendor: vendorVirtio, SubDevice: modernBase + uint16(p.spec.ID),
		Class: classOf(p.spec.ID), Name: p.spec.Name,
	})
	err = p.fn.AddBAR(pciBAR, pci.BAR{Size: pciBARSize, Device: pciMemory{p}, Moved: p.moved})
	for _, c := range p.capabilities() {
		err = errors.Join(err, p.fn.AddCapability(c))
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// classOf is the PCI class that tools show for a device type: drivers go by
// the device id alone (§4.1.2.1).
func classOf(id DeviceID) uint32 {
	switch id {
	case IDNet:
		return 0x020000 // Ethernet controller
	case IDBlock:
		return 0x018000 // mass storage controller
	case IDConsole:
		return 0x078000 // communication controller
	case IDVsock:
		return 0x028000 // network controller
	case IDFS:
		return 0x018000
	}
	return 0xff0000 // unassigned
}

// capabilities lists where the structures are (§4.1.4).
func (p *PCI) capabilities() []pci.Capability {
	multiplier := binary.LittleEndian.AppendUint32(nil, notifyMultiplier)
	list := []pci.Capability{
		virtioCap(cfgCommon, pciCommon, commonSize, nil),
		virtioCap(cfgNotify, pciNotify, max(1, uint32(len(p.queues)))*notifyMultiplier, multiplier),
		virtioCap(cfgISR, pciISR, 1, nil),
	}
	if p.spec.ConfigLen > 0 {
		list = append(list, virtioCap(cfgDevice, pciDevice, uint32(min(p.spec.ConfigLen, pciPage)), nil))
	}
	return append(list, p.accessCapability(), p.msix.Capability(pciBAR, pciMSIXTable, pciMSIXPBA))
}

// virtioCap is struct virtio_pci_cap behind its two header bytes: cap_len,
// cfg_type, bar, id, padding, offset, length, and what the type adds.
func virtioCap(cfgType uint8, offset, length uint32, more []byte) pci.Capability {
	le := binary.LittleEndian
	data := make([]byte, 14, 18)
	data[0] = uint8(16 + len(more))
	data[1], data[2] = cfgType, pciBAR
	le.PutUint32(data[6:], offset)
	le.PutUint32(data[10:], length)
	return pci.Capability{ID: capVendor, Data: append(data, more...)}
}

// accessCapability is the way to the BAR for software that cannot map it, a
// window of four bytes in configuration space (§4.1.4.9).
func (p *PCI) accessCapability() pci.Capability {
	const bar, offset, length, window = 2, 6, 10, 14 // in the capability's data
	c := virtioCap(cfgPCI, 0, 0, make([]byte, 4))
	c.Mask = make([]byte, len(c.Data))
	c.Mask[bar] = 0xff
	for i := offset; i < len(c.Mask); i++ {
		c.Mask[i] = 0xff
	}
	target := func(data []byte, off, n int) (at uint64, p []byte) {
		size := binary.LittleEndian.Uint32(data[length:])
		if off+n <= window || data[bar] != pciBAR || size != 1 && size != 2 && size != 4 {
			return 0, nil
		}
		return uint64(binary.LittleEndian.Uint32(data[offset:])), data[window : window+size]
	}
	c.BeforeRead = func(data []byte, off, n int) {
		if at, b := target(data, off, n); b != nil {
			pciMemory{p}.Read(at, b)
		}
	}
	c.AfterWrite = func(data []byte, off, n int) {
		if at, b := target(data, off, n); b != nil {
			pciMemory{p}.Write(at, b)
		}
	}
	return c
}

// Function is the device's PCI function.
func (p *PCI) Function() *pci.Function { return p.fn }

// deliver raises a queue's interrupt, or the configuration's (§4.1.5.3,
// §4.1.5.4).
func (p *PCI) deliver(queue int) error {
	v := &p.configVector
	if queue != configInterrupt {
		v = &p.vectors[queue]
		if !p.msix.Enabled() {
			p.isr.Or(isrQueue)
		}
	}
	return p.msix.Fire(int(v.Load())) // noVector is past the last one
}

// moved is called when the guest has mapped the BAR elsewhere. Doorbells are at
// addresses: they move along, while Serve does not wait on them.
func (p *PCI) moved(addr uint64, mapped bool) {
	if p.doorbell == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.lingers {
		return
	}
	if !p.end() {
		p.linger()
		return
	}
	for i := range p.queues {
		q := &p.queues[i]
		if b, ok := q.bell.(io.Closer); ok {
			_ = b.Close()
		}
		q.bell = NewDoorbell()
		if mapped {
			b, err := p.doorbell(i, addr+pciNotify+uint64(i)*notifyMultiplier)
			if err != nil {
				p.report(fmt.Errorf("doorbell of queue %d: %w", i, err))
			} else if b != nil {
				q.bell = b
			}
		}
		if q.live != nil {
			q.live.bell = q.bell
		}
	}
	p.begin()
}

// Inspect implements Transport.
func (p *PCI) Inspect() Info { return p.inspect("pci") }

// Close implements Transport.
func (p *PCI) Close() error {
	err := p.close()
	return errors.Join(err, p.msix.Close())
}

// functionState is what the PCI transport adds to a State.
type functionState struct {
	Function pci.State
	MSIX     pci.MSIXState
}

// State implements Transport.
func (p *PCI) State() ([]byte, error) {
	fs := functionState{p.fn.State(), p.msix.State()}
	b, err := json.Marshal(fs)
	if err != nil {
		return nil, err
	}
	return p.marshal(func(s *State) error { s.Function = b; return nil })
}

// SetState implements Transport. The function must be on its bus already.
func (p *PCI) SetState(state []byte) error {
	var fs functionState
	err := p.unmarshal(state, func(s *State) error {
		return errors.Join(json.Unmarshal(s.Function, &fs), p.msix.SetState(fs.MSIX))
	})
	if err != nil {
		return err
	}
	return p.fn.SetState(fs.Function)
}
