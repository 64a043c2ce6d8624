package softcpu

import (
	"math"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Instructions that the differential tests leave out because their results
// depend on descriptor tables or differ between processors.

func TestDescriptorQueries(t *testing.T) {
	for _, c := range []struct {
		name, code string
		sel        uint64
		zf         bool
		rax        uint64
	}{
		{"lar of data", "0f 02 c1 e6 80", 0x48, true, 0xcf9300},
		{"lar of null", "0f 02 c1 e6 80", 0, false, 0x77},
		{"lar beyond the GDT", "0f 02 c1 e6 80", 0x800, false, 0x77},
		{"lar of a TSS", "0f 02 c1 e6 80", 0x78, true, 0x8900},
		{"lsl of data", "0f 03 c1 e6 80", 0x48, true, 0xffffffff},
		{"lsl in bytes", "0f 03 c1 e6 80", 0x50, true, 0xfff},
		{"verr of data", "0f 00 e1 e6 80", 0x48, true, 0x77},
		{"verr of execute-only code", "0f 00 e1 e6 80", 0x68, false, 0x77},
		{"verw of read-only data", "0f 00 e9 e6 80", 0x58, false, 0x77},
		{"verw of data", "0f 00 e9 e6 80", 0x48, true, 0x77},
		{"verr of a TSS", "0f 00 e1 e6 80", 0x78, false, 0x77},
	} {
		b := newBare(t, Options{}, 1)
		b.segment32(c.code, nil)
		b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RAX: 0x77, RCX: c.sel, RFLAGS: 2})
		b.wantPort(0x80)
		if r := b.get(); r.RFLAGS&x86.FlagZF != 0 != c.zf || r.RAX != c.rax {
			t.Errorf("%s: ZF %v, eax %#x; want %v, %#x", c.name, r.RFLAGS&x86.FlagZF != 0, r.RAX, c.zf, c.rax)
		}
	}
}

// PAUSE is one with REX.B too, where AMD's processors exchange R8.
func TestPauseWithREX(t *testing.T) {
	for code, want := range map[string]uint64{
		"f3 41 90 e6 80": 1,
		"41 90 e6 80":    2, // xchg rax, r8
		"f3 90 e6 80":    1,
	} {
		b := newBare(t, Options{}, 1)
		b.code(bareCode, code)
		b.start(0, bareCode, nil)
		b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RAX: 1, R8: 2, RFLAGS: 2})
		b.wantPort(0x80)
		if r := b.get(); r.RAX != want || r.R8 != 3-want {
			t.Errorf("%s: rax %d r8 %d", code, r.RAX, r.R8)
		}
	}
}

// A MOVSXD of 16 bits reads 16, be they the last of a page.
func TestMovsxdAtTheEndOfAPage(t *testing.T) {
	const end = 4 << 20 // of what is mapped
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "66 63 01 e6 80 63 01 e6 81") // movsxd ax, [rcx]; out; movsxd eax, [rcx]; out
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RAX: 0x11112222, RCX: end - 2, RFLAGS: 2})
	b.put64(end-8, 0x8765_0000_0000_0000)
	b.wantPort(0x80)
	if r := b.get(); r.RAX != 0x11118765 {
		t.Errorf("rax %#x", r.RAX)
	}
	b.wantPort(vectorPF)
}

