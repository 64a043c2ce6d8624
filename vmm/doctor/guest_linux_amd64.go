package doctor

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// tinyGuest is one vCPU in 32-bit protected mode at CPL 0, without paging.
type tinyGuest struct {
	vm  *kvm.VM
	mem *memory.Guest
	cpu *kvm.VCPU
}

const codeAddr = 0x1000

func newTinyGuest(sys *kvm.System, code []byte, cpuid []x86.CPUIDEntry) (*tinyGuest, error) {
	vm, err := sys.CreateVM()
	if err != nil {
		return nil, err
	}
	g := &tinyGuest{vm: vm}
	if err := g.fill(code, cpuid); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (g *tinyGuest) fill(code []byte, cpuid []x86.CPUIDEntry) (err error) {
	if g.mem, err = memory.New(64 << 10); err != nil {
		return err
	}
	if err := g.mem.WriteAt(code, codeAddr); err != nil {
		return err
	}
	if err := g.vm.MapMemory(g.mem); err != nil {
		return err
	}
	if g.cpu, err = g.vm.CreateVCPU(0, cpuid); err != nil {
		return err
	}
	s, err := g.cpu.Sregs()
	if err != nil {
		return err
	}
	s.CS = x86.Segment{Limit: ^uint32(0), Selector: 8, Type: 11, Present: 1, S: 1, DB: 1, G: 1}
	data := x86.Segment{Limit: ^uint32(0), Selector: 16, Type: 3, Present: 1, S: 1, DB: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.CR0 |= x86.CR0PE
	if err := g.cpu.SetSregs(&s); err != nil {
		return err
	}
	return g.cpu.SetRegs(&x86.Regs{RIP: codeAddr, RFLAGS: x86.Flag1})
}

func (g *tinyGuest) close() {
	if g.cpu != nil {
		_ = g.cpu.Close()
	}
	_ = g.vm.Close()
	if g.mem != nil {
		_ = g.mem.Close()
	}
}

// untilOut runs until the guest writes a port.
func (g *tinyGuest) untilOut() error {
	for {
		x, err := g.cpu.Run()
		switch {
		case err != nil:
			return err
		case x.Reason == x86.ExitIO:
			return nil
		case x.Reason != x86.ExitInterrupted:
			return fmt.Errorf("a guest of three instructions ended with exit %v", x.Reason)
		}
	}
}

// kernelSpeed measures a loop of two instructions at CPL 0, in nanoseconds an
// iteration. Few iterations are enough to tell an emulator; on hardware the
// exit's own cost would drown them, so it goes on with more.
func kernelSpeed(sys *kvm.System) (float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		return 0, err
	}
	var ns float64
	for _, n := range []uint32{2_000, 2_000_000} {
		code := []byte{
			0xb9, 0, 0, 0, 0, // mov ecx, n
			0xe6, 0x80, // out 0x80, al
			0x49,       // dec ecx
			0x75, 0xfd, // jnz -1
			0xe6, 0x80, // out 0x80, al
		}
		binary.LittleEndian.PutUint32(code[1:], n)
		if ns, err = timeLoop(sys, code, cpuid, n); err != nil || ns > emulatedAbove {
			return ns, err
		}
	}
	return ns, nil
}

func timeLoop(sys *kvm.System, code []byte, cpuid []x86.CPUIDEntry, n uint32) (float64, error) {
	g, err := newTinyGuest(sys, code, cpuid)
	if err != nil {
		return 0, err
	}
	defer g.close()
	if err := g.untilOut(); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := g.untilOut(); err != nil {
		return 0, err
	}
	return float64(time.Since(start)) / float64(n), nil
}

// masksTaken clears a feature bit that the host has and asks the guest's CPUID
// instruction whether it is gone.
func masksTaken(sys *kvm.System) (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		return false, err
	}
	const popcnt = 1 << 23 // leaf 1, ECX
	for i := range cpuid {
		if cpuid[i].Function == 1 {
			cpuid[i].ECX &^= popcnt
		}
	}
	g, err := newTinyGuest(sys, []byte{
		0xb8, 1, 0, 0, 0, // mov eax, 1
		0x31, 0xc9, // xor ecx, ecx
		0x0f, 0xa2, // cpuid
		0xe6, 0x80, // out 0x80, al
	}, cpuid)
	if err != nil {
		return false, err
	}
	defer g.close()
	if err := g.untilOut(); err != nil {
		return false, err
	}
	r, err := g.cpu.Regs()
	return r.RCX&popcnt == 0, err
}
