package vmm

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/vitrine-vmm/vitrine/boot/acpi"
	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/pmem"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

// generationAt is where ACPI guests find the VM generation identifier.
const generationAt = uint64(acpi.GenerationID)

// restored stands for the kernel of a machine that is restored.
const restored = "(in the snapshot)"

// Restore makes the machine that was saved as s, to go on where it stood. cfg
// has what is outside the machine: the devices, made as those of the saved
// machine were, its console, its name, the file of its kernel for those who
// look at it, and the persistent-memory image if it is not where it was. The
// rest of cfg is the snapshot's. s may be closed when Restore has returned.
func Restore(cfg Config, s *snapshot.Snapshot) (*Machine, error) {
	kernel := cfg.Kernel
	cfg, err := restoredConfig(cfg, s.State)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", s.Path, err)
	}
	m := &Machine{cfg: cfg, pio: bus.New(), mmio: bus.New()}
	m.kept.from, m.kept.kernel = s, kernel
	m.times.mark(PhaseSnapshotRead)
	m.gate.init()
	for id := range cfg.CPUs {
		m.cpus = append(m.cpus, &vcpu{id: id, m: m, work: make(chan func(), 1)})
	}
	if err := m.assemble(); err != nil {
		return nil, errors.Join(fmt.Errorf("restore %s: %w", s.Path, err), m.Close())
	}
	return m, nil
}

// restoredConfig fills in what the snapshot says.
func restoredConfig(cfg Config, s *snapshot.State) (Config, error) {
	if cfg.Accel == "" || cfg.Accel == string(AccelAuto) {
		cfg.Accel = s.Machine.Accel
	}
	cfg.CPUs, cfg.Memory = s.Machine.CPUs, s.Machine.Memory
	cfg.Transport, cfg.ACPI = Transport(s.Machine.Transport), s.Machine.ACPI
	cfg.Kernel, cfg.Initrd = restored, ""
	if cfg.Name == "" {
		cfg.Name = s.Machine.Name
	}
	if cfg.Generation == ([16]byte{}) {
		_, _ = rand.Read(cfg.Generation[:]) // never fails
	}
	return cfg.withDefaults()
}

// sameDevices says whether the devices are those of the snapshot.
func sameDevices(cfg Config, saved []snapshot.Device) error {
	if len(cfg.Devices) != len(saved) {
		return fmt.Errorf("%d devices, and the machine had %d", len(cfg.Devices), len(saved))
	}
	for i, d := range cfg.Devices {
		if spec := d.Spec(); spec.Name != saved[i].Name || uint32(spec.ID) != saved[i].Type {
			return fmt.Errorf("device %d is %s of type %d, and was %s of type %d", i, spec.Name, spec.ID, saved[i].Name, saved[i].Type)
		}
	}
	return nil
}

// mapSaved makes memory of the snapshot's, with the devices of what of it is
// persistent.
func (m *Machine) mapSaved() (err error) {
	s := m.kept.from
	m.mem, err = s.Map(func(image *snapshot.Image) (*os.File, error) {
		f, err := image.Open(m.cfg.PMEMImage)
		if err != nil {
			return nil, fmt.Errorf("persistent-memory image: %w", err)
		}
		m.cfg.PMEMImage = f.Name()
		m.kept.image = image
		return f, nil
	})
	if err != nil {
		return err
	}
	var devices []virtio.Device
	files := m.cfg.Persistent
	for _, r := range s.State.Memory {
		o := pmem.Options{Base: memory.Addr(r.Base), Size: r.Size, Flush: func() error { return nil }}
		switch {
		case r.External && len(files) == 0 || r.External && files[0].Size() != r.Size:
			return fmt.Errorf("persistent memory at %#x has no file of %d bytes", r.Base, r.Size)
		case r.External:
			o.Name, o.Flush = fmt.Sprintf("pmem-file%d", len(m.cfg.Persistent)-len(files)), files[0].Flush
			if err := files[0].AddTo(m.mem, o.Base); err != nil {
				return err
			}
			files = files[1:]
		case r.Kind != memory.PMEM:
			continue
		}
		d, err := pmem.New(o)
		if err != nil {
			return err
		}
		devices = append(devices, d)
	}
	m.cfg.Devices = append(devices, m.cfg.Devices...)
	return sameDevices(m.cfg, s.State.Devices)
}

// buildSaved is the part of build that differs for a machine that is restored:
// state where a new one has a kernel to load.
func (m *Machine) buildSaved() error {
	s := m.kept.from.State
	supported, err := m.vm.SupportedCPUID()
	if err != nil {
		return err
	}
	m.cpuid, m.kept.unseen, err = cpuidOf(s, supported)
	if err != nil {
		if made := s.Machine.Accel; made != m.cfg.Accel {
			err = fmt.Errorf("it was made with --accel %s, and --accel %s is another processor: %w", made, m.cfg.Accel, err)
		}
		return err
	}
	vm, ok := m.vm.(statefulVM)
	if !ok {
		return errStateless
	}
	for i, t := range m.virtio {
		if err := t.SetState(s.Devices[i].State); err != nil {
			return err
		}
	}
	m.times.mark(PhaseKernelLoaded)
	return vm.SetClock(s.Clock)
}

