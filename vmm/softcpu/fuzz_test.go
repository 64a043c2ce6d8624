package softcpu

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// fuzzSteps bounds a program, in instructions.
const fuzzSteps = 20_000

// exitsPerInstruction bounds the accesses of one instruction to devices: the
// legacy and extended areas of an XSAVE, in the smallest pieces.
const exitsPerInstruction = 1024

// fuzzMachine is a CPU whose memory is given, ended after fuzzSteps by a kick
// at the same instruction each time.
func fuzzMachine(t testing.TB, program []byte, mode uint8) *bare {
	b := newBare(t, Options{Deterministic: true}, 1)
	for at := 0x20000; at < bareCode; at += max(len(program), 1) {
		copy(b.ram[at:bareCode], program)
	}
	copy(b.ram[bareCode:], program)
	b.vm.turns.pitTick = func() { _ = b.cpu[0].Kick() }
	b.vm.turns.pitDue = fuzzSteps * ticksPerInstruction
	b.vm.turns.rearmed()
	switch mode & 3 {
	case 0: // real mode
		s, _ := b.cpu[0].Sregs()
		s.CS.Base, s.CS.Selector = 0x20000, 0x2000
		if err := b.cpu[0].SetSregs(&s); err != nil {
			t.Fatal(err)
		}
		b.regs(&x86.Regs{RSP: 0xfff0, RFLAGS: 2})
	case 1:
		b.segment32("", nil)
	case 2:
		b.start(0, bareCode, func(s *x86.Sregs) { s.CR4 |= x86.CR4OSXSAVE })
	default:
		b.start(3, bareCode, nil)
	}
	r := b.get()
	for n := range uint8(16) { // registers: pointers into memory, and the program
		if n != rSP && len(program) > 0 {
			*r.GPR(n) = uint64(program[int(n)%len(program)])<<12 | uint64(n)
		}
	}
	b.regs(&r)
	return b
}

// FuzzCode executes random memory: it must neither panic nor hang, whatever
// mode it begins in, nor differ when each instruction is looked at.
func FuzzCode(f *testing.F) {
	for mode := range uint8(8) {
		f.Add([]byte{0x90, 0xcd, 0x05, 0xf4}, mode)
		f.Add([]byte{0x48, 0x0f, 0xc7, 0x0b, 0xeb, 0xfa}, mode)                   // cmpxchg16b
		f.Add([]byte{0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0}, mode) // CR3, CR0
		f.Add([]byte{0xf3, 0xa4, 0xf3, 0x6f, 0xf3, 0xaa}, mode)
		f.Add([]byte{0x0f, 0x30, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x30}, mode) // WRMSR
		f.Add([]byte{0x0f, 0x01, 0x18, 0xcc, 0xcf}, mode)                // LIDT
		f.Add([]byte{0xff, 0xe4, 0xc6, 0x05}, mode)                      // jump to the stack
		f.Add([]byte{0x0f, 0x01, 0x18, 0xe2, 0xca, 0x75}, mode)          // LIDT, in a device
		f.Add([]byte{0x0f, 0xae, 0x00, 0x0f, 0xc7, 0x20, 0xd9, 0xf0}, mode)
		f.Add([]byte{0xea, 0, 0, 0x10, 0, 0x40, 0, 0x8e, 0xd8}, mode)
	}
	f.Fuzz(func(t *testing.T, program []byte, mode uint8) {
		if len(program) == 0 || len(program) > 1<<12 {
			return
		}
		b := fuzzMachine(t, program, mode)
		if mode&4 != 0 {
			b.cpu[0].OnInstruction(func(uint64, []byte) {})
		}
		// A program may reprogram the timer that ends it, and halt.
		late := time.AfterFunc(200*time.Millisecond, func() { _ = b.cpu[0].Kick() })
		defer late.Stop()
		for exits := 0; exits < 4*fuzzSteps; exits++ {
			x := b.run()
			switch x.Reason {
			case x86.ExitIO, x86.ExitMMIO:
				if !x.Write {
					for i := range x.Data {
						x.Data[i] = program[(exits+i)%len(program)]
					}
				}
			case x86.ExitInterrupted, x86.ExitShutdown:
				return
			default:
				t.Fatalf("exit %v", x.Reason)
			}
		}
		// A program may speak to a device for as long as it likes, and one ENTER
		// or XRSTOR with its operand in one exits many times; but each ends.
		if done := b.cpu[0].Instructions(); done < 4*fuzzSteps/exitsPerInstruction {
			t.Fatalf("%d exits are %d instructions", 4*fuzzSteps, done)
		}
	})
}

// FuzzPageTables translates addresses through random paging structures.
func FuzzPageTables(f *testing.F) {
	f.Add([]byte{7, 0x20, 1, 0, 0, 0, 0, 0}, uint64(0x1234), uint8(0))
	f.Add([]byte{0x87, 0, 0xd0, 0xfe, 0, 0, 0, 0x80}, uint64(0xffff800000001234), uint8(5))
	f.Add([]byte{0xe7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, ^uint64(0), uint8(9))
	f.Fuzz(func(t *testing.T, tables []byte, addr uint64, how uint8) {
		if len(tables) < 8 {
			return
		}
		b := newBare(t, Options{}, 1)
		for at := barePML4; at < bareCode; at += len(tables) {
			copy(b.ram[at:bareCode], tables)
		}
		b.start(how&1*3, bareCode, func(s *x86.Sregs) {
			s.CR3 = barePML4 | binary.LittleEndian.Uint64(tables)&0xf000
			switch how >> 1 & 3 {
			case 0: // PAE
				s.EFER, s.CS.L, s.CS.DB = 0, 0, 1
			case 1: // 32-bit
				s.EFER, s.CS.L, s.CS.DB, s.CR4 = 0, 0, 1, x86.CR4PSE
			}
		})
		c := b.cpu[0].c
		for _, acc := range []access{0, accWrite, accFetch} {
			page, phys, ok := c.page(addr, acc)
			if !ok {
				if c.exc.vector != vectorPF && c.exc.vector != vectorGP {
					t.Fatalf("vector %d", c.exc.vector)
				}
				continue
			}
			if (page != nil) != (phys < bareMemory) {
				t.Fatalf("physical %#x: RAM %v", phys, page != nil)
			}
		}
		for size := uint8(1); size <= 8; size *= 2 {
			c.io.reset()
			if v, ok := c.load(addr, size); ok {
				c.io.reset()
				c.store(addr, size, v)
			}
			c.io.pending, c.stop = false, stopNone
		}
	})
}

// FuzzXSave takes XSAVE areas as they come from files.
func FuzzXSave(f *testing.F) {
	f.Add(make([]byte, xsaveSize))
	f.Fuzz(func(t *testing.T, area []byte) {
		g := memory.NewEmpty()
		vm, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer vm.Close()
		if err := vm.MapMemory(g); err != nil {
			t.Fatal(err)
		}
		v, err := vm.CreateVCPU(0, cpuidModel())
		if err != nil {
			t.Fatal(err)
		}
		if v.SetXSave(area) != nil {
			return
		}
		out := make([]byte, xsaveSize)
		if err := v.XSave(out); err != nil {
			t.Fatal(err)
		}
		if err := v.SetXSave(out); err != nil {
			t.Fatalf("what it gave is refused: %v", err)
		}
	})
}
