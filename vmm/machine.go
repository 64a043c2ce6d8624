package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vitrine-vmm/vitrine/boot"
	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/pmem"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/softcpu"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// errStopped is what waits for a machine that has stopped end with.
var errStopped = errors.New("the machine has stopped")

// Machine is one virtual machine: memory, CPUs, buses, devices. New makes it,
// Run runs it to its end, Close releases what New took.
type Machine struct {
	cfg  Config
	vm   VM
	mem  *memory.Guest
	pio  *bus.Bus
	mmio *bus.Bus

	platform platform
	virtio   []*slot
	entry    boot.Entry
	cpuid    []x86.CPUIDEntry

	gate     gate
	cpus     []*vcpu
	times    Timings
	observed observation
	watcher  atomic.Pointer[machineObserver] // of what no CPU and no queue does; nil while nobody looks
	debugger atomic.Pointer[Debugger]
	glances  sync.Mutex  // one glance at a time
	guard    sync.Mutex  // one pause, resume or look inside at a time
	inLook   atomic.Bool // it stands still for a look inside, and will go on by itself
	kept     keeping
	paced    atomic.Bool // the deadlines of its timers are put off
	input    []byte      // with Deterministic: what the console has not received yet
}

// New assembles the machine that cfg describes, its kernel loaded, ready to run.
func New(cfg Config) (*Machine, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("machine: %w", err)
	}
	m := &Machine{cfg: cfg, pio: bus.New(), mmio: bus.New()}
	m.gate.init()
	for id := range cfg.CPUs {
		m.cpus = append(m.cpus, &vcpu{id: id, m: m, work: make(chan func(), 1)})
	}
	if err := m.assemble(); err != nil {
		_ = m.Close()
		return nil, err
	}
	return m, nil
}

// assemble is the whole machine in the order in which its parts need each
// other: accelerator, memory, chips, virtio devices, kernel, CPUs.
func (m *Machine) assemble() (err error) {
	if m.vm, err = openAccelerator(m.cfg.Accel, m.cfg.Log, softcpu.Options{Deterministic: m.cfg.Deterministic, Unknown: m.unknownInstruction}); err != nil {
		return err
	}
	m.times.mark(PhaseVMCreated)
	if err := m.layMemory(); err != nil {
		return err
	}
	if err := m.vm.MapMemory(m.mem); err != nil {
		return err
	}
	m.times.mark(PhaseMemoryMapped)
	return m.build()
}

func (m *Machine) build() (err error) {
	if err := m.addPlatform(); err != nil {
		return err
	}
	if err := m.addVirtio(); err != nil {
		return err
	}
	for _, d := range m.cfg.MMIO {
		if err := m.mmio.Map(d.Range, d.Device); err != nil {
			return err
		}
	}
	if m.kept.from != nil {
		return m.buildSaved()
	}
	if err := m.loadKernel(); err != nil {
		return err
	}
	m.times.mark(PhaseKernelLoaded)
	if m.cpuid, err = m.vm.SupportedCPUID(); err != nil {
		return err
	}
	// One CPU has nobody to call for; its machine need not ask how KVM works.
	if m.vm.Kind() == AccelKVM && m.cfg.CPUs > 1 && KernelsEmulated() {
		withoutHypercalls(m.cpuid)
	}
	return nil
}

// layMemory makes the RAM and, behind it, persistent memory.
func (m *Machine) layMemory() (err error) {
	if m.kept.from != nil {
		return m.mapSaved()
	}
	pages := map[HugePages]memory.Pages{HugePagesTransparent: memory.Transparent, HugePages2M: memory.Huge2M}
	if m.mem, err = memory.NewOf(m.cfg.Memory, pages[m.cfg.HugePages]); err != nil {
		return err
	}
	devices, err := m.layPersistent()
	m.cfg.Devices = append(devices, m.cfg.Devices...)
	return err
}

// layPersistent adds the image and the persistent files, and returns their
// devices.
func (m *Machine) layPersistent() (devices []virtio.Device, err error) {
	if m.cfg.PMEMImage != "" {
		dev, err := m.layImage()
		if err != nil {
			return nil, fmt.Errorf("persistent-memory image: %w", err)
		}
		devices = append(devices, dev)
	}
	for i, f := range m.cfg.Persistent {
		base := m.persistentBase()
		dev, err := pmem.New(pmem.Options{Name: fmt.Sprintf("pmem-file%d", i), Base: base, Size: f.Size(), Flush: f.Flush})
		if err != nil {
			return nil, err
		}
		if err := f.AddTo(m.mem, base); err != nil {
			return nil, err
		}
		devices = append(devices, dev)
	}
	return devices, nil
}

