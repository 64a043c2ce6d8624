package softcpu

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// fetch, read and write are the accesses of the protection matrix.
const (
	matrixRead = iota
	matrixWrite
	matrixFetch
)

// matrixCase is one combination of what protection depends on.
type matrixCase struct {
	present, user, write, nx bool // of the page
	cpl3, wp, smep, smap, ac bool // of the CPU
	access                   int
}

// faults is SDM vol. 3, 4.6.1, "Determination of Access Rights", said again in
// another way than the code under test does, and 4.7 for the error code.
func (m *matrixCase) faults() (fault bool, code uint32) {
	allowed := true
	if m.cpl3 {
		allowed = m.user && (m.access != matrixWrite || m.write) && (m.access != matrixFetch || !m.nx)
	} else {
		switch m.access {
		case matrixRead:
			allowed = !m.user || !m.smap || m.ac
		case matrixWrite:
			allowed = (!m.user || !m.smap || m.ac) && (m.write || !m.wp)
		case matrixFetch:
			allowed = !m.nx && (!m.user || !m.smep)
		}
	}
	if m.present && allowed {
		return false, 0
	}
	if m.present {
		code |= x86.PFPresent
	}
	if m.access == matrixWrite {
		code |= x86.PFWrite
	}
	if m.cpl3 {
		code |= x86.PFUser
	}
	if m.access == matrixFetch {
		code |= x86.PFFetch // NX or SMEP is on in every case
	}
	return true, code
}

func TestProtectionMatrix(t *testing.T) {
	b := newBare(t, Options{}, 1)
	programs := []string{"8a 03 e6 80", "88 03 e6 80", "ff e3"} // mov al,[rbx]; mov [rbx],al; jmp rbx
	for i, p := range programs {
		b.code(bareCode+i*16, p)
	}
	const ptes = barePT + 8*(barePage>>12)
	n := 0
	for bits := range 1 << 9 {
		bit := func(k int) bool { return bits>>k&1 != 0 }
		for access := range 3 {
			m := matrixCase{bit(0), bit(1), bit(2), bit(3), bit(4), bit(5), bit(6), bit(7), bit(8), access}
			b.matrix(&m, ptes)
			n++
		}
	}
	if n != 1536 {
		t.Errorf("%d cases", n)
	}
}

func (b *bare) matrix(m *matrixCase, pte int) {
	b.t.Helper()
	entry := uint64(barePage)
	for _, e := range []struct {
		on  bool
		bit uint64
	}{{m.present, ptePresent}, {m.user, pteUser}, {m.write, pteWrite}, {m.nx, pteNX}} {
		if e.on {
			entry |= e.bit
		}
	}
	b.put64(pte, entry)
	b.code(barePage, "e6 80")
	rip := uint64(bareCode + 16*m.access)
	// The code is the user's or the supervisor's own: SMEP and SMAP see only
	// the page.
	owner := uint64(bareCode | ptePresent | pteWrite)
	cpl := uint8(0)
	if m.cpl3 {
		owner, cpl = owner|pteUser, 3
	}
	b.put64(barePT+8*(bareCode>>12), owner)
	b.start(cpl, rip, func(s *x86.Sregs) {
		if !m.wp {
			s.CR0 &^= x86.CR0WP
		}
		if m.smep {
			s.CR4 |= x86.CR4SMEP
		}
		if m.smap {
			s.CR4 |= x86.CR4SMAP
		}
	})
	// SMAP concerns the supervisor's accesses to the handler's stack too:
	// both stacks are the supervisor's.
	for _, page := range []int{bareStack - 0x1000, bareUser - 0x1000, bareGDT, bareIDT, bareTSS, bareStubs} {
		b.put64(barePT+8*(page>>12), uint64(page)|ptePresent|pteWrite)
	}
	r := x86.Regs{RIP: rip, RSP: bareUser, RBX: barePage, RFLAGS: x86.Flag1 | x86.FlagIOPL}
	if m.ac {
		r.RFLAGS |= x86.FlagAC
	}
	b.regs(&r)
	fault, code := m.faults()
	port := b.port()
	name := fmt.Sprintf("%+v", *m)
	switch {
	case !fault && port != 0x80:
		b.t.Fatalf("%s: vector %#x, want none", name, port)
	case fault && port != vectorPF:
		b.t.Fatalf("%s: port %#x, want #PF", name, port)
	case fault:
		got, ip := b.frame(true)
		s, _ := b.cpu[0].Sregs()
		where := rip
		if m.access == matrixFetch {
			where = barePage
		}
		if got != code || s.CR2 != barePage || ip != where {
			b.t.Fatalf("%s: error code %#x at %#x for %#x, want %#x at %#x", name, got, ip, s.CR2, code, where)
		}
	}
	after := binary.LittleEndian.Uint64(b.ram[pte:])
	want := entry
	if !fault {
		want |= pteAccessed
		if m.access == matrixWrite {
			want |= pteDirty
		}
	}
	if after != want {
		b.t.Fatalf("%s: entry %#x became %#x, want %#x", name, entry, after, want)
	}
}

