//go:build linux && amd64

// Package solution is a VMM of the size that docs/labs/own-vmm asks for: one
// way to do it.
package solution

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/vitrine-vmm/vitrine/docs/labs/own-vmm/steps"
	"github.com/vitrine-vmm/vitrine/vmm/completion"
	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// VMM is a virtual machine monitor for one VM with one CPU.
type VMM struct {
	sys   *kvm.System
	vm    *kvm.VM
	mem   *memory.Guest
	cpu   *kvm.VCPU
	fix   *completion.Completer // for hosts whose KVM emulates guest kernels
	ports []ports
}

// ports is a device and where it is.
type ports struct {
	first, last uint16
	dev         steps.Device
}

var _ steps.VMM = (*VMM)(nil)

// Open is step 1.
func (v *VMM) Open() (err error) {
	if v.sys, err = kvm.Open(); err != nil {
		return err
	}
	v.vm, err = v.sys.CreateVM()
	return err
}

// Close is step 1. What was made last goes first.
func (v *VMM) Close() error {
	var errs []error
	if v.cpu != nil {
		errs = append(errs, v.cpu.Close())
	}
	if v.vm != nil {
		errs = append(errs, v.vm.Close())
	}
	if v.mem != nil {
		errs = append(errs, v.mem.Close())
	}
	if v.sys != nil {
		errs = append(errs, v.sys.Close())
	}
	*v = VMM{}
	return errors.Join(errs...)
}

// AddMemory is step 2.
func (v *VMM) AddMemory(size uint64) (err error) {
	if v.mem, err = memory.New(size); err != nil {
		return err
	}
	return v.vm.MapMemory(v.mem)
}

// Memory is step 2.
func (v *VMM) Memory() *memory.Guest { return v.mem }

// Load is step 2.
func (v *VMM) Load(data []byte, at uint64) error { return v.mem.WriteAt(data, memory.Addr(at)) }

// AddCPU is step 3. A CPU begins as after reset: in real mode, at 16 bytes
// below 4 GiB.
func (v *VMM) AddCPU() error {
	cpuid, err := v.sys.SupportedCPUID()
	if err != nil {
		return err
	}
	if v.cpu, err = v.vm.CreateVCPU(0, cpuid); err != nil {
		return err
	}
	v.fix = completion.NewCompleter(v.cpu, v.mem, cpuid, v.vm.XSaveSize())
	s, err := v.cpu.Sregs()
	if err != nil {
		return err
	}
	s.CS.Base, s.CS.Selector = 0, 0
	if err := v.cpu.SetSregs(&s); err != nil {
		return err
	}
	return v.cpu.SetRegs(&x86.Regs{RIP: steps.Entry, RFLAGS: x86.Flag1})
}

// Next is step 3, and completes what the host's KVM leaves to its VMM.
func (v *VMM) Next() (x86.Exit, error) {
	for {
		x, err := v.cpu.Run()
		switch {
		case err != nil:
			return x, err
		case x.Reason == x86.ExitInterrupted:
			continue
		case x.Reason == x86.ExitInternalError:
			if _, err := v.fix.Step(x.Instruction); err != nil {
				return x, err
			}
			continue
		}
		return x, nil
	}
}

// Attach is step 4.
func (v *VMM) Attach(first, last uint16, d steps.Device) {
	v.ports = append(v.ports, ports{first, last, d})
}

// Run is step 4.
func (v *VMM) Run() error {
	for {
		x, err := v.Next()
		if err != nil {
			return err
		}
		switch x.Reason {
		case x86.ExitIO:
			if err := v.portIO(&x); err != nil {
				return err
			}
		case x86.ExitMMIO:
			ones(&x) // no device is in memory here
		case x86.ExitShutdown:
			return errors.New("triple fault: the CPU shut down")
		default:
			return fmt.Errorf("an exit that nobody handles: %v", x.Reason)
		}
	}
}

func ones(x *x86.Exit) {
	for i := range x.Data {
		if !x.Write {
			x.Data[i] = 0xff
		}
	}
}

// portIO hands the Count accesses of an exit to the device.
func (v *VMM) portIO(x *x86.Exit) error {
	for _, p := range v.ports {
		if x.Port < p.first || x.Port > p.last {
			continue
		}
		for b := x.Data; len(b) > 0; b = b[x.Size:] {
			access := p.dev.Read
			if x.Write {
				access = p.dev.Write
			}
			if err := access(x.Port, b[:x.Size]); err != nil {
				return err
			}
		}
		return nil
	}
	ones(x)
	return nil
}

// Where the tables of step 5 are: PML4, PDPT, four page directories.
const (
	pml4 = 0x9000
	pdpt = 0xa000
	pd0  = 0xb000
	gdt  = 0x500

	present, writable, large = 1 << 0, 1 << 1, 1 << 7
)