// persistentBase is the first place behind all memory.
func (m *Machine) persistentBase() memory.Addr {
	regions := m.mem.Regions()
	return alignUp(regions[len(regions)-1].End(), pmemAlign)
}

func (m *Machine) layImage() (virtio.Device, error) {
	f, err := os.Open(m.cfg.PMEMImage)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	base, size := m.persistentBase(), uint64(info.Size())
	// By virtio-pmem and not as E820 type 12, whose ranges Linux registers only
	// where it found PCI (e820__reserve_resources_late).
	dev, err := pmem.New(pmem.Options{Base: base, Size: size, Flush: func() error { return nil }})
	if err != nil {
		return nil, err
	}
	return dev, m.mem.AddFile(base, f, 0, size, false, memory.PMEM, false)
}

func (m *Machine) loadKernel() error {
	kernel, err := os.Open(m.cfg.Kernel)
	if err != nil {
		return fmt.Errorf("kernel: %w", err)
	}
	defer kernel.Close()
	img := boot.Image{
		Kernel:      kernel,
		CommandLine: m.commandLine(),
		Protocol:    m.cfg.Protocol,
		CacheDir:    m.cfg.CacheDir,
		Mutable:     !m.cfg.FixedKernel,
		CPUs:        m.cfg.CPUs,
		ACPI:        m.acpiConfig(),
		Notef:       func(format string, args ...any) { m.cfg.Log.Warn(fmt.Sprintf(format, args...)) },
	}
	if m.cfg.Initrd != "" {
		if img.Initrd, err = os.Open(m.cfg.Initrd); err != nil {
			return fmt.Errorf("initial RAM disk: %w", err)
		}
		defer img.Initrd.Close()
		img.UnpackInitrd = m.vm.Kind() == AccelSoft || KernelsEmulated()
	}
	m.entry, err = boot.Load(m.mem, img)
	return err
}

// Run runs the machine until the guest turns itself off (nil), it stops for
// another reason (a *StopError), or ctx is done (a *StopError with
// CauseStopped). A machine runs once.
func (m *Machine) Run(ctx context.Context) error {
	m.startIO()
	if err := m.readInput(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { m.Stop(context.Cause(ctx)) })
	defer stop()

	var wg sync.WaitGroup
	m.guard.Lock()
	created := make(chan error, len(m.cpus))
	begin := make(chan struct{})
	for _, c := range m.cpus {
		m.gate.enter()
		wg.Go(func() { m.runCPU(c, created, begin) })
	}
	var err error
	for range m.cpus {
		err = errors.Join(err, <-created)
	}
	if err == nil {
		err = m.beginSaved()
	}
	if err != nil {
		m.gate.stop(&StopError{Cause: CauseHost, VCPU: -1, Err: err})
	}
	m.times.mark(PhaseFirstRun)
	close(begin)
	m.guard.Unlock()

	wg.Wait()
	m.stopIO()
	m.times.mark(PhaseExit)
	if end := m.gate.result(); end != nil {
		m.panicCore(end)
		return end
	}
	return nil
}

// runCPU is a CPU's goroutine, on a thread of its own from its creation to its
// close, as KVM wants it.
func (m *Machine) runCPU(c *vcpu, created chan<- error, begin <-chan struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer m.gate.leave()
	c.thread.Store(int64(currentThread()))
	err := c.create()
	created <- err
	if err != nil {
		return
	}
	defer c.close()
	<-begin
	if !m.gate.pass(c.work) { // stopped, or paused, before it began
		return
	}
	if end := c.loop(); end != nil {
		m.end(end)
	}
	c.keepForCore()
	m.gate.drain(c.work)
}

// end stops the machine for a reason found in it; nil is a power-off.
func (m *Machine) end(e *StopError) {
	if e != nil && e.Cause == CauseTripleFault && m.platform.orderly.Load() {
		// Linux's last way to reboot, when no other reset has worked.
		e = &StopError{Cause: CauseReboot, VCPU: e.VCPU}
	}
	m.gate.stop(e)
	m.kick()
}