func TestReservedBitsFault(t *testing.T) {
	for _, c := range []struct {
		name  string
		at    int
		entry uint64
	}{
		{"page", barePT + 8*(barePage>>12), barePage | 1<<45 | 7},
		{"page directory", barePML4 + 0x2008, 1<<50 | 7},
		{"large page not aligned", barePML4 + 0x2008, barePage | 1<<14 | pteLarge | 7},
		{"large bit in PML4", barePML4, barePML4 + 0x1000 | pteLarge | 7},
	} {
		b := newBare(t, Options{}, 1)
		b.code(bareCode, "8a 03 e6 80")
		b.start(0, bareCode, nil)
		b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RFLAGS: 2})
		b.put64(c.at, c.entry)
		if c.at == barePML4 { // nothing can be fetched either
			if x := b.run(); x.Reason != x86.ExitShutdown {
				t.Errorf("%s: exit %v, want a triple fault", c.name, x.Reason)
			}
			continue
		}
		b.wantPort(vectorPF)
		if code, _ := b.frame(true); code != x86.PFPresent|x86.PFRsvd {
			t.Errorf("%s: error code %#x", c.name, code)
		}
	}
}

// TestLargePages reads through pages of 2 MiB and 1 GiB, then splits one:
// INVLPG must drop every piece.
func TestLargePages(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.ram[barePage+0x1234], b.ram[0x401234] = 0x11, 0x22
	b.put64(barePML4+0x2008, barePage|pteLarge|7)
	// mov al,[rbx]; out 0x80,al; mov [rdi],rsi; invlpg [rcx]; mov al,[rbx]; out 0x81,al
	b.code(bareCode, "8a 03 e6 80 48 89 37 0f 01 39 8a 03 e6 81")
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage + 0x1234, RCX: barePage + 0x1ff000,
		RDI: barePML4 + 0x2008, RSI: 0x400000 | pteLarge | 7, RFLAGS: 2})
	b.wantPort(0x80)
	if r := b.get(); r.RAX&0xff != 0x11 {
		t.Fatalf("read %#x through the large page", r.RAX)
	}
	b.wantPort(0x81)
	if r := b.get(); r.RAX&0xff != 0x22 {
		t.Errorf("read %#x after the page moved, want 0x22", r.RAX)
	}
}