func TestEnterAndLeave(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "c8 20 00 00 e6 80 c9 e6 81 c8 10 00 02 e6 82") // enter 32,0; out; leave; out; enter 16,2; out
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBP: bareUser + 0x20, RFLAGS: 2})
	b.wantPort(0x80)
	if r := b.get(); r.RBP != bareUser-8 || r.RSP != bareUser-8-32 {
		t.Errorf("enter: rbp %#x rsp %#x", r.RBP, r.RSP)
	}
	b.wantPort(0x81)
	if r := b.get(); r.RBP != bareUser+0x20 || r.RSP != bareUser {
		t.Errorf("leave: rbp %#x rsp %#x", r.RBP, r.RSP)
	}
	b.put64(bareUser+0x18, 0xabcdef)
	b.wantPort(0x82)
	if r := b.get(); r.RBP != bareUser-8 || r.RSP != bareUser-8-16-16 || le64At(b.ram, bareUser-16) != 0xabcdef || le64At(b.ram, bareUser-24) != bareUser-8 {
		t.Errorf("enter with two levels: rbp %#x rsp %#x, frame %#x %#x", r.RBP, r.RSP, le64At(b.ram, bareUser-16), le64At(b.ram, bareUser-24))
	}
}

func le64At(b []byte, at int) (v uint64) {
	for i := 7; i >= 0; i-- {
		v = v<<8 | uint64(b[at+i])
	}
	return v
}

// TestFSGSBase writes and reads the bases and loads through one.
func TestFSGSBase(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.ram[barePage+5] = 0x42
	// wrfsbase rbx; rdfsbase rcx; mov al,fs:[5]; wrgsbase rdx (not canonical: #GP)
	b.code(bareCode, "f3 48 0f ae d3 f3 48 0f ae c1 64 8a 04 25 05 00 00 00 e6 80 f3 48 0f ae da")
	b.start(3, bareCode, func(s *x86.Sregs) { s.CR4 |= x86.CR4FSGSBASE })
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RDX: 1 << 60, RFLAGS: 2 | x86.FlagIOPL})
	b.wantPort(0x80)
	if r := b.get(); r.RCX != barePage || r.RAX&0xff != 0x42 {
		t.Errorf("rcx %#x al %#x", r.RCX, r.RAX&0xff)
	}
	b.wantPort(vectorGP)
}

// TestReciprocals are right to the 1.5·2⁻¹² that the manual promises.
func TestReciprocals(t *testing.T) {
	b := newBare(t, Options{}, 1)
	// movd xmm0,ebx; rcpss xmm1,xmm0; rsqrtss xmm2,xmm0; movd ecx,xmm1; movd edx,xmm2
	b.code(bareCode, "66 0f 6e c3 f3 0f 53 c8 f3 0f 52 d0 66 0f 7e c9 66 0f 7e d2 e6 80")
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: 0x40800000, RFLAGS: 2}) // 4
	b.wantPort(0x80)
	within := func(name string, got uint64, want float64) {
		if f := float64(math.Float32frombits(uint32(got))); f < want*(1-0.0004) || f > want*(1+0.0004) {
			t.Errorf("%s 4 = %v, want %v", name, f, want)
		}
	}
	within("rcpss", b.get().RCX, 0.25)
	within("rsqrtss", b.get().RDX, 0.5)
}

// TestXSaveInTheGuest saves with XSAVE, changes the registers and restores
// them with XRSTOR; what was not asked for stays.
func TestXSaveInTheGuest(t *testing.T) {
	b := newBare(t, Options{}, 1)
	// xor ecx,ecx; mov eax,3; xor edx,edx; xsetbv; movq xmm0,rbx; fld1;
	// xsave64 [rsi]; pxor xmm0,xmm0; fninit; mov eax,2; xrstor64 [rsi];
	// movq rcx,xmm0; fnstsw ax; out 0x80,al
	b.code(bareCode, `31 c9 b8 03 00 00 00 31 d2 0f 01 d1 66 48 0f 6e c3 d9 e8
		48 0f ae 26 66 0f ef c0 db e3 b8 02 00 00 00 48 0f ae 2e 66 48 0f 7e c1 df e0 e6 80`)
	b.start(0, bareCode, func(s *x86.Sregs) { s.CR4 |= x86.CR4OSXSAVE })
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: 0x1234567890, RSI: barePage, RFLAGS: 2})
	b.wantPort(0x80)
	r := b.get()
	if r.RCX != 0x1234567890 {
		t.Errorf("xmm0 %#x after XRSTOR", r.RCX)
	}
	if r.RAX>>11&7 != 0 {
		t.Errorf("x87 status %#x: restored though only SSE was asked for", r.RAX&0xffff)
	}
	if le64At(b.ram, barePage+512) != 3 {
		t.Errorf("XSTATE_BV %#x", le64At(b.ram, barePage+512))
	}
}

