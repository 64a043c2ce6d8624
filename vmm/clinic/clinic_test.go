//go:build linux && amd64

package clinic_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/clinic"
	"github.com/vitrine-vmm/vitrine/vmm/vmtest"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// broken are guests that end in a triple fault, and what the report must say.
var broken = []struct {
	name  string
	mode  vmtest.Mode
	code  []byte
	setUp func(g *vmtest.Guest)
	want  []string
}{
	{"no IDT", vmtest.Kernel64, []byte{0x0f, 0x0b}, // ud2
		func(g *vmtest.Guest) { g.Sregs().IDT = x86.DTable{} },
		[]string{"UD2", "the IDT at 0x0 has limit 0x0: no entry for vector 6", "#DF double fault cannot be delivered", "there is no IDT", "64-bit mode", "→ 0x100000: 0f 0b"}},
	{"an IDT without its entry", vmtest.Kernel64, []byte{0xcd, 0x03}, // int 3
		func(g *vmtest.Guest) { clear(g.RAM[vmtest.IDT : vmtest.IDT+16*32]) },
		[]string{"INT 3", "IDT entry 3 is empty", "IDT entry 8 is empty"}},
	{"a gate that is not present", vmtest.Kernel64, []byte{0x0f, 0x0b},
		func(g *vmtest.Guest) {
			for v := range 32 {
				g.RAM[vmtest.IDT+16*v+5] &^= 0x80
			}
		},
		[]string{"IDT entry 6 is not present", "IDT entry 8 is not present"}},
	{"bad CR3", vmtest.Kernel64, []byte{0x0f, 0x22, 0xd8, 0x90}, // mov cr3, rax
		nil,
		[]string{"CR3 0x7ffff000 points outside guest memory", "cannot be fetched", "#PF"}},
	{"non-canonical RIP", vmtest.Kernel64, []byte{0xff, 0xe0}, // jmp rax
		func(g *vmtest.Guest) { g.Sregs().IDT.Limit = 0 },
		[]string{"0x8000000000000000", "not canonical", "#GP", "no entry for vector 13"}},
	{"non-canonical return", vmtest.Kernel64, []byte{0x50, 0xc3}, // push rax; ret
		func(g *vmtest.Guest) { g.Sregs().IDT.Limit = 0 },
		[]string{"0x8000000000000000", "not canonical", "#GP", "no entry for vector 13"}},
	{"bad GDT", vmtest.Kernel64, []byte{0x0f, 0x0b},
		func(g *vmtest.Guest) { g.Sregs().GDT.Limit = 7 },
		[]string{"selector 0x8 of IDT entry 6 is beyond the GDT at 0x1000 with limit 0x7", "CS is 0x8, beyond the GDT's limit"}},
	{"a GDT that is not there", vmtest.Kernel64, []byte{0x0f, 0x0b},
		func(g *vmtest.Guest) { g.Sregs().GDT.Base = 0x40_0000_0000 },
		[]string{"GDT entry 0x8 is at 0x4000000008, which cannot be read: not present"}},
	{"a code segment that is data", vmtest.Kernel64, []byte{0x0f, 0x0b},
		func(g *vmtest.Guest) { binary.LittleEndian.PutUint64(g.RAM[vmtest.GDT+8:], 0x00cf93000000ffff) },
		[]string{"names no code segment"}},
	{"no stack", vmtest.Kernel64, []byte{0x50}, // push rax
		func(g *vmtest.Guest) { g.Sregs().SS.Base = 0 },
		[]string{"PUSH at RIP stores to the stack at 0x300ff8, which cannot be written: not present", "the stack at"}},
	{"a wild pointer without handlers", vmtest.Kernel64, []byte{0x48, 0x8b, 0x03}, // mov rax, [rbx]
		func(g *vmtest.Guest) { g.Sregs().IDT.Limit = 0 },
		[]string{"MOV at RIP uses the address 0x30000010: not present", "#PF", "no entry for vector 14"}},
	{"no IDT in 32-bit mode", vmtest.Kernel32, []byte{0x0f, 0x0b},
		func(g *vmtest.Guest) { g.Sregs().IDT.Limit = 0 },
		[]string{"32-bit protected mode", "no entry for vector 6"}},
	{"a division by zero without handlers", vmtest.Kernel32, []byte{0xf7, 0xf1}, // div ecx
		func(g *vmtest.Guest) { g.Sregs().IDT.Limit = 0 },
		[]string{"divides by zero: #DE"}},
}

func TestTripleFaults(t *testing.T) {
	for _, accel := range []vmtest.Accel{vmtest.KVM, vmtest.Soft} {
		for _, c := range broken {
			t.Run(accel.String()+"/"+c.name, func(t *testing.T) {
				g := vmtest.New(t, accel, c.mode)
				if c.setUp != nil {
					c.setUp(g)
				}
				r := x86.Regs{RAX: 0x7ffff000, RBX: 0x30000010}
				switch c.name {
				case "non-canonical RIP", "non-canonical return":
					r.RAX = 1 << 63
				case "no stack":
					r.RSP = vmtest.Absent + 0x1000
				}
				if c.name == "no stack" { // the page below it too
					binary.LittleEndian.PutUint64(g.RAM[vmtest.PML4+0x4000+8*0x100:], 0)
				}
				end := g.Run(c.code, r)
				if c.name == "a code segment that is data" && end.Vector == x86.VectorUD {
					t.Skip("this host's KVM delivers through any descriptor")
				}
				if end.Exit.Reason != x86.ExitShutdown {
					t.Fatalf("the guest ended by %v, vector %d", end.Exit.Reason, end.Vector)
				}
				report := clinic.TripleFault(state(t, g)).String()
				for _, w := range c.want {
					if !strings.Contains(report, w) {
						t.Errorf("no %q in the report:\n%s", w, report)
					}
				}
				if t.Failed() || testing.Verbose() {
					t.Log(report)
				}
			})
		}
	}
}

func state(t *testing.T, g *vmtest.Guest) clinic.State {
	t.Helper()
	r, err := g.CPU.Regs()
	if err != nil {
		t.Fatal(err)
	}
	s, err := g.CPU.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	return clinic.State{Regs: r, Sregs: s, Mem: g.Mem}
}
