//go:build linux && amd64

package completion_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/completion"
	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// TestLinux boots the kernel (an uncompressed ELF image) that
// VITRINE_TEST_KERNEL names, with the initial RAM disk VITRINE_TEST_INITRD, until
// it has printed VITRINE_TEST_UNTIL, and prints what was completed.
func TestLinux(t *testing.T) {
	kernel := os.Getenv("VITRINE_TEST_KERNEL")
	if kernel == "" {
		t.Skip("VITRINE_TEST_KERNEL is not set")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sys, err := kvm.Open()
	if err != nil {
		t.Skip(err)
	}
	defer sys.Close()
	vm, err := sys.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	g, err := memory.New(256 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	cmd := os.Getenv("VITRINE_TEST_APPEND")
	if cmd == "" {
		cmd = "console=ttyS0 earlyprintk=ttyS0"
	}
	regs, apply := loadLinux(t, g, kernel, os.Getenv("VITRINE_TEST_INITRD"), cmd)
	if err := vm.MapMemory(g); err != nil {
		t.Fatal(err)
	}
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		t.Fatal(err)
	}
	c, err := vm.CreateVCPU(0, cpuid)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	apply(&s)
	if err := c.SetSregs(&s); err != nil {
		t.Fatal(err)
	}
	if err := c.SetRegs(&regs); err != nil {
		t.Fatal(err)
	}
	irq, err := vm.Line(4)
	if err != nil {
		t.Fatal(err)
	}
	runLinux(t, vm, c, g, cpuid, &uart{irq: irq})
}

func runLinux(t *testing.T, vm *kvm.VM, c *kvm.VCPU, g *memory.Guest, cpuid []x86.CPUIDEntry, u *uart) {
	fix := completion.NewCompleter(c, g, cpuid, vm.XSaveSize())
	until := []byte(os.Getenv("VITRINE_TEST_UNTIL"))
	start := time.Now()
	var spent time.Duration
	var n int
	defer func() {
		fmt.Printf("\n%.2f s, %d completions of %v: %v\n", time.Since(start).Seconds(), n, spent/time.Duration(max(n, 1)), fix.Engine.Counts())
	}()
	stop := time.AfterFunc(300*time.Second, func() { _ = c.Kick() })
	defer stop.Stop()
	for {
		x, err := c.Run()
		if err != nil {
			t.Fatal(err)
		}
		switch x.Reason {
		case x86.ExitIO:
			if x.Port == 0x64 && x.Write && x.Data[0] == 0xfe {
				return
			}
			u.access(&x)
			if len(until) > 0 && bytes.Contains(u.out, until) {
				return
			}
		case x86.ExitMMIO:
			for i := range x.Data {
				x.Data[i] = 0xff
			}
		case x86.ExitInterrupted:
			if time.Since(start) > 300*time.Second {
				r, _ := c.Regs()
				t.Fatalf("timeout at rip %#x", r.RIP)
			}
		case x86.ExitInternalError:
			t0 := time.Now()
			_, err := fix.Step(x.Instruction)
			spent += time.Since(t0)
			n++
			if err != nil {
				r, _ := c.Regs()
				s, _ := c.Sregs()
				t.Fatalf("%v: suberror %d % x at %#x cpl %d", err, x.SubError, x.Instruction, r.RIP, s.CPL())
			}
		default:
			r, _ := c.Regs()
			s, _ := c.Sregs()
			t.Fatalf("exit %v at %#x cr2 %#x", x.Reason, r.RIP, s.CR2)
		}
	}
}

// uart is as much of a 16550 as Linux's driver needs for output.
type uart struct {
	lcr, ier, mcr, scr, dll byte
	out                     []byte
	irq                     func() error
}

func (u *uart) access(x *x86.Exit) {
	for i := 0; i < len(x.Data); i += int(x.Size) {
		b := &x.Data[i]
		switch {
		case x.Port < 0x3f8 || x.Port > 0x3ff:
			if !x.Write {
				for j := range int(x.Size) {
					x.Data[i+j] = 0xff
				}
				if x.Port == 0x64 {
					*b = 0
				}
			}
		case x.Write:
			u.write(x.Port-0x3f8, *b)
		default:
			*b = u.read(x.Port - 0x3f8)
		}
	}
}

func (u *uart) write(off uint16, b byte) {
	switch off {
	case 0:
		if u.lcr&0x80 != 0 {
			u.dll = b
			return
		}
		u.out = append(u.out, b)
		os.Stdout.Write([]byte{b})
	case 1:
		if u.lcr&0x80 == 0 {
			u.ier = b
		}
	case 3:
		u.lcr = b
	case 4:
		u.mcr = b
	case 7:
		u.scr = b
	}
	if off <= 1 && u.ier&2 != 0 {
		_ = u.irq()
	}
}

func (u *uart) read(off uint16) byte {
	switch off {
	case 0:
		if u.lcr&0x80 != 0 {
			return u.dll
		}
		return 0
	case 1:
		if u.lcr&0x80 == 0 {
			return u.ier
		}
		return 0
	case 2:
		if u.ier&2 != 0 {
			return 0xc2
		}
		return 0xc1
	case 3:
		return u.lcr
	case 4:
		return u.mcr
	case 5:
		return 0x60
	case 6:
		return 0xb0
	case 7:
		return u.scr
	}
	return 0
}

// loadLinux lays out a kernel as the 64-bit boot protocol says (boot.rst).
func loadLinux(t *testing.T, g *memory.Guest, kernel, initrd, cmdline string) (x86.Regs, func(*x86.Sregs)) {
	t.Helper()
	f, err := elf.Open(kernel)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ram := g.Regions()[0].Bytes
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			if _, err := p.ReadAt(ram[p.Paddr:p.Paddr+p.Filesz], 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	le := binary.LittleEndian
	zero := ram[0x7000:0x8000]
	if initrd != "" {
		b, err := os.ReadFile(initrd)
		if err != nil {
			t.Fatal(err)
		}
		at := (len(ram) - len(b) - 4096) &^ 4095
		copy(ram[at:], b)
		le.PutUint32(zero[0x218:], uint32(at))
		le.PutUint32(zero[0x21c:], uint32(len(b)))
	}
	copy(ram[0x20000:], cmdline)
	le.PutUint16(zero[0x1fe:], 0xaa55)
	copy(zero[0x202:], "HdrS")
	zero[0x210] = 0xff
	le.PutUint32(zero[0x228:], 0x20000)
	le.PutUint32(zero[0x238:], uint32(len(cmdline)))
	zero[0x1e8] = 2
	for i, e := range [][2]uint64{{0, 0x9fc00}, {0x100000, uint64(len(ram)) - 0x100000}} {
		le.PutUint64(zero[0x2d0+20*i:], e[0])
		le.PutUint64(zero[0x2d8+20*i:], e[1])
		le.PutUint32(zero[0x2e0+20*i:], 1)
	}
	le.PutUint64(ram[0x9000:], 0xa003)
	le.PutUint64(ram[0xa000:], 0xb003)
	for i := range uint64(512) {
		le.PutUint64(ram[0xb000+8*i:], i<<21|0x83)
	}
	le.PutUint64(ram[0x510:], 0x00af9b000000ffff)
	le.PutUint64(ram[0x518:], 0x00cf93000000ffff)
	return x86.Regs{RIP: f.Entry, RSP: 0x8ff0, RSI: 0x7000, RFLAGS: 2}, func(s *x86.Sregs) {
		s.CR0, s.CR3, s.CR4, s.EFER = 0x80050033, 0x9000, x86.CR4PAE, x86.EFERLME|x86.EFERLMA
		s.GDT = x86.DTable{Base: 0x500, Limit: 0x1f}
		s.CS = x86.Segment{Limit: ^uint32(0), Selector: 0x10, Type: 11, Present: 1, S: 1, L: 1, G: 1}
		data := x86.Segment{Limit: ^uint32(0), Selector: 0x18, Type: 3, Present: 1, S: 1, DB: 1, G: 1}
		s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	}
}