// LongMode is step 5 (SDM vol. 3, "Initializing IA-32e Mode"). Through
// KVM_SET_SREGS it is one step.
func (v *VMM) LongMode(entry uint64) error {
	if err := v.pageTables(); err != nil {
		return err
	}
	descriptors := []uint64{0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff} // 0x10 code, 0x18 data: boot.rst
	table := new(bytes.Buffer)
	_ = binary.Write(table, binary.LittleEndian, descriptors) // to a buffer: cannot fail
	if err := v.Load(table.Bytes(), gdt); err != nil {
		return err
	}
	s, err := v.cpu.Sregs()
	if err != nil {
		return err
	}
	data := x86.Segment{Selector: 0x18, Limit: 0xffffffff, Type: 3, Present: 1, S: 1, DB: 1, G: 1}
	s.DS, s.ES, s.SS, s.FS, s.GS = data, data, data, data, data
	s.CS = x86.Segment{Selector: 0x10, Limit: 0xffffffff, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	s.GDT = x86.DTable{Base: gdt, Limit: uint16(table.Len() - 1)}
	s.CR3 = pml4
	s.CR4 |= x86.CR4PAE
	s.EFER |= x86.EFERLME | x86.EFERLMA
	s.CR0 |= x86.CR0PE | x86.CR0PG
	if err := v.cpu.SetSregs(&s); err != nil {
		return err
	}
	return v.cpu.SetRegs(&x86.Regs{RIP: entry, RSP: 0x7000, RFLAGS: x86.Flag1})
}

// pageTables maps 4 GiB onto themselves, by pages of 2 MiB.
func (v *VMM) pageTables() error {
	entries := map[uint64]uint64{pml4: pdpt | writable | present}
	for gib := range uint64(4) {
		entries[pdpt+8*gib] = pd0 + 0x1000*gib | writable | present
	}
	for page := range uint64(4 * 512) {
		entries[pd0+8*page] = page<<21 | large | writable | present
	}
	for at, e := range entries {
		if err := v.Load(binary.LittleEndian.AppendUint64(nil, e), at); err != nil {
			return err
		}
	}
	return nil
}

// uart is COM1 as far as output without interrupts needs it (PC16550D).
type uart struct{ out io.Writer }

// Registers, from the first port on.
const (
	com1       = 0x3f8
	thr        = com1     // transmitter holding register
	lsr        = com1 + 5 // line status register
	transmitOK = 0x60     // the holding register and the transmitter are empty
)

// Read implements steps.Device: the transmitter is always free.
func (u *uart) Read(port uint16, p []byte) error {
	clear(p)
	if port == lsr {
		p[0] = transmitOK
	}
	return nil
}

// Write implements steps.Device.
func (u *uart) Write(port uint16, p []byte) error {
	if port != thr {
		return nil
	}
	_, err := u.out.Write(p[:1])
	return err
}

// Serial is step 6.
func (v *VMM) Serial(w io.Writer) { v.Attach(com1, com1+7, &uart{w}) }

// commandLineAt is where the kernel's command line is.
const commandLineAt = 0x2_0000

// LoadLinux is step 7.
func (v *VMM) LoadLinux(kernel io.ReaderAt, commandLine string) (entry uint64, err error) {
	f, err := elf.NewFile(kernel)
	if err != nil {
		return 0, err
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		b, err := v.mem.WritableBytes(memory.Addr(p.Paddr), p.Filesz)
		if err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(p.Open(), b); err != nil {
			return 0, err
		}
	}
	if err := v.Load(append([]byte(commandLine), 0), commandLineAt); err != nil {
		return 0, err
	}
	return f.Entry, v.Load(v.bootParams(), steps.BootParams)
}

// bootParams is the zero page (Linux Documentation/arch/x86/zero-page.rst).
func (v *VMM) bootParams() []byte {
	const ram = 1 // E820 type
	p := make([]byte, 4096)
	le := binary.LittleEndian
	le.PutUint16(p[0x1fe:], 0xaa55)
	copy(p[0x202:], "HdrS")
	le.PutUint16(p[0x206:], 0x20f) // version of the protocol
	p[0x210] = 0xff                // a boot loader without a number
	p[0x211] = 1                   // loaded high
	le.PutUint32(p[0x228:], commandLineAt)
	p[0x1e8] = 2
	for i, r := range [][2]uint64{{0, 0x9_fc00}, {1 << 20, v.mem.Size() - 1<<20}} {
		le.PutUint64(p[0x2d0+20*i:], r[0])
		le.PutUint64(p[0x2d8+20*i:], r[1])
		le.PutUint32(p[0x2e0+20*i:], ram)
	}
	return p
}

// Boot is step 8: the 64-bit boot protocol has boot_params in RSI.
func (v *VMM) Boot(entry uint64) error {
	if err := v.LongMode(entry); err != nil {
		return err
	}
	r, err := v.cpu.Regs()
	if err != nil {
		return err
	}
	r.RSI = steps.BootParams
	if err := v.cpu.SetRegs(&r); err != nil {
		return err
	}
	return v.Run()
}
