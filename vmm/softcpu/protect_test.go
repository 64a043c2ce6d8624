package softcpu

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// TestPrivilegedInstructions: each is #GP(0) at CPL 3.
func TestPrivilegedInstructions(t *testing.T) {
	b := newBare(t, Options{}, 1)
	for name, code := range map[string]string{
		"hlt": "f4", "cli": "fa", "sti": "fb", "in al,0x80": "e4 80", "out 0x80,al": "e6 80",
		"mov cr0,rax": "0f 22 c0", "mov rax,cr3": "0f 20 d8", "mov dr0,rax": "0f 23 c0", "mov rax,dr7": "0f 21 f8",
		"lgdt": "0f 01 13", "lidt": "0f 01 1b", "lldt": "0f 00 d0", "ltr": "0f 00 d8", "lmsw": "0f 01 f0",
		"clts": "0f 06", "invlpg": "0f 01 3b", "wbinvd": "0f 09", "invd": "0f 08", "rdmsr": "0f 32", "wrmsr": "0f 30",
		"swapgs": "0f 01 f8", "sysret": "48 0f 07", "xsetbv": "0f 01 d1", "rdpmc": "0f 33",
	} {
		b.code(bareCode, code+" 0f 0b")
		b.start(3, bareCode, func(s *x86.Sregs) { s.CR4 |= x86.CR4OSXSAVE })
		b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RFLAGS: 2})
		if p := b.port(); p != vectorGP {
			t.Errorf("%s at CPL 3: port %#x, want #GP", name, p)
			continue
		}
		if code, ip := b.frame(true); code != 0 || ip != bareCode {
			t.Errorf("%s at CPL 3: #GP(%#x) at %#x", name, code, ip)
		}
	}
}

func TestUMIP(t *testing.T) {
	b := newBare(t, Options{}, 1)
	for name, code := range map[string]string{"sgdt": "0f 01 03", "sidt": "0f 01 0b", "sldt": "0f 00 c0", "smsw": "0f 01 e0", "str": "0f 00 c8"} {
		for _, on := range []bool{false, true} {
			b.code(bareCode, code+" 0f 0b")
			b.start(3, bareCode, func(s *x86.Sregs) {
				if on {
					s.CR4 |= x86.CR4UMIP
				}
			})
			b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RFLAGS: 2})
			want := vectorUD
			if on {
				want = vectorGP
			}
			if p := b.port(); p != want {
				t.Errorf("%s at CPL 3, UMIP %v: vector %#x, want %#x", name, on, p, want)
			}
		}
	}
}

// TestIOPermissionBitmap: what a kernel allows and forbids by the bitmap of the
// TSS.
func TestIOPermissionBitmap(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "e6 90 e6 91")
	b.put64(bareTSS+0x60, 0x70<<48) // the bitmap's offset, at 102
	for i := range 0x40 {
		b.ram[bareTSS+0x70+i] = 0xff
	}
	b.ram[bareTSS+0x70+0x90/8] = 0xfe // port 0x90 alone
	b.start(3, bareCode, func(s *x86.Sregs) { s.TR.Limit = 0x100 })
	b.wantPort(0x90)
	b.wantPort(vectorGP)
	if _, ip := b.frame(true); ip != bareCode+2 {
		t.Errorf("#GP at %#x, want at the second OUT", ip)
	}
}

