package lab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/bus"
	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/console"
	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Where a program is loaded and begins, in memory that is zero.
const (
	loadAddr   = 0x8000
	maxProgram = 0x8000
	guestSize  = vmm.MinMemory
	keepEvents = 1 << 16
	maxEvents  = 1 << 16
)

// Start is what a program begins with.
type Start struct {
	AX, BX, CX, DX uint64
	Flat           bool   // begins in 32-bit protected mode with flat segments; otherwise in real mode
	Input          string // what COM1 receives
	CPUs           int    // default 1
	Memory         uint64 // bytes; default guestSize
	Place          []Blob // what is in memory besides the program
	Disk           []byte // behind a virtio-blk device, the first of the machine's virtio-mmio devices
	Device         bus.Device
	DeviceAt       bus.Range         // where Device is
	Notify         vmm.Notify        // how the devices are notified
	Sent           *output           // what a virtio console sends; nil: there is none
	Configure      func(*vmm.Config) // what else the machine has
	Undisturbed    bool              // not looked at before a CPU halts: a look makes devices look at their rings
	Until          string            // once COM1 has sent this the program need not halt
	Limit          time.Duration     // how long the case takes at least, where that is longer than usual
}

// Blob is bytes in guest memory.
type Blob struct {
	At   uint64
	Data []byte
}

// newMachine makes a machine with the program in its memory and nothing that
// Start does not name. The kernel that vmm.New wants is a HLT that never runs.
func newMachine(program []byte, s Start, o Options, out *output) (*vmm.Machine, error) {
	dir, err := os.MkdirTemp("", "vitrine-lab")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	kernel := filepath.Join(dir, "halt.elf")
	if err := os.WriteFile(kernel, haltKernel(), 0o600); err != nil {
		return nil, err
	}
	cfg := vmm.Config{Name: "lab", Memory: max(s.Memory, guestSize), CPUs: s.CPUs, Accel: o.Accel, Notify: s.Notify, Kernel: kernel, CoreFile: o.Core,
		Console: vmm.Serial{In: strings.NewReader(s.Input), Out: out}}
	if s.Disk != nil {
		d, err := blk.New(blk.Inline(blk.NewMemory(s.Disk, false)), blk.Options{})
		if err != nil {
			return nil, err
		}
		cfg.Devices = []virtio.Device{d}
		cfg.Notify = vmm.NotifyExit // to be seen
	}
	if s.Device != nil {
		cfg.MMIO = []vmm.MMIODevice{{Range: s.DeviceAt, Device: s.Device}}
	}
	if s.Sent != nil {
		cfg.Devices = append(cfg.Devices, console.New("console", nil, s.Sent))
	}
	if s.Configure != nil {
		s.Configure(&cfg)
	}
	m, err := vmm.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := place(m.Memory(), cfg.Memory, program, s.Place); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// place clears the machine's memory and lays out what the lab has for it.
func place(g *memory.Guest, size uint64, program []byte, blobs []Blob) error {
	// What vmm.New has loaded lies in the first two MiB.
	low, err := g.WritableBytes(0, min(size, 2<<20))
	if err != nil {
		return err
	}
	clear(low)
	for _, b := range append([]Blob{{loadAddr, program}}, blobs...) {
		if err := g.WriteAt(b.Data, memory.Addr(b.At)); err != nil {
			return err
		}
	}
	return nil
}

// begin brings the boot processor to the program. Without vectors any exception
// ends in a triple fault, and is explained, where it would otherwise jump into
// memory that is zero.
func (r *Result) begin(c vmm.VCPU) error {
	s, err := c.Sregs()
	if err != nil {
		return err
	}
	s.CR0, s.CR3, s.CR4, s.EFER = x86.CR0ET, 0, 0, 0
	data := x86.Segment{Limit: 0xffff, Type: 3, Present: 1, S: 1} // SDM vol. 3, "Processor State After Reset"
	if r.Start.Flat {
		s.CR0 |= x86.CR0PE
		data = x86.Segment{Limit: 0xffffffff, Selector: 0x10, Type: 3, Present: 1, S: 1, DB: 1, G: 1}
	}
	s.DS, s.ES, s.SS, s.FS, s.GS = data, data, data, data, data
	s.CS = data
	s.CS.Type = 11
	if r.Start.Flat {
		s.CS.Selector = 0x8
	}
	s.GDT, s.IDT = x86.DTable{}, x86.DTable{}
	if err := c.SetSregs(&s); err != nil {
		return err
	}
	return c.SetRegs(&x86.Regs{RAX: r.Start.AX, RBX: r.Start.BX, RCX: r.Start.CX, RDX: r.Start.DX,
		RIP: loadAddr, RSP: 0x7000, RFLAGS: x86.Flag1})
}
