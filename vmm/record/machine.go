// Package record plays a recording of a machine's devices: the same device
// models are given the same accesses in the same order, without a CPU, so that
// what each of them was at any moment can be looked at anywhere.
package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/acpipm"
	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/debugport"
	"github.com/vitrine-vmm/vitrine/devices/i8042"
	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/devices/pvpanic"
	"github.com/vitrine-vmm/vitrine/devices/rtc"
	"github.com/vitrine-vmm/vitrine/devices/serial"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// stateKeeper is a device whose state can be kept.
type stateKeeper interface {
	State() ([]byte, error)
	SetState([]byte) error
}

// machine is a machine's devices without the machine.
type machine struct {
	mem       *memory.Guest
	pio, mmio *bus.Bus
	uart      *serial.UART
	devices   map[string]stateKeeper // by the names in the recording
	queued    map[string]*queued     // virtio devices
	now       time.Time
}

// queued is a virtio device, and what its queues did.
type queued struct {
	virtio.Transport
	mmio   bool
	popped []uint16 // how far each queue is beyond the transport's own state
	pushed []uint16
	isr    uint8 // interrupts that the transport has not been told of
	config uint32
}

// stub stands for a virtio device: its registers answer as the recorded one's
// did, and its queues are worked by nobody.
type stub struct {
	spec   virtio.Spec
	config []byte
}

func (s *stub) Spec() virtio.Spec          { return s.spec }
func (s *stub) WriteConfig(uint64, []byte) {}

func (s *stub) ReadConfig(off uint64, p []byte) {
	clear(p)
	if off < uint64(len(s.config)) {
		copy(p, s.config[off:])
	}
}

func (s *stub) Serve(ctx context.Context, _ uint64, _ []*virtio.Queue) error {
	<-ctx.Done()
	return nil
}

// Limits of what a recording may ask for.
const (
	maxDevices = 256
	maxMemory  = 1 << 40
	holeStart  = 3 << 30
)

func nothing() error { return nil }

// newMachine makes the devices that meta lists, in the states that it has.
func newMachine(meta *trace.Meta) (*machine, error) {
	if len(meta.Devices) > maxDevices || meta.Memory == 0 || meta.Memory > maxMemory || meta.Memory%memory.PageSize != 0 {
		return nil, fmt.Errorf("recording: %d devices and %d bytes of memory: it is damaged", len(meta.Devices), meta.Memory)
	}
	m := &machine{pio: bus.New(), mmio: bus.New(), devices: make(map[string]stateKeeper), queued: make(map[string]*queued), now: meta.Began}
	var err error
	if m.mem, err = memory.New(meta.Memory); err != nil {
		return nil, fmt.Errorf("recording: memory as large as the machine's: %w", err)
	}
	if err := m.build(meta); err != nil {
		return nil, errors.Join(err, m.close())
	}
	if err := m.set(meta.States); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *machine) build(meta *trace.Meta) error {
	var host *pci.Host
	for i := range meta.Devices {
		d := &meta.Devices[i]
		r := bus.Range{Base: d.Base, Size: d.Size, Name: d.Name}
		on := m.mmio
		if d.Port {
			on = m.pio
		}
		switch d.Type {
		case "pci-ports", "pci-ecam":
			if host == nil {
				host = pci.NewHost(m.mmio, pci.Window{Base: 0xc0000000, Size: 0x10000000})
			}
			var dev bus.Device = host.ECAM()
			if d.Type == "pci-ports" {
				dev = host.Ports()
			}
			if err := on.Map(r, dev); err != nil {
				return err
			}
		case "virtio-mmio", "virtio-pci":
			if err := m.addVirtio(d, meta, host, r); err != nil {
				return fmt.Errorf("recording: device %s: %w", d.Name, err)
			}
		default:
			dev := m.chip(d.Type, meta)
			if dev == nil {
				return fmt.Errorf("recording: device %s of type %q, which this version does not know", d.Name, d.Type)
			}
			if err := on.Map(r, dev); err != nil {
				return err
			}
			if k, ok := dev.(stateKeeper); ok {
				m.devices[d.Name] = k
			}
		}
	}
	return nil
}