// TestGates64 checks gates of the IDT in long mode.
func TestGates64(t *testing.T) {
	const v = 0x50
	gate := uint64(bareStubs+16*v)&0xffff | selCode<<16 | 0xee<<40
	for _, c := range []struct {
		name   string
		lo     uint64
		vector int
		code   uint32
		limit  uint16
		insn   string
		cpl    uint8
	}{
		{"works", gate, v, 0, 0xfff, "cd 50", 3},
		{"DPL below CPL", gate &^ (3 << 45), vectorGP, v<<3 | 2, 0xfff, "cd 50", 3},
		{"not present", gate &^ (1 << 47), vectorNP, v<<3 | 2, 0xfff, "cd 50", 3},
		{"not a gate", gate&^(0xf<<40) | 9<<40, vectorGP, v<<3 | 2, 0xfff, "cd 50", 3},
		{"beyond the limit", gate, vectorGP, v<<3 | 2, v*16 + 14, "cd 50", 3},
		{"null selector", gate &^ (0xffff << 16), vectorGP, 0, 0xfff, "cd 50", 3},
		{"data segment", gate&^(0xffff<<16) | selData<<16, vectorGP, selData, 0xfff, "cd 50", 3},
		{"32-bit segment", gate&^(0xffff<<16) | selCode32<<16, vectorGP, selCode32, 0xfff, "cd 50", 3},
		{"beyond the GDT", gate&^(0xffff<<16) | 0x400<<16, vectorGP, 0x400, 0xfff, "cd 50", 3},
		{"INT3 needs DPL", gate, vectorBP, 0, 0xfff, "cc", 3},
	} {
		b := newBare(t, Options{}, 1)
		b.put64(bareIDT+16*v, c.lo)
		b.code(bareCode, c.insn)
		b.start(c.cpl, bareCode, func(s *x86.Sregs) { s.IDT.Limit = c.limit })
		if p := b.port(); p != c.vector {
			t.Errorf("%s: vector %#x, want %#x", c.name, p, c.vector)
			continue
		}
		if c.vector == vectorGP || c.vector == vectorNP {
			if code, ip := b.frame(true); code != c.code || ip != bareCode {
				t.Errorf("%s: error code %#x at %#x, want %#x at %#x", c.name, code, ip, c.code, bareCode)
			}
		}
	}
}

// TestInterruptStackTable: a gate with an IST entry switches stacks also
// without a change of privilege.
func TestInterruptStackTable(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.ram[bareIDT+16*vectorUD+4] = 2 // IST 2
	b.put64(bareTSS+0x24+8, 0x7a08)
	b.code(bareCode, "0f 0b")
	b.start(0, bareCode, nil)
	b.wantPort(vectorUD)
	if r := b.get(); r.RSP != 0x7a00-40 {
		t.Errorf("handler's stack at %#x, want %#x: aligned, five words down", r.RSP, 0x7a00-40)
	}
}

// segment32 is code in 32-bit protected mode without paging, with descriptors
// of its own.
func (b *bare) segment32(code string, edit func(*x86.Sregs)) {
	b.t.Helper()
	b.code(bareCode, code)
	for i, d := range []uint64{
		0x00cf9b000000ffff, // 0x40 code
		0x00cf93000000ffff, // 0x48 data
		0x0040930000000fff, // 0x50 data, 4 KiB
		0x00409100000000ff, // 0x58 read-only data
		0x00cf13000000ffff, // 0x60 data, not present
		0x0040990000000fff, // 0x68 execute-only code
		0x00cff3000000ffff, // 0x70 data, DPL 3
		0x0000890000000067 | bareTSS<<16,
		0x00c0970000000000 | 0x000f<<0, // 0x80 expand-down, from 64 KiB up
	} {
		b.put64(bareGDT+0x40+8*i, d)
	}
	for v := range uint64(32) { // gates of 8 bytes
		b.put64(bareIDT+8*int(v), (bareStubs+16*v)&0xffff|0x40<<16|0x8e<<40)
	}
	v := b.cpu[0]
	s, _ := v.Sregs()
	data := x86.Segment{Limit: ^uint32(0), Selector: 0x48, Type: 3, Present: 1, DB: 1, S: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.CS = x86.Segment{Limit: ^uint32(0), Selector: 0x40, Type: 11, Present: 1, DB: 1, S: 1, G: 1}
	s.CR0, s.CR4, s.EFER = x86.CR0PE|x86.CR0ET, 0, 0
	s.GDT, s.IDT = x86.DTable{Base: bareGDT, Limit: 0x8f}, x86.DTable{Base: bareIDT, Limit: 0xff}
	if edit != nil {
		edit(&s)
	}
	if err := v.SetSregs(&s); err != nil {
		b.t.Fatal(err)
	}
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: 0x2000, RFLAGS: 2})
}