// pauseSaved holds the devices of a machine that is restored from before they
// have a state until the CPUs have theirs.
func (m *Machine) pauseSaved(s *slot) error {
	if m.kept.from == nil {
		return nil
	}
	return s.Pause(context.Background())
}

// beginSaved gives the shared chips their state, when all CPUs have theirs,
// and lets the devices go on: the last step before the CPUs run.
func (m *Machine) beginSaved() error {
	k := &m.kept
	if k.from == nil {
		return nil
	}
	s := k.from.State
	if err := m.vm.(statefulVM).SetChips(&s.Chips); err != nil {
		return err
	}
	for _, c := range m.platform.stateful() {
		b, ok := s.Platform[c.name]
		if !ok {
			return fmt.Errorf("the snapshot has no state of the chip %s", c.name)
		}
		if err := c.SetState(b); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	k.origin = &origin{k.from.ID, allStored(k.from)}
	k.from = nil
	if m.cfg.Deterministic {
		return m.beginMoment(s.Deterministic)
	}
	if m.gate.state() == gatePause {
		return m.newGeneration(&s.Machine)
	}
	if err := m.resumeDevices(); err != nil {
		return err
	}
	return errors.Join(m.newGeneration(&s.Machine), m.interruptAgain(s.Devices))
}

// allStored are the pages that a snapshot or one below it has stored.
func allStored(s *snapshot.Snapshot) snapshot.Pages {
	layers := s.Layers()
	if len(layers) == 1 {
		return s.State.Pages
	}
	var n uint64
	for _, r := range s.State.Memory {
		n += r.Size / memory.PageSize
	}
	d := memory.NewDirty(memory.Addr(n * memory.PageSize))
	for _, l := range layers {
		for _, r := range l.State.Pages.Runs() {
			d.Mark(memory.Addr(r.First*memory.PageSize), r.Count*memory.PageSize)
		}
	}
	var all snapshot.Pages
	addPages(&all, 0, n, func(p uint64) bool { return d.Has(memory.Addr(p * memory.PageSize)) })
	return all
}

// newGeneration tells the guest that it is not the only one that goes on from
// where it stands: two restores of one snapshot must not draw the same random
// numbers (the VM generation identifier; Linux drivers/virt/vmgenid.c).
func (m *Machine) newGeneration(s *snapshot.Machine) error {
	if s.GenerationAt == 0 {
		return nil
	}
	if err := m.mem.WriteAt(m.cfg.Generation[:], memory.Addr(s.GenerationAt)); err != nil {
		return fmt.Errorf("VM generation identifier: %w", err)
	}
	return m.platform.pm.GenerationChanged()
}

// interruptAgain repeats the interrupts of virtio-mmio devices that the guest
// has not acknowledged: with KVM, one that was raised just before the pause
// may still have been on its way to the I/O APIC. A guest that did see it finds
// nothing more to do.
func (m *Machine) interruptAgain(devices []snapshot.Device) error {
	for i, s := range m.virtio {
		var t struct{ Interrupt uint8 }
		if err := json.Unmarshal(devices[i].State, &t); err != nil {
			return err
		}
		if s.irq != nil && t.Interrupt != 0 {
			if err := s.irq(); err != nil {
				return err
			}
		}
	}
	return nil
}

// chip is a chip of the platform whose state is kept.
type chip struct {
	name string
	stateKeeper
}

type stateKeeper interface {
	State() ([]byte, error)
	SetState([]byte) error
}

// stateful lists the platform's chips with their names in snapshots.
func (p *platform) stateful() []chip {
	chips := []chip{
		{"com1", p.uart}, {"i8042", p.i8042}, {"rtc", p.rtc}, {"debug-port", p.marks},
		{"pvpanic", p.pvpanic}, {"acpi", p.pm}, {"machine", (*platformState)(p)},
	}
	return chips
}

// platformState is what the platform keeps outside its chips.
type platformState platform

type platformDocument struct {
	Version    int    `json:"version"`
	Orderly    bool   `json:"orderly"`
	PCIAddress uint32 `json:"pciAddress"`
}

const platformVersion = 1

// State implements stateKeeper.
func (p *platformState) State() ([]byte, error) {
	d := platformDocument{Version: platformVersion, Orderly: p.orderly.Load()}
	if p.pci != nil {
		d.PCIAddress = p.pci.Address()
	}
	return json.Marshal(d)
}

// SetState implements stateKeeper.
func (p *platformState) SetState(b []byte) error {
	var d platformDocument
	if err := json.Unmarshal(b, &d); err != nil {
		return err
	}
	if d.Version != platformVersion {
		return fmt.Errorf("state of version %d, want %d", d.Version, platformVersion)
	}
	p.orderly.Store(d.Orderly)
	if p.pci != nil {
		p.pci.SetAddress(d.PCIAddress)
	}
	return nil
}