func (m *machine) chip(kind string, meta *trace.Meta) bus.Device {
	switch kind {
	case "serial":
		m.uart = serial.New(io.Discard, nothing)
		return m.uart
	case "i8042":
		return i8042.New(func() {})
	case "rtc":
		low := min(meta.Memory, holeStart)
		return rtc.New(func() time.Time { return m.now }, low, meta.Memory-low)
	case "debugport":
		return debugport.New(func(uint8) {})
	case "pvpanic":
		return pvpanic.New(func(uint8) {})
	case "acpi":
		return acpipm.New(acpipm.Config{})
	}
	return nil
}

// noMSI is a message-signalled interrupt to nobody.
type noMSI struct{}

func (noMSI) Set(uint64, uint32) error { return nil }
func (noMSI) Fire() error              { return nil }
func (noMSI) Close() error             { return nil }

func (m *machine) addVirtio(d *trace.Device, meta *trace.Meta, host *pci.Host, r bus.Range) error {
	spec, ok := meta.Virtio[d.Name]
	if !ok {
		return errors.New("is not described: this is a trace, not a recording")
	}
	dev := &stub{config: spec.Config, spec: virtio.Spec{ID: virtio.DeviceID(spec.ID), Features: spec.Features,
		QueueMax: spec.QueueMax, ConfigLen: uint64(len(spec.Config)), Name: d.Name}}
	q := &queued{mmio: d.Type == "virtio-mmio", popped: make([]uint16, len(spec.QueueMax)), pushed: make([]uint16, len(spec.QueueMax))}
	if q.mmio {
		t, err := virtio.NewMMIO(dev, m.mem, virtio.MMIOOptions{IRQ: nothing})
		if err != nil {
			return err
		}
		q.Transport = t
		if err := m.mmio.Map(r, t); err != nil {
			return errors.Join(err, t.Close())
		}
	} else {
		if host == nil {
			return errors.New("is behind PCI, and there is no PCI")
		}
		t, err := virtio.NewPCI(dev, m.mem, virtio.PCIOptions{NewMSI: func() (pci.MSI, error) { return noMSI{}, nil }})
		if err != nil {
			return err
		}
		q.Transport = t
		if _, err := host.Add(t.Function()); err != nil {
			return errors.Join(err, t.Close())
		}
	}
	m.queued[d.Name], m.devices[d.Name] = q, q
	return q.Pause(context.Background()) // for good: nothing is served
}

// set puts devices into states; those that states does not have stay.
func (m *machine) set(states map[string]json.RawMessage) error {
	for name, s := range states {
		d, ok := m.devices[name]
		if !ok {
			continue
		}
		if err := d.SetState(s); err != nil {
			return fmt.Errorf("recording: state of %s: %w", name, err)
		}
	}
	return nil
}

// states returns the states of all devices.
func (m *machine) states() (map[string]json.RawMessage, error) {
	states := make(map[string]json.RawMessage)
	for name, d := range m.devices {
		s, err := d.State()
		if err != nil {
			return nil, fmt.Errorf("state of %s: %w", name, err)
		}
		states[name] = s
	}
	return states, nil
}

func (m *machine) close() error {
	var err error
	for _, q := range m.queued {
		err = errors.Join(err, q.Close())
	}
	return errors.Join(err, m.mem.Close())
}

// State is the transport's with what its queues did.
func (q *queued) State() ([]byte, error) {
	b, err := q.Transport.State()
	if err != nil {
		return nil, err
	}
	var s virtio.State
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	for i := range s.Queues {
		if s.Status&virtio.StatusDriverOK != 0 {
			s.Queues[i].NextAvail += q.popped[i]
			s.Queues[i].NextUsed += q.pushed[i]
		}
	}
	s.Interrupt |= q.isr
	s.Generation += q.config
	return json.Marshal(s)
}

// SetState is the transport's; the queues' indices are then its own.
func (q *queued) SetState(b []byte) error {
	clear(q.popped)
	clear(q.pushed)
	q.isr, q.config = 0, 0
	return q.Transport.SetState(b)
}

// settle has the transport know what its queues and the device did, before
// the guest reads its registers.
func (q *queued) settle() error {
	if q.isr == 0 && q.config == 0 {
		return nil
	}
	b, err := q.State()
	if err != nil {
		return err
	}
	return q.SetState(b)
}

// forget drops what the queues did: the driver has reset the device.
func (q *queued) forget() {
	clear(q.popped)
	clear(q.pushed)
	q.isr, q.config = 0, 0
}
