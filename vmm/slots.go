package vmm

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/pci"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// slot is a place for a virtio device: its transport, and where that lies.
type slot struct {
	virtio.Transport
	base uint64 // virtio-mmio: its registers; 0 with PCI
	gsi  uint32 // virtio-mmio: its interrupt line
	irq  func() error

	bells   map[int]awaited // with Deterministic: of the queues
	settled bool            // and whether they have been waited for
}

// addVirtio puts every device behind the machine's transport.
func (m *Machine) addVirtio() error {
	for i, d := range m.cfg.Devices {
		s, err := m.newSlot(i, d)
		if err != nil {
			return fmt.Errorf("device %s: %w", d.Spec().Name, err)
		}
		m.virtio = append(m.virtio, s)
		if err := m.pauseSaved(s); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) newSlot(i int, d virtio.Device) (*slot, error) {
	name := d.Spec().Name
	opts := virtio.Options{Patient: m.cfg.Deterministic, Log: func(err error) { m.cfg.Log.Warn("virtio driver", "device", name, "error", err) }}
	if m.cfg.Transport == TransportPCI {
		return m.newPCISlot(d, opts)
	}
	s := &slot{base: virtioMMIO + uint64(i)*virtioMMIOSize, gsi: mmioLines[i]}
	irq, err := m.vm.Line(s.gsi)
	if err != nil {
		return nil, err
	}
	s.irq = irq
	t, err := virtio.NewMMIO(d, m.mem, virtio.MMIOOptions{
		Options: opts,
		IRQ:     irq,
		Doorbell: func(queue int) (virtio.Doorbell, error) {
			match := uint64(queue)
			return s.keepBell(queue)(m.doorbell(s.base+virtio.NotifyOffset, 4, &match))
		},
	})
	if err != nil {
		return nil, err
	}
	s.Transport = t
	if err := m.mmio.Map(bus.Range{Base: s.base, Size: virtioMMIOSize, Name: name}, t); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return s, nil
}

func (m *Machine) newPCISlot(d virtio.Device, opts virtio.Options) (*slot, error) {
	s := new(slot)
	t, err := virtio.NewPCI(d, m.mem, virtio.PCIOptions{
		Options: opts,
		NewMSI:  func() (pci.MSI, error) { return m.vm.MSI() },
		Doorbell: func(queue int, addr uint64) (virtio.Doorbell, error) {
			return s.keepBell(queue)(m.doorbell(addr, 2, nil))
		},
	})
	if err != nil {
		return nil, err
	}
	if _, err := m.platform.pci.Add(t.Function()); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	s.Transport = t
	return s, nil
}

// doorbell is the accelerator's doorbell at a guest physical address, or nil
// where it has none, or where notifications are to be exits.
func (m *Machine) doorbell(addr uint64, width int, match *uint64) (virtio.Doorbell, error) {
	if m.cfg.Notify == NotifyExit {
		return nil, nil
	}
	d, ok, err := m.vm.Doorbell(false, addr, width, match)
	if err != nil || !ok {
		return nil, err
	}
	return d, nil
}

// commandLine is the kernel's command line. A kernel without ACPI learns from
// it where virtio-mmio devices are (Linux
// Documentation/admin-guide/kernel-parameters.txt, virtio_mmio.device).
func (m *Machine) commandLine() string {
	line := m.cfg.CommandLine
	if m.cfg.ACPI {
		return line
	}
	var devices strings.Builder
	for _, s := range m.virtio {
		if s.base != 0 {
			fmt.Fprintf(&devices, "virtio_mmio.device=4K@%#x:%d ", s.base, s.gsi)
		}
	}
	// What follows "--" is for init, so parameters go before the rest.
	return devices.String() + line
}

func (m *Machine) pauseDevices(ctx context.Context) error {
	for _, s := range m.virtio {
		if err := s.Pause(ctx); err != nil {
			return fmt.Errorf("pause %s: %w", s.Device().Spec().Name, err)
		}
	}
	return nil
}

func (m *Machine) resumeDevices() error {
	var err error
	for _, s := range m.virtio {
		err = errors.Join(err, s.Resume())
	}
	return err
}

func (m *Machine) closeDevices() error {
	var err error
	for _, s := range m.virtio {
		err = errors.Join(err, s.Close())
	}
	m.virtio = nil
	return err
}
