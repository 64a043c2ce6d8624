package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// statefulVM is an accelerator whose state can be kept in a snapshot.
type statefulVM interface {
	Chips() (x86.Chips, error)
	SetChips(*x86.Chips) error
	Clock() (uint64, error)
	SetClock(ns uint64) error
	// StateMSRs are the registers that make up a CPU's state. Those that a
	// CPU does not have may be among them.
	StateMSRs() ([]uint32, error)
	SetDirtyLog(on bool) error
	DirtyPages(d *memory.Dirty) error
}

// statefulCPU is one of its CPUs. Its methods are for the CPU's thread.
type statefulCPU interface {
	VCPU
	LAPIC() (x86.LAPIC, error)
	SetLAPIC(*x86.LAPIC) error
	MPState() (x86.MPState, error)
	SetMPState(x86.MPState) error
	DebugRegs() (x86.DebugRegs, error)
	SetDebugRegs(*x86.DebugRegs) error
}

// What only some accelerators have.
type (
	msrKnower interface {
		KnownMSRs(index []uint32) ([]x86.MSR, error)
	}
	pdptrKeeper interface {
		PDPTRs() (p [4]uint64, ok bool, err error)
		SetPDPTRs(p [4]uint64) error
	}
	tscKeeper interface {
		TSCkHz() uint32
		SetTSCkHz(kHz uint32) error
	}
	clockStopper interface{ ClockStopped() error }
	pageSettler  interface{ Settle() error }
)

var errStateless = errors.New("this accelerator keeps state that cannot be read")

// SaveOptions say how a snapshot is made.
type SaveOptions struct {
	Maker string // the program's version
	// App is called while the machine is paused, for what the program keeps of
	// it besides; nil: nothing.
	App func() (json.RawMessage, error)
	// Base is the folder of an earlier snapshot of this machine: only what
	// has changed since is written.
	Base string
	// Track notes from now on what the guest changes, for a later snapshot
	// with this one as its base. It costs the guest a fault for each page.
	Track bool
	// Volatile is for a snapshot that need not outlive the host: it is not
	// waited for until it is on the disk.
	Volatile bool
	// KeepPaused leaves the machine paused.
	KeepPaused bool
	// Files is called after App, while the machine is paused, to keep what the
	// devices work on: a file of the snapshot is made at w.Path.
	Files func(w *snapshot.Writer) error
}

// Saved says what a snapshot took.
type Saved struct {
	ID     snapshot.ID   `json:"id"`
	Paused time.Duration `json:"paused"` // how long the guest stood
	Total  time.Duration `json:"total"`
	Stored uint64        `json:"stored"` // bytes of memory written
}

// keeping is what a machine knows of its snapshots.
type keeping struct {
	from   *snapshot.Snapshot // being restored from; nil once the machine runs
	unseen bool               // from's guest saw features that only a CPU can show
	kernel string             // the file that from's kernel may have come from; "" with a new machine

	mu       sync.Mutex // one Save at a time
	origin   *origin
	tracking bool
	own      *memory.Dirty // pages that the VMM itself has written
	since    []since       // oldest first
	watches  []*MemoryWatch
	image    *snapshot.Image
}

// origin is the snapshot that a machine was restored from: what has changed
// since can be seen in the memory map.
type origin struct {
	id    snapshot.ID
	pages snapshot.Pages // that were stored, of the memory file
}

// since is what has changed since a snapshot.
type since struct {
	id    snapshot.ID
	pages *memory.Dirty
}

// maxSince bounds how many earlier snapshots a machine can serve as a base.
const maxSince = 16

// Save makes a snapshot of the machine in the folder dir. The guest stands
// while its memory is copied; until it is all on the disk it goes on.
func (m *Machine) Save(ctx context.Context, dir string, o SaveOptions) (Saved, error) {
	k := &m.kept
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(m.cfg.MMIO) > 0 {
		return Saved{}, fmt.Errorf("save: %s keeps state that cannot be read", m.cfg.MMIO[0].Name)
	}
	begun := time.Now()
	s := &saving{m: m, opt: o, state: new(snapshot.State)}
	vm, ok := m.vm.(statefulVM)
	if !ok {
		return Saved{}, fmt.Errorf("save: %w", errStateless)
	}
	s.vm = vm
	if err := s.open(dir); err != nil {
		return Saved{}, fmt.Errorf("save: %w", err)
	}
	defer s.close()
	paused, err := s.freeze(ctx)
	if err == nil {
		err = s.w.Commit(s.state)
	}
	if err != nil {
		return Saved{}, fmt.Errorf("save: %w", err)
	}
	s.remember()
	return Saved{ID: s.w.ID(), Paused: paused, Total: time.Since(begun), Stored: s.state.Pages.Count() * memory.PageSize}, nil
}