// TestSegmentChecks is the checks of SDM vol. 3, chapter 5, in protected mode.
// Each program begins with mov eax, selector; mov ds, eax.
func TestSegmentChecks(t *testing.T) {
	load := func(sel string) string { return "b8 " + sel + " 00 00 00 8e d8 " }
	for _, c := range []struct {
		name, code string
		vector     int
		err        uint32
		at         uint64 // offset of the faulting instruction
	}{
		{"reads inside", load("50") + "8a 83 ff ef ff ff e6 80", 0x80, 0, 0},
		{"reads the last byte", load("50") + "a0 ff 0f 00 00 e6 80", 0x80, 0, 0},
		{"reads beyond the limit", load("50") + "a0 00 10 00 00", vectorGP, 0, 7},
		{"a word across the limit", load("50") + "66 a1 ff 0f 00 00", vectorGP, 0, 7},
		{"reads read-only", load("58") + "a0 10 00 00 00 e6 80", 0x80, 0, 0},
		{"writes read-only", load("58") + "a2 10 00 00 00", vectorGP, 0, 7},
		{"loads not present", load("60"), vectorNP, 0x60, 5},
		{"loads execute-only code", load("68"), vectorGP, 0x68, 5},
		{"loads a system segment", load("78"), vectorGP, 0x78, 5},
		{"loads beyond the GDT", load("90"), vectorGP, 0x90, 5},
		{"loads null", load("00") + "e6 80", 0x80, 0, 0},
		{"reads through null", load("00") + "8a 03", vectorGP, 0, 7},
		{"expand-down, below", load("80") + "a0 00 00 00 00", vectorGP, 0, 7},
		{"expand-down, above", load("80") + "a0 00 00 01 00 e6 80", 0x80, 0, 0},
		{"SS null", "31 c0 8e d0", vectorGP, 0, 2},
		{"SS read-only", "b8 58 00 00 00 8e d0", vectorGP, 0x58, 5},
		{"SS with another DPL", "b8 70 00 00 00 8e d0", vectorGP, 0x70, 5},
		{"SS not present", "b8 60 00 00 00 8e d0", vectorSS, 0x60, 5},
		{"stores to code", "2e a2 00 00 00 00", vectorGP, 0, 0},
		{"reads code", "2e a0 00 00 00 00 e6 80", 0x80, 0, 0},
		{"far jump to data", "ea 00 00 10 00 48 00", vectorGP, 0x48, 0},
		{"far jump to null", "ea 00 00 10 00 00 00", vectorGP, 0, 0},
		{"far jump works", "ea 00 00 20 00 40 00", 0x81, 0, 0},
		{"SYSCALL outside of long mode", "0f 05", vectorUD, 0, 0},
		{"no REX here", "48 e6 80", 0x80, 0, 0}, // dec eax; out
		{"BOUND", "c7 05 00 30 00 00 05 00 00 00 c7 05 04 30 00 00 06 00 00 00 b8 07 00 00 00 62 05 00 30 00 00", vectorBR, 0, 25},
		{"INTO", "b8 ff ff ff 7f 40 ce", vectorOF, 0, 0},
		{"divide by zero", "31 c9 f7 f1", vectorDE, 0, 2},
	} {
		b := newBare(t, Options{}, 1)
		b.code(barePage, "e6 81")
		b.segment32(c.code, nil)
		if p := b.port(); p != c.vector {
			t.Errorf("%s: port %#x, want %#x", c.name, p, c.vector)
			continue
		}
		var ip uint64
		switch c.vector {
		case vectorGP, vectorNP, vectorSS:
			r := b.get()
			err := uint32(b.ram[r.RSP]) | uint32(b.ram[r.RSP+1])<<8
			ip = uint64(b.ram[r.RSP+4]) | uint64(b.ram[r.RSP+5])<<8 | uint64(b.ram[r.RSP+6])<<16
			if err != c.err {
				t.Errorf("%s: error code %#x, want %#x", c.name, err, c.err)
			}
		case vectorBR, vectorDE, vectorUD:
			r := b.get()
			ip = uint64(b.ram[r.RSP]) | uint64(b.ram[r.RSP+1])<<8 | uint64(b.ram[r.RSP+2])<<16
		default:
			continue
		}
		if ip != bareCode+c.at {
			t.Errorf("%s: fault at +%d, want +%d", c.name, ip-bareCode, c.at)
		}
	}
}

