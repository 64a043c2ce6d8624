//go:build linux && amd64

package vmtest_test

import (
	"encoding/binary"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/vmtest"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

func everywhere(t *testing.T, modes []vmtest.Mode, f func(t *testing.T, g *vmtest.Guest)) {
	for _, a := range []vmtest.Accel{vmtest.KVM, vmtest.Soft} {
		for _, m := range modes {
			t.Run(a.String()+"/"+m.String(), func(t *testing.T) { f(t, vmtest.New(t, a, m)) })
		}
	}
}

var (
	allModes  = []vmtest.Mode{vmtest.Real, vmtest.Kernel32, vmtest.Kernel64, vmtest.User64}
	longModes = []vmtest.Mode{vmtest.Kernel64, vmtest.User64}
)

func TestCodeRunsToItsEnd(t *testing.T) {
	everywhere(t, allModes, func(t *testing.T, g *vmtest.Guest) {
		for i := range 3 { // the same guest again and again
			end := g.Run([]byte{0x01, 0xc8, 0x01, 0xc8}, x86.Regs{RAX: 1, RCX: uint64(i)}) // add eax, ecx, twice
			if end.Vector != vmtest.Finished || end.Regs.RAX != 1+2*uint64(i) || end.Regs.RIP != g.Entry()+4 {
				t.Fatalf("%+v", end)
			}
		}
	})
}

func TestExceptions(t *testing.T) {
	everywhere(t, allModes, func(t *testing.T, g *vmtest.Guest) {
		end := g.Run([]byte{0x90, 0xf7, 0xf1}, x86.Regs{RAX: 1, RSP: g.Stack() - 16}) // div ecx
		if end.Vector != x86.VectorDE || end.Regs.RIP != g.Entry()+1 {
			t.Errorf("%+v", end)
		}
		if g.Mode != vmtest.Real && end.Regs.RSP != g.Stack()-16 && g.Mode != vmtest.Kernel32 {
			t.Errorf("RSP %#x", end.Regs.RSP)
		}
		end = g.Run([]byte{0xcc}, x86.Regs{})
		if end.Vector != x86.VectorBP || end.Regs.RIP != g.Entry()+1 {
			t.Errorf("int3: %+v", end)
		}
	})
}

func TestPageFaults(t *testing.T) {
	everywhere(t, longModes, func(t *testing.T, g *vmtest.Guest) {
		user := uint32(0)
		if g.Mode == vmtest.User64 {
			user = x86.PFUser
		}
		load, store := []byte{0x8b, 0x03}, []byte{0x89, 0x03} // eax, [rbx]
		end := g.Run(load, x86.Regs{RBX: vmtest.Absent + 8})
		if end.Vector != x86.VectorPF || end.CR2 != vmtest.Absent+8 || end.Code != user {
			t.Errorf("absent: %+v", end)
		}
		end = g.Run(store, x86.Regs{RBX: vmtest.ReadOnly})
		if end.Vector != x86.VectorPF || end.Code != user|x86.PFPresent|x86.PFWrite {
			t.Errorf("read-only: %+v", end)
		}
		end = g.Run(load, x86.Regs{RBX: vmtest.Kernel})
		if (end.Vector == x86.VectorPF) != (user != 0) {
			t.Errorf("a kernel page: %+v", end)
		}
	})
}

// TestSoftwareInterrupt: INT n is completed in protected mode where the host
// emulates it.
func TestSoftwareInterrupt(t *testing.T) {
	everywhere(t, []vmtest.Mode{vmtest.Kernel32, vmtest.Kernel64}, func(t *testing.T, g *vmtest.Guest) {
		end := g.Run([]byte{0xcd, 0x14}, x86.Regs{}) // a vector without an error code
		if end.Vector != 0x14 || end.Regs.RIP != g.Entry()+2 {
			t.Errorf("%+v", end)
		}
		end = g.Run([]byte{0xcd, 0x80}, x86.Regs{}) // beyond the IDT of 32 entries
		if g.Mode == vmtest.Kernel64 && (end.Vector != x86.VectorGP || end.Code != 0x80<<3|2 || end.Regs.RIP != g.Entry()) {
			t.Errorf("%+v", end)
		}
	})
}

// TestSyscall enters a kernel by SYSCALL. Its page-fault handler begins with
// CLAC, as every kernel's does that knows SMAP: there the VMM recognises a
// SYSCALL on hosts where it arrives as a page fault.
func TestSyscall(t *testing.T) {
	everywhere(t, []vmtest.Mode{vmtest.User64}, func(t *testing.T, g *vmtest.Guest) {
		const high = 0xffff_ff80_0000_0000
		const lstar = high | vmtest.Kernel
		copy(g.RAM[vmtest.PML4+511*8:], g.RAM[vmtest.PML4:vmtest.PML4+8])
		copy(g.RAM[vmtest.Kernel:], []byte{0xe6, 0x77, 0xf4}) // out 0x77, al; hlt
		handler := vmtest.IDT + 16*x86.VectorPF
		at := binary.LittleEndian.Uint16(g.RAM[handler:])
		copy(g.RAM[at:], []byte{0x0f, 0x01, 0xca, 0xe6, x86.VectorPF, 0xf4}) // clac; out 14, al
		g.Sregs().CR4 |= x86.CR4SMAP
		if err := g.CPU.SetMSRs([]x86.MSR{{Index: x86.MSRLSTAR, Data: lstar}, {Index: x86.MSRSTAR, Data: 0x0010<<48 | vmtest.KernelCode64<<32},
			{Index: x86.MSRSyscallMask, Data: x86.FlagIF | x86.FlagCF}}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			end := g.Run([]byte{0x0f, 0x05}, x86.Regs{RFLAGS: x86.FlagCF | x86.FlagZF | x86.FlagIF})
			r := end.Regs
			s, err := g.CPU.Sregs()
			if err != nil {
				t.Fatal(err)
			}
			if end.Exit.Port != 0x77 || r.RIP&^3 != lstar&^3 || r.RSP != g.Stack() || r.RCX != g.Entry()+2 ||
				r.R11&^x86.FlagRF != x86.Flag1|x86.FlagCF|x86.FlagZF|x86.FlagIF || r.RFLAGS&(x86.FlagCF|x86.FlagIF) != 0 || r.RFLAGS&x86.FlagZF == 0 {
				t.Fatalf("%+v", end)
			}
			// Where the VMM completes SYSCALL it may leave SS null, as the
			// exception has made it.
			if s.CPL() != 0 || s.CS.Selector != vmtest.KernelCode64 || s.SS.Selector != vmtest.KernelData && s.SS.Selector != 0 {
				t.Fatalf("CS %+v SS %+v", s.CS, s.SS)
			}
		}
		// A jump to where nobody may execute stays a fault.
		end := g.Run([]byte{0xff, 0xe0}, x86.Regs{RAX: high | vmtest.Kernel | 0x100})
		if end.Vector != x86.VectorPF || end.CR2 != lstar|0x100 {
			t.Errorf("%+v", end)
		}
	})
}

// TestInvpcid: a translation that has changed is forgotten.
func TestInvpcid(t *testing.T) {
	everywhere(t, []vmtest.Mode{vmtest.Kernel64}, func(t *testing.T, g *vmtest.Guest) {
		entry := uint64(vmtest.PML4 + 0x4000 + 8*0x100) // of vmtest.Absent
		g.RAM[vmtest.Data] = 0x11
		g.RAM[vmtest.Data+0x1000] = 0x22
		binary.LittleEndian.PutUint64(g.RAM[entry:], vmtest.Data|0x67)
		code := []byte{
			0x8a, 0x03, // mov al, [rbx]
			0x48, 0x89, 0x11, // mov [rcx], rdx: the new entry
			0x66, 0x0f, 0x38, 0x82, 0x37, // invpcid rsi, [rdi]
			0x8a, 0x23, // mov ah, [rbx]
		}
		end := g.Run(code, x86.Regs{RBX: vmtest.Absent, RCX: entry, RDX: vmtest.Data + 0x1000 | 0x67, RSI: 2, RDI: vmtest.Data + 0x800})
		if g.Accel == vmtest.Soft && end.Vector == x86.VectorUD {
			t.Skip("this software CPU has no INVPCID")
		}
		if end.Vector != vmtest.Finished || end.Regs.RAX != 0x2211 {
			t.Errorf("vector %d, RAX %#x", end.Vector, end.Regs.RAX)
		}
	})
}
