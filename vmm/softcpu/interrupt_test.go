package softcpu

import (
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// apicOn enables CPU 0's local APIC and makes vector v pending.
func (b *bare) apicOn(pending ...uint32) {
	b.cpu[0].c.apic.Write(0xf0, 0x1ff)
	for _, v := range pending {
		b.vm.net.Message(0xfee00000, v)
	}
}

// wantInterruptAt runs to vector v's handler, which must have interrupted at
// rip.
func (b *bare) wantInterruptAt(v int, rip uint64) {
	b.t.Helper()
	b.wantPort(v)
	if _, ip := b.frame(false); ip != rip {
		b.t.Errorf("vector %#x at +%d, want +%d", v, int64(ip-bareCode), int64(rip-bareCode))
	}
}

// TestShadowOfSTI: the instruction behind STI is executed before an interrupt
// that waits.
func TestShadowOfSTI(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "90 fb ff c0 ff c0 ff c0") // nop; sti; inc eax ×3
	b.start(0, bareCode, nil)
	b.apicOn(0x50)
	b.wantInterruptAt(0x50, bareCode+4)
}

// TestSTIWhileEnabled has no shadow.
func TestSTIWhileEnabled(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "fb fa e6 80") // sti; cli; out: never interrupted
	b.start(0, bareCode, nil)
	b.apicOn(0x50)
	b.wantPort(0x80)
}

// TestShadowOfMovSS: neither an interrupt nor a single step is reported
// between MOV SS and the instruction behind it.
func TestShadowOfMovSS(t *testing.T) {
	b := newBare(t, Options{}, 1)
	// push 0x102; popf (TF on); mov ss,edx; inc eax; inc eax
	b.code(bareCode, "68 02 01 00 00 9d 8e d2 ff c0 ff c0")
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RDX: selData, RFLAGS: 2})
	b.wantInterruptAt(vectorDB, bareCode+10)
	if r := b.get(); r.RAX != 1 {
		t.Errorf("%d instructions behind MOV SS, want 1", r.RAX)
	}
}

// TestHLTWakes: STI and HLT are one, and the interrupt comes behind HLT.
func TestHLTWakes(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "fb f4 e6 80")
	b.start(0, bareCode, nil)
	b.apicOn()
	go func() {
		time.Sleep(5 * time.Millisecond)
		b.vm.net.Message(0xfee00000, 0x51)
	}()
	b.wantInterruptAt(0x51, bareCode+2)
}

// TestHLTSleeps: a halted CPU executes nothing, a kick gets it out of Run, and
// the next Run sleeps on.
func TestHLTSleeps(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "fb f4 e6 80")
	b.start(0, bareCode, nil)
	for range 3 {
		for first := true; first || !b.cpu[0].c.halted; first = false {
			time.AfterFunc(10*time.Millisecond, func() { _ = b.cpu[0].Kick() })
			if x := b.run(); x.Reason != x86.ExitInterrupted {
				t.Fatalf("exit %v from sleep, want a kick", x.Reason)
			}
		}
		if n := b.cpu[0].c.icount; n != 2 {
			t.Fatalf("%d instructions, want STI and HLT", n)
		}
		if s, _ := b.cpu[0].MPState(); s != x86.MPHalted {
			t.Errorf("MP state %d, want halted", s)
		}
	}
}

// TestAPICTimerWakesHLT, by deadline.
func TestAPICTimerWakesHLT(t *testing.T) {
	for _, det := range []bool{false, true} {
		b := newBare(t, Options{Deterministic: det}, 1)
		b.code(bareCode, "fb f4")
		b.start(0, bareCode, nil)
		b.apicOn()
		b.cpu[0].c.apic.Write(0x320, 0x40052) // deadline, vector 0x52
		if err := b.cpu[0].SetMSRs([]x86.MSR{{Index: x86.MSRTSCDeadline, Data: b.cpu[0].c.tsc() + 3_000_000}}); err != nil {
			t.Fatal(err)
		}
		begin := b.cpu[0].c.tsc()
		b.wantInterruptAt(0x52, bareCode+2)
		if d := b.cpu[0].c.tsc() - begin; d < 2_000_000 {
			t.Errorf("deterministic %v: woke after %d ns, want about 3 ms", det, d)
		}
	}
}