// TestGlobalPagesSurviveCR3 changes a global and a local page, reloads CR3 and
// reads both: only the local one is looked up anew.
func TestGlobalPagesSurviveCR3(t *testing.T) {
	b := newBare(t, Options{}, 1)
	const other = barePage + 0x1000
	b.ram[barePage], b.ram[other], b.ram[barePage+0x2000] = 1, 2, 3
	b.put64(barePT+8*(barePage>>12), barePage|7|pteGlobal)
	// mov al,[rbx]; mov ah,[rcx]; mov [rdi],rsi; mov [rdi+8],rsi;
	// mov rdx,cr3; mov cr3,rdx; mov al,[rbx]; mov ah,[rcx]; out 0x80,al
	b.code(bareCode, "8a 03 8a 21 48 89 37 48 89 77 08 0f 20 da 0f 22 da 8a 03 8a 21 e6 80")
	b.start(0, bareCode, func(s *x86.Sregs) { s.CR4 |= x86.CR4PGE })
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RCX: other,
		RDI: barePT + 8*(barePage>>12), RSI: (barePage + 0x2000) | 7 | pteGlobal, RFLAGS: 2})
	b.wantPort(0x80)
	if r := b.get(); r.RAX&0xffff != 0x0301 {
		t.Errorf("read %#x, want 1 of the global page and 3 of the other", r.RAX&0xffff)
	}
}

// TestPageTablesNowhere points the paging structures at themselves, at MMIO
// and outside of memory: an exception or a triple fault, never more.
func TestPageTablesNowhere(t *testing.T) {
	for _, c := range []struct {
		name string
		cr3  uint64
		pml4 uint64
		want x86.ExitReason
	}{
		{"CR3 at MMIO", 0xd0000000, 0, x86.ExitShutdown},
		{"CR3 outside of memory", 0x7f_0000_0000, 0, x86.ExitShutdown},
		{"table at MMIO", barePML4, 0xfee00000 | 7, x86.ExitShutdown},
		{"table outside of memory", barePML4, 0x7f_0000_0000 | 7, x86.ExitShutdown},
		{"not present", barePML4, 0, x86.ExitShutdown},
	} {
		b := newBare(t, Options{}, 1)
		b.code(bareCode, "90 e6 80")
		b.put64(barePML4, c.pml4)
		b.start(0, bareCode, func(s *x86.Sregs) { s.CR3 = c.cr3 })
		if x := b.run(); x.Reason != c.want {
			t.Errorf("%s: exit %v, want %v", c.name, x.Reason, c.want)
		}
		if r := b.get(); r.RIP != bareCode {
			t.Errorf("%s: stopped at %#x, want where it gave up: %#x", c.name, r.RIP, bareCode)
		}
	}
}

// TestSelfReferencingTable reads the top-level table through its own entry.
func TestSelfReferencingTable(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.put64(barePML4+8*511, barePML4|7)
	b.code(bareCode, "48 8b 03 e6 80") // mov rax,[rbx]
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: ^uint64(0) - 7, RFLAGS: 2})
	b.wantPort(0x80)
	if r := b.get(); r.RAX&^(pteAccessed|pteDirty) != barePML4|7 {
		t.Errorf("read %#x, want the entry itself", r.RAX)
	}
}

// TestCodeChanges has a program overwrite the instruction behind it, in its own
// block and in another page.
func TestCodeChanges(t *testing.T) {
	b := newBare(t, Options{}, 1)
	// mov byte [rip+1],0x81; out 0x80,al
	b.code(bareCode, "c6 05 01 00 00 00 81 e6 80 90")
	b.start(0, bareCode, nil)
	b.wantPort(0x81)

	// call rbx; mov byte [rbx+1],0x83; call rbx; the other page: out 0x82,al; ret
	b.code(bareCode+0x100, "ff d3 c6 43 01 83 ff d3")
	b.code(barePage, "e6 82 c3")
	b.regs(&x86.Regs{RIP: bareCode + 0x100, RSP: bareUser, RBX: barePage, RFLAGS: 2})
	b.wantPort(0x82)
	b.wantPort(0x83)
}

// TestDeviceChangesCode is a device's write to a page with decoded code.
func TestDeviceChangesCode(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "e6 80 eb fc") // out 0x80,al; jmp back
	b.start(0, bareCode, nil)
	b.wantPort(0x80)
	b.wantPort(0x80)
	if err := b.vm.mem.WriteAt([]byte{0x81}, bareCode+1); err != nil {
		t.Fatal(err)
	}
	b.wantPort(0x81)
}