// saving is one Save.
type saving struct {
	m     *Machine
	vm    statefulVM
	opt   SaveOptions
	w     *snapshot.Writer
	base  *snapshot.Snapshot
	state *snapshot.State
}

// open prepares what does not need the guest to stand.
func (s *saving) open(dir string) (err error) {
	s.state.Created = time.Now().UTC().Truncate(time.Millisecond)
	s.state.Maker = s.opt.Maker
	if s.opt.Base != "" {
		if err := s.openBase(dir); err != nil {
			return err
		}
	}
	if err := s.m.imageOf(); err != nil {
		return err
	}
	if s.w, err = snapshot.Create(dir); err == nil && s.opt.Volatile {
		s.w.NoSync()
	}
	return err
}

func (s *saving) openBase(dir string) (err error) {
	if s.base, err = snapshot.Open(s.opt.Base); err != nil {
		return err
	}
	k := &s.m.kept
	known := k.origin != nil && k.origin.id == s.base.ID
	for _, e := range k.since {
		known = known || e.id == s.base.ID
	}
	if !known {
		return fmt.Errorf("nobody has noted what changed since %s: its base must be a snapshot that this machine made or was restored from; make a whole one", s.opt.Base)
	}
	place, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if place == s.base.Path {
		return fmt.Errorf("%s cannot build on itself: choose another folder", dir)
	}
	path := s.base.Path
	if rel, err := filepath.Rel(place, path); err == nil {
		path = rel
	}
	s.state.Base = &snapshot.Base{ID: s.base.ID, Path: path}
	return nil
}

func (s *saving) close() {
	if s.w != nil {
		s.w.Abort()
	}
	if s.base != nil {
		_ = s.base.Close()
	}
}

// freeze takes the machine's state while it is paused.
func (s *saving) freeze(ctx context.Context) (paused time.Duration, err error) {
	m := s.m
	m.guard.Lock()
	defer m.guard.Unlock()
	if err := m.awaitCPUs(ctx); err != nil {
		return 0, err
	}
	if was := m.Paused(); !was {
		begun := time.Now()
		if err := m.pause(ctx); err != nil {
			return 0, err
		}
		if !s.opt.KeepPaused {
			defer func() {
				err = errors.Join(err, m.resume())
				paused = time.Since(begun)
			}()
		}
	}
	return 0, s.take()
}

// awaitCPUs waits, with guard held between its looks, until the machine's CPUs
// exist: Run makes them.
func (m *Machine) awaitCPUs(ctx context.Context) error {
	for !m.cpusExist() {
		if m.gate.state() == gateStop {
			return errStopped
		}
		m.guard.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
		m.guard.Lock()
		if ctx.Err() != nil {
			return fmt.Errorf("the machine has not begun to run: %w", ctx.Err())
		}
	}
	return nil
}

func (m *Machine) cpusExist() bool {
	for _, c := range m.cpus {
		c.mu.Lock()
		live := c.live
		c.mu.Unlock()
		if !live {
			return false
		}
	}
	return true
}