// TestStackLimit: an access through EBP beyond SS's limit is #SS, not #GP.
func TestStackLimit(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.segment32("8b 45 00", func(s *x86.Sregs) { s.SS.Limit, s.SS.G = 0xffff, 0 })
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBP: 0x10000, RFLAGS: 2})
	b.wantPort(vectorSS)
}

// TestCodeLimit: execution runs off the end of CS.
func TestCodeLimit(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.segment32("90 90", func(s *x86.Sregs) { s.CS.Limit, s.CS.G = bareCode+1, 0 })
	b.wantPort(vectorGP)
}

// TestRealMode runs real-mode code up to the end of its segment.
func TestRealMode(t *testing.T) {
	b := newBare(t, Options{}, 1)
	v := b.cpu[0]
	for i := range 32 { // interrupt vectors: handlers that tell
		b.put64(4*i, 0)
		b.ram[4*i], b.ram[4*i+1] = byte(0x00), byte(0x40+i/16)
		b.ram[4*i] = byte(16 * i)
	}
	b.code(bareAP, "b8 34 12 50 5b e6 80 cd 05 e6 81") // mov ax; push ax; pop bx; out; int 5; out
	b.code(bareStubs+16*5, "e6 05 cf")                 // out 5,al; iret
	s, _ := v.Sregs()
	s.CS.Base, s.CS.Selector = 0, 0
	if err := v.SetSregs(&s); err != nil {
		t.Fatal(err)
	}
	b.regs(&x86.Regs{RIP: bareAP, RSP: bareUser, RFLAGS: 2})
	b.wantPort(0x80)
	if r := b.get(); r.RBX != 0x1234 {
		t.Errorf("rbx %#x", r.RBX)
	}
	b.wantPort(5)
	b.wantPort(0x81)
}

// TestTripleFault: no handler can be reached.
func TestTripleFault(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "90 0f 0b")
	b.start(0, bareCode, func(s *x86.Sregs) { s.IDT.Limit = 0 })
	if x := b.run(); x.Reason != x86.ExitShutdown {
		t.Fatalf("exit %v", x.Reason)
	}
	if r := b.get(); r.RIP != bareCode+1 {
		t.Errorf("rip %#x, want that of UD2", r.RIP)
	}
}

// TestDoubleFault: #NP while delivering #GP.
func TestDoubleFault(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.ram[bareIDT+16*vectorGP+5] &^= 0x80
	b.code(bareCode, "fa")
	b.start(3, bareCode, nil)
	b.wantPort(vectorDF)
	if code, ip := b.frame(true); code != 0 || ip != bareCode {
		t.Errorf("#DF(%#x) at %#x", code, ip)
	}
}

// TestSyscall goes to the kernel and back.
func TestSyscall(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "0f 05 fa")                 // syscall; cli (#GP: back at CPL 3)
	b.code(barePage, "e6 82 48 0f 07")           // out; sysret
	b.put64(barePT+8*(barePage>>12), barePage|3) // the kernel's
	b.start(3, bareCode, nil)
	if err := b.cpu[0].SetMSRs([]x86.MSR{{Index: x86.MSRLSTAR, Data: barePage},
		{Index: x86.MSRSTAR, Data: selCode<<32 | (selTSS-0x18)<<48}, {Index: x86.MSRSyscallMask, Data: x86.FlagIF | x86.FlagTF}}); err != nil {
		t.Fatal(err)
	}
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RFLAGS: x86.Flag1 | x86.FlagCF | x86.FlagIF})
	b.wantPort(0x82)
	r := b.get()
	if r.RCX != bareCode+2 || r.R11 != x86.Flag1|x86.FlagCF|x86.FlagIF || r.RFLAGS&x86.FlagIF != 0 {
		t.Errorf("rcx %#x r11 %#x flags %#x", r.RCX, r.R11, r.RFLAGS)
	}
	s, _ := b.cpu[0].Sregs()
	if s.CPL() != 0 || s.CS.Selector != selCode {
		t.Errorf("CPL %d, CS %#x in the kernel", s.CPL(), s.CS.Selector)
	}
	b.wantPort(vectorGP)
	if _, ip := b.frame(true); ip != bareCode+2 {
		t.Errorf("returned to %#x", ip)
	}
}