// TestLegacyTimerThroughPICs: the 8254's interrupt as programs without an APIC
// see it.
func TestLegacyTimerThroughPICs(t *testing.T) {
	for _, det := range []bool{false, true} {
		b := newBare(t, Options{Deterministic: det}, 1)
		b.code(bareCode, `b0 11 e6 20 b0 50 e6 21 b0 04 e6 21 b0 01 e6 21 b0 fe e6 21
			b0 34 e6 43 b0 00 e6 40 b0 10 e6 40 fb f4 eb fd`) // 8259 at 0x20, only input 0; 8254: 291 Hz
		b.start(0, bareCode, nil)
		b.wantPort(0x50)
		// The handler's own end: out 0x20,al with an EOI, and on.
		b.code(bareStubs+16*0x50, "b0 20 e6 20 e6 a5 fb f4")
		b.regs(&x86.Regs{RIP: bareStubs + 16*0x50, RSP: bareUser, RFLAGS: 2})
		b.cpu[0].c.halted = false
		b.wantPort(0xa5)
		b.wantPort(0xa5)
	}
}

// TestNMI is not held back by IF; another one waits for IRET.
func TestNMI(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "90 90 e6 80")
	b.code(bareStubs+16*vectorNMI, "e6 02 48 cf") // out 2,al; iretq
	b.start(0, bareCode, nil)
	b.vm.net.Message(0xfee00000, 4<<8)
	b.wantInterruptAt(vectorNMI, bareCode)
	b.vm.net.Message(0xfee00000, 4<<8)
	b.wantPort(vectorNMI) // after IRET
	b.wantPort(0x80)
}

// TestSingleStep: TF traps behind each instruction, and BS is set.
func TestSingleStep(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareStubs+16*vectorDB, "e6 01 48 cf")
	b.code(bareCode, "68 02 01 00 00 9d 90 48 89 c3 b9 02 00 00 00 f3 a4 e6 80")
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RSI: barePage, RDI: barePage + 64, RFLAGS: 2})
	for _, want := range []uint64{7, 10, 15, 17} {
		b.wantInterruptAt(vectorDB, bareCode+want)
		if d, _ := b.cpu[0].DebugRegs(); d.DR6&dr6BS == 0 {
			t.Errorf("+%d: DR6 %#x without BS", want, d.DR6)
		}
	}
	b.wantPort(0x80)
}

// TestEventsRoundTrip: what is pending on a CPU can be read, set on another
// and happens there.
func TestEventsRoundTrip(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "90 90 e6 80")
	b.start(0, bareCode, nil)
	v := b.cpu[0]

	var e x86.Events
	e.Exception.Injected, e.Exception.Nr, e.Exception.HasErrorCode, e.Exception.ErrorCode = 1, vectorGP, 1, 0x1234
	if err := v.SetEvents(&e); err != nil {
		t.Fatal(err)
	}
	if got, _ := v.Events(); got.Exception != e.Exception {
		t.Errorf("events %+v, want %+v", got.Exception, e.Exception)
	}
	b.wantPort(vectorGP)
	if code, ip := b.frame(true); code != 0x1234 || ip != bareCode {
		t.Errorf("injected #GP(%#x) at %#x", code, ip)
	}

	b.start(0, bareCode, nil)
	e = x86.Events{}
	e.Interrupt.Injected, e.Interrupt.Nr = 1, 0x77
	if err := v.SetEvents(&e); err != nil {
		t.Fatal(err)
	}
	b.wantInterruptAt(0x77, bareCode)

	b.start(0, bareCode, nil)
	e = x86.Events{Flags: validShadow}
	e.Interrupt.Shadow = 1
	if err := v.SetEvents(&e); err != nil {
		t.Fatal(err)
	}
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RFLAGS: 2 | x86.FlagIF})
	b.apicOn(0x50)
	b.wantInterruptAt(0x50, bareCode+1)
}

// TestXSaveRoundTrip.
func TestXSaveRoundTrip(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "d9 eb 66 48 0f 6e c0 e6 80") // fldpi; movq xmm0,rax
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RAX: 0x1122334455667788, RFLAGS: 2})
	b.wantPort(0x80)
	area := make([]byte, b.vm.XSaveSize())
	if err := b.cpu[0].XSave(area); err != nil {
		t.Fatal(err)
	}
	other := newBare(t, Options{}, 1)
	if err := other.cpu[0].SetXSave(area); err != nil {
		t.Fatal(err)
	}
	if a, c := &b.cpu[0].c.fpu, &other.cpu[0].c.fpu; a.st(0) == nil || *a.st(0) != *c.st(0) || a.full != c.full {
		t.Error("x87 registers differ")
	}
	if b.cpu[0].c.sse.xmm != other.cpu[0].c.sse.xmm {
		t.Error("XMM registers differ")
	}
	area[fxsaveSize] |= 4
	if err := other.cpu[0].SetXSave(area); err == nil {
		t.Error("took AVX state")
	}
}