// TestFarCallThroughGate changes privilege by a call gate and comes back by
// RETF.
func TestFarCallThroughGate(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.put64(bareGDT+0x30, uint64(barePage)&0xffff|selCode<<16|0xec<<40|uint64(barePage)>>16<<48) // 64-bit call gate
	b.put64(bareGDT+0x38, 0)
	b.code(bareCode, "ff 1b fa")    // call far [rbx]; cli
	b.code(barePage, "e6 82 48 cb") // out; retf
	b.code(barePage+0x100, "00 00 00 00 33 00")
	b.start(3, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage + 0x100, RFLAGS: 2})
	b.wantPort(0x82)
	s, _ := b.cpu[0].Sregs()
	if r := b.get(); s.CPL() != 0 || r.RSP != bareStack-32 {
		t.Errorf("behind the gate: CPL %d, rsp %#x", s.CPL(), r.RSP)
	}
	b.wantPort(vectorGP)
	if _, ip := b.frame(true); ip != bareCode+2 {
		t.Errorf("returned to +%d", ip-bareCode)
	}
}

func TestINITResets(t *testing.T) {
	b := newBare(t, Options{}, 2)
	ap := b.cpu[1]
	b.code(bareAP, "b0 07 e6 90 f4") // mov al,7; out; hlt
	for round := range 2 {           // INIT and SIPI, twice
		b.vm.net.Message(0xfee01000, 5<<8)
		b.vm.net.Message(0xfee01000, 6<<8|bareAP>>12)
		b.vm.turns.remove(b.cpu[0].c)
		x, err := ap.Run()
		if err != nil || x.Reason != x86.ExitIO || x.Port != 0x90 {
			t.Fatalf("round %d: exit %v port %#x, %v", round, x.Reason, x.Port, err)
		}
		s, _ := ap.Sregs()
		if s.CS.Base != bareAP || s.CR0&x86.CR0PE != 0 {
			t.Errorf("round %d: CS at %#x, CR0 %#x", round, s.CS.Base, s.CR0)
		}
	}
}

// TestFlagsOfAComparisonThatIsLeft: one that is left behind its last element, to
// look at attn, is not executed again with any element that would set the flags;
// only a fault gives the old ones back.
func TestFlagsOfAComparisonThatIsLeft(t *testing.T) {
	for _, det := range []bool{false, true} {
		b := newBare(t, Options{Deterministic: det}, 1)
		b.start(0, bareCode, nil)
		c := b.cpu[0].c
		in := &inst{rep: 0xf3, amask: ^uint64(0), asize: 8, size: 1}
		c.regs[rCX] = 1
		c.setArith(0)
		ok := c.compare(in, func(c *cpu, _ *inst) (ok, more bool) {
			c.setArith(x86.FlagZF)
			c.attn.Or(attnEvent)
			return true, true
		})
		if ok || c.count(in) != 0 || c.rflags()&x86.FlagZF == 0 {
			t.Errorf("deterministic %v: left: %v, %d elements to do, flags %#x", det, !ok, c.count(in), c.rflags())
		}
		c.regs[rCX] = 2
		c.setArith(0)
		ok = c.compare(in, func(c *cpu, _ *inst) (ok, more bool) {
			c.setArith(x86.FlagZF)
			c.stop = stopFault
			return false, false
		})
		if ok || c.rflags()&x86.FlagZF != 0 {
			t.Errorf("deterministic %v: after a fault %v, flags %#x", det, ok, c.rflags())
		}
		c.stop = stopNone
	}
}
