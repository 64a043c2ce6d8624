package vmm

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/vitrine-vmm/vitrine/boot"
	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Config describes a machine. The zero value of a field means its default.
type Config struct {
	Name   string
	Memory uint64 // bytes, a multiple of 4 KiB; default 256 MiB
	CPUs   int    // 1…32; default 1
	Accel  string // "auto" (default), "kvm" or "soft"

	// Deterministic makes the same machine do the same again (the software CPU
	// only): time advances with instructions, Console.In is read before the
	// guest runs and reaches it when it is ready for it, and CPUs wait for
	// devices. Devices must answer by themselves, without goroutines of their
	// own beside those of their queues.
	Deterministic bool

	Kernel      string // path of a bzImage or ELF kernel
	Initrd      string // path, or ""
	CommandLine string
	Protocol    boot.Protocol
	FixedKernel bool   // the kernel's file never changes in place: guests may share its pages
	CacheDir    string // for unpacked kernels; "" unpacks every time
	PMEMImage   string // a file to appear as /dev/pmem0, copy-on-write; its size a multiple of 2 MiB

	// Persistent are files that appear as /dev/pmemN behind the image.
	Persistent []PersistentFile
	HugePages  HugePages // what pages of the host's are guest memory

	Console   Serial // COM1
	Transport Transport
	Notify    Notify // how drivers' notifications reach virtio devices
	ACPI      bool   // describe the machine by ACPI tables too
	Devices   []virtio.Device
	MMIO      []MMIODevice // devices of other kinds

	// Generation is the VM generation identifier that ACPI guests see.
	Generation [16]byte

	// CoreFile is where an ELF core of the guest goes when a CPU gives up
	// (triple fault, impossible instruction); "" for none.
	CoreFile string

	OnMark func(mark uint8) // a write to the debug port; must not block
	Log    *slog.Logger     // what happens to the machine; default: nothing
	Clock  func() time.Time // wall clock for the RTC; default time.Now
}

// PersistentFile is a file to be persistent memory, such as a *disk.PMEM.
type PersistentFile interface {
	Size() uint64 // a multiple of 2 MiB
	AddTo(g *memory.Guest, base memory.Addr) error
	Flush() error
}

// MMIODevice is a device of another kind than virtio's, at guest physical
// addresses where nothing else is: package vmm's layout says what is taken. A
// machine that has one cannot be saved.
type MMIODevice struct {
	bus.Range
	bus.Device
}

// HugePages is what pages of the host's are guest memory.
type HugePages string

// Kinds of pages.
const (
	HugePagesOff         HugePages = "off" // as the host does by itself (the default)
	HugePagesTransparent HugePages = "thp" // large pages where the host finds some
	HugePages2M          HugePages = "2M"  // reserved pages of 2 MiB (hugetlbfs)
)

// Serial is what a serial port is connected to.
type Serial struct {
	In  io.Reader // nil: nothing is ever received
	Out io.Writer // nil: what is sent is lost
}

// Transport is how virtio devices are found.
type Transport string

// Transports.
const (
	TransportMMIO Transport = "mmio" // virtio-mmio, named on the command line and in ACPI
	TransportPCI  Transport = "pci"  // virtio-pci
)

// Notify is how a driver's notification reaches its virtio device.
type Notify string

// Ways of notification.
const (
	NotifyIOEventFD Notify = "ioeventfd" // rings the device's doorbell; the CPU goes on (the default)
	NotifyExit      Notify = "exit"      // leaves the guest, as any other access to a register does
)

// Limits of a machine.
const (
	MaxCPUs       = 32
	MinMemory     = 8 << 20
	DefaultMemory = 256 << 20
)

// withDefaults fills in what was left out, and checks the rest.
func (c Config) withDefaults() (Config, error) {
	if c.Memory == 0 {
		c.Memory = DefaultMemory
	}
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	if c.Accel == "" {
		c.Accel = "auto"
	}
	if c.Transport == "" {
		c.Transport = TransportMMIO
	}
	if c.Notify == "" {
		c.Notify = NotifyIOEventFD
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
		if c.Deterministic {
			c.Clock = deterministicClock
		}
	}
	if c.HugePages == "" {
		c.HugePages = HugePagesOff
	}
	return c, c.check()
}

func (c *Config) check() error {
	switch {
	case c.Kernel == "":
		return errors.New("no kernel: give the path of a bzImage or vmlinux")
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return fmt.Errorf("%d CPUs: want 1 to %d", c.CPUs, MaxCPUs)
	case c.Memory < MinMemory || c.Memory%memory.PageSize != 0:
		return fmt.Errorf("%d bytes of memory: want a multiple of 4 KiB, at least %d MiB", c.Memory, MinMemory>>20)
	case c.Transport != TransportMMIO && c.Transport != TransportPCI:
		return fmt.Errorf("transport %q: want %q or %q", c.Transport, TransportMMIO, TransportPCI)
	case c.Notify != NotifyIOEventFD && c.Notify != NotifyExit:
		return fmt.Errorf("notification by %q: want %q or %q", c.Notify, NotifyIOEventFD, NotifyExit)
	case c.Notify == NotifyExit && c.Deterministic:
		return errors.New("a deterministic machine waits for its devices at their doorbells: notification by exit has none")
	case c.Accel != "auto" && c.Accel != "kvm" && c.Accel != "soft":
		return fmt.Errorf("accelerator %q: want auto, kvm or soft", c.Accel)
	case c.Transport == TransportMMIO && len(c.Devices) > len(mmioLines):
		return fmt.Errorf("%d devices: virtio-mmio has interrupt lines for %d; use the PCI transport", len(c.Devices), len(mmioLines))
	}
	return nil
}