// take is everything that needs the guest to stand.
func (s *saving) take() error {
	for _, step := range []func() error{s.takeCPUs, s.takeChips, s.takeDevices, s.takeMemory, s.askProgram} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// askProgram takes what the program keeps of the machine.
func (s *saving) askProgram() (err error) {
	if s.opt.App != nil {
		if s.state.App, err = s.opt.App(); err != nil {
			return err
		}
	}
	if s.opt.Files == nil {
		return nil
	}
	return s.opt.Files(s.w)
}

func (s *saving) takeCPUs() error {
	msrs, err := s.vm.StateMSRs()
	if err != nil {
		return err
	}
	s.state.CPUID = s.m.cpuid
	if err := s.m.OnCPU(0, s.takeSeen); err != nil {
		return fmt.Errorf("vcpu 0: %w", err)
	}
	s.state.CPUs = make([]snapshot.CPU, len(s.m.cpus))
	for i := range s.state.CPUs {
		// On every CPU's own thread; MP state first: asking for it has KVM
		// act on an INIT or SIPI that waits, which changes registers.
		err := s.m.OnCPU(i, func(v VCPU) error {
			c, ok := v.(statefulCPU)
			if !ok {
				return errStateless
			}
			return saveCPU(&s.state.CPUs[i], c, msrs, s.m.xsaveSize())
		})
		if err != nil {
			return fmt.Errorf("vcpu %d: %w", i, err)
		}
	}
	return nil
}

// takeSeen keeps what the guest sees, where that is more than it was given.
func (s *saving) takeSeen(cpu VCPU) error {
	seen, err := seenCPUID(cpu, s.m.cpuid)
	if err == nil && CheckCPUID(seen, s.m.cpuid) != nil {
		s.state.Seen = seen
	}
	return err
}

func (m *Machine) xsaveSize() int { return m.vm.XSaveSize() }

func saveCPU(s *snapshot.CPU, c statefulCPU, msrs []uint32, xsaveSize int) (err error) {
	if t, ok := c.(pageSettler); ok {
		if err := t.Settle(); err != nil {
			return err
		}
	}
	if t, ok := c.(clockStopper); ok {
		if err := t.ClockStopped(); err != nil {
			return err
		}
	}
	s.XSave = make([]byte, xsaveSize)
	steps := []func() error{
		func() error { s.MP, err = c.MPState(); return err },
		func() error { s.Regs, err = c.Regs(); return err },
		func() error { s.Sregs, err = c.Sregs(); return err },
		func() error { s.Events, err = c.Events(); return err },
		func() error { s.Debug, err = c.DebugRegs(); return err },
		func() error { s.XCR0, err = c.XCR0(); return err },
		func() error { return c.XSave(s.XSave) },
		func() error { s.LAPIC, err = c.LAPIC(); return err },
		func() error { s.MSRs, err = saveMSRs(c, msrs); return err },
		func() error { s.PDPTRs, err = savePDPTRs(c); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	if t, ok := c.(tscKeeper); ok {
		s.TSCkHz = t.TSCkHz()
	}
	return nil
}

func saveMSRs(c statefulCPU, index []uint32) ([]snapshot.MSR, error) {
	read := func(index []uint32) ([]x86.MSR, error) { return c.MSRs(index...) }
	if k, ok := c.(msrKnower); ok {
		read = k.KnownMSRs
	}
	values, err := read(index)
	if err != nil {
		return nil, err
	}
	list := make([]snapshot.MSR, len(values))
	for i, m := range values {
		list[i] = snapshot.MSR{Index: m.Index, Data: m.Data}
	}
	return list, nil
}

func savePDPTRs(c statefulCPU) (*[4]uint64, error) {
	k, ok := c.(pdptrKeeper)
	if !ok {
		return nil, nil
	}
	p, valid, err := k.PDPTRs()
	if err != nil || !valid {
		return nil, err
	}
	return &p, nil
}

func (s *saving) takeChips() (err error) {
	if s.state.Chips, err = s.vm.Chips(); err != nil {
		return err
	}
	if s.state.Clock, err = s.vm.Clock(); err != nil {
		return err
	}
	m := s.m
	if s.state.Deterministic, err = m.moment(); err != nil {
		return err
	}
	s.state.Platform = make(map[string]json.RawMessage)
	for _, c := range m.platform.stateful() {
		b, err := c.State()
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		s.state.Platform[c.name] = b
	}
	s.state.Machine = snapshot.Machine{
		Name: m.cfg.Name, Accel: string(m.vm.Kind()), CPUs: m.cfg.CPUs, Memory: m.cfg.Memory,
		Transport: string(m.cfg.Transport), ACPI: m.cfg.ACPI, Generation: m.cfg.Generation,
	}
	if m.cfg.ACPI {
		s.state.Machine.GenerationAt = generationAt
	}
	return nil
}

func (s *saving) takeDevices() error {
	for _, t := range s.m.virtio {
		b, err := t.State()
		if err != nil {
			return err
		}
		spec := t.Device().Spec()
		s.state.Devices = append(s.state.Devices, snapshot.Device{Name: spec.Name, Type: uint32(spec.ID), State: b})
	}
	return nil
}

// imageOf identifies the persistent-memory image, once.
func (m *Machine) imageOf() error {
	i := m.imageRegion()
	if m.kept.image != nil || i < 0 {
		return nil
	}
	r := &m.mem.Regions()[i]
	f, err := os.Open(r.File)
	if err != nil {
		return fmt.Errorf("persistent-memory image: %w", err)
	}
	defer f.Close()
	image, err := snapshot.Identify(f, uint64(len(r.Bytes)))
	if err != nil {
		return fmt.Errorf("persistent-memory image: %w", err)
	}
	m.kept.image = &image
	return nil
}

// imageRegion is the number of the region that shows the image, the first of
// persistent memory; -1 without an image.
func (m *Machine) imageRegion() int {
	if m.cfg.PMEMImage == "" {
		return -1
	}
	return slices.IndexFunc(m.mem.Regions(), func(r memory.Region) bool { return r.Kind != memory.RAM })
}

// remember notes the new snapshot as a base for later ones.
func (s *saving) remember() {
	k := &s.m.kept
	if !k.tracking {
		return
	}
	k.since = append(k.since, since{s.w.ID(), memory.NewDirty(s.m.endOfMemory())})
	if n := len(k.since); n > maxSince {
		k.since = slices.Delete(k.since, 0, n-maxSince)
	}
}

func (m *Machine) endOfMemory() memory.Addr {
	rs := m.mem.Regions()
	return rs[len(rs)-1].End()
}