// Stop ends the run from outside. reason may be nil.
func (m *Machine) Stop(reason error) {
	e := &StopError{Cause: CauseStopped, VCPU: -1, Err: reason}
	if reason != nil {
		e.Detail = reason.Error()
	}
	m.end(e)
}

// kick makes every CPU look at the gate.
func (m *Machine) kick() {
	for _, c := range m.cpus {
		c.kick()
	}
}

// Pause stops the CPUs and then the devices, so that nothing of the machine
// moves until Resume. It waits until that is so.
func (m *Machine) Pause(ctx context.Context) error {
	m.guard.Lock()
	defer m.guard.Unlock()
	return m.pause(ctx)
}

// pause is Pause with guard held.
func (m *Machine) pause(ctx context.Context) error {
	if !m.gate.pause() {
		return m.notRunning()
	}
	m.kick()
	if err := m.gate.waitParked(ctx); err != nil {
		m.gate.resume()
		return fmt.Errorf("pause: %w", err)
	}
	return m.pauseDevices(ctx)
}

func (m *Machine) notRunning() error {
	if m.gate.state() == gatePause {
		return errors.New("already paused")
	}
	return errStopped
}

// Resume goes on after Pause.
func (m *Machine) Resume() error {
	m.guard.Lock()
	defer m.guard.Unlock()
	return m.resume()
}

// resume is Resume with guard held.
func (m *Machine) resume() error {
	if m.gate.state() != gatePause {
		return errors.New("not paused")
	}
	if err := m.resumeDevices(); err != nil {
		return err
	}
	if m.cfg.Deterministic {
		m.settleAgain()
	}
	m.gate.resume()
	return nil
}

// Paused says whether the machine is paused, and not only for the moment of a
// look inside.
func (m *Machine) Paused() bool { return m.gate.state() == gatePause && !m.inLook.Load() }

// OnCPU runs f on the thread of CPU id while the machine is paused.
func (m *Machine) OnCPU(id int, f func(VCPU) error) error {
	if id < 0 || id >= len(m.cpus) {
		return fmt.Errorf("no vcpu %d: the machine has %d", id, len(m.cpus))
	}
	c := m.cpus[id]
	done := make(chan error, 1)
	if !m.gate.submit(c.work, func() { done <- f(c.cpu) }) {
		return errors.New("not paused")
	}
	return <-done
}

// Memory is the guest's memory.
func (m *Machine) Memory() *memory.Guest { return m.mem }

// Close releases everything. The machine must not be running.
func (m *Machine) Close() error {
	err := m.closeDevices()
	if m.vm != nil {
		err = errors.Join(err, m.vm.Close())
	}
	if m.mem != nil {
		err = errors.Join(err, m.mem.Close())
	}
	return err
}

// Timings says when the machine reached each phase.
type Timings struct {
	mu sync.Mutex
	at [phaseCount]time.Time
}

// Phase is a step of a machine's life.
type Phase uint8

// Phases, in the order in which they are reached.
const (
	PhaseSnapshotRead Phase = iota // of a machine that is restored
	PhaseVMCreated
	PhaseMemoryMapped
	PhaseKernelLoaded
	PhaseFirstRun
	PhaseFirstByte // the guest wrote to its console
	PhaseUserSpace // the default guest's init runs
	PhaseAgent     // its agent listens
	PhaseSettled   // a restored guest has its new settings
	PhaseExit
	phaseCount
)

var phaseNames = [...]string{"snapshot read", "VM created", "memory mapped", "kernel loaded", "first KVM_RUN",
	"first guest byte", "user space", "agent ready", "new settings", "exit"}

func (p Phase) String() string { return phaseNames[p] }

func (t *Timings) mark(p Phase) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at[p].IsZero() {
		t.at[p] = time.Now()
	}
}

// Settled notes that a restored guest has taken its new settings.
func (t *Timings) Settled() { t.mark(PhaseSettled) }

// At returns when phase p was reached, and whether it was.
func (t *Timings) At(p Phase) (time.Time, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at[p], !t.at[p].IsZero()
}

// Timings returns the machine's record; it may be read at any time.
func (m *Machine) Timings() *Timings { return &m.times }

// Phases lists all phases.
func Phases() []Phase {
	ps := make([]Phase, phaseCount)
	for i := range ps {
		ps[i] = Phase(i)
	}
	return ps
}
