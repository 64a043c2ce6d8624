package softcpu

import (
	"fmt"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

func (b *bare) setDebug(d Debug) {
	b.t.Helper()
	if err := b.cpu[0].SetDebug(d); err != nil {
		b.t.Fatal(err)
	}
}

// wantDebug runs to a debug exit at an offset of the code.
func (b *bare) wantDebug(vector uint32, off uint64) x86.Exit {
	b.t.Helper()
	x := b.run()
	if x.Reason != x86.ExitDebug || x.Exception != vector || x.Addr != bareCode+off || b.get().RIP != bareCode+off {
		b.t.Fatalf("exit %v, exception %d at %#x (rip %#x), want debug %d at +%d", x.Reason, x.Exception, x.Addr, b.get().RIP, vector, off)
	}
	return x
}

// loop is inc eax; mov [rbx],eax; mov ecx,[rbx]; jmp to its start.
const debugLoop = "ff c0 89 03 8b 0b eb f8"

func TestDebuggerSteps(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, debugLoop)
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RFLAGS: 2})
	b.setDebug(Debug{Step: true})
	for _, off := range []uint64{2, 4, 6, 0, 2} {
		b.wantDebug(vectorDB, off)
	}
	if r := b.get(); r.RFLAGS&x86.FlagTF != 0 {
		t.Error("the guest sees TF")
	}
}

func TestDebuggerStepsOverIO(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "90 e4 80 90")
	b.start(0, bareCode, nil)
	b.setDebug(Debug{Step: true})
	b.wantDebug(vectorDB, 1)
	if x := b.run(); x.Reason != x86.ExitIO {
		t.Fatalf("exit %v, want the port", x.Reason)
	}
	b.wantDebug(vectorDB, 3)
}

func TestBreakpoints(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, debugLoop)
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RFLAGS: 2})
	b.setDebug(Debug{Breakpoints: []uint64{bareCode + 4}})
	for round := range uint64(3) { // it goes on behind each
		b.wantDebug(vectorDB, 4)
		if r := b.get(); r.RAX != round+1 {
			t.Errorf("round %d: rax %d", round, r.RAX)
		}
	}
	b.setDebug(Debug{Breakpoints: []uint64{bareCode + 6}, Step: true})
	b.wantDebug(vectorDB, 6)
}

func TestBreakpointOnInt3(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "90 cc e6 80")
	b.start(0, bareCode, nil)
	b.setDebug(Debug{Int3: true})
	b.wantDebug(vectorBP, 1)
	b.setDebug(Debug{})
	b.wantInterruptAt(vectorBP, bareCode+2)
}

func TestWatchpoints(t *testing.T) {
	for _, c := range []struct {
		w   Watchpoint
		off []uint64
	}{
		{Watchpoint{Addr: barePage, Len: 1, Write: true}, []uint64{4, 4}},
		{Watchpoint{Addr: barePage + 3, Len: 8, Read: true}, []uint64{6, 6}},
		{Watchpoint{Addr: barePage, Len: 4, Read: true, Write: true}, []uint64{4, 6, 4}},
	} {
		b := newBare(t, Options{}, 1)
		b.code(bareCode, debugLoop)
		b.start(0, bareCode, nil)
		b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RFLAGS: 2})
		b.setDebug(Debug{Watchpoints: []Watchpoint{c.w}})
		for _, off := range c.off {
			if x := b.wantDebug(vectorDB, off); x.Hardware != c.w.Addr {
				t.Errorf("%+v: says %#x", c.w, x.Hardware)
			}
		}
	}
}

func TestWatchpointSeesStringInstructions(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "b9 00 02 00 00 f3 a4 e6 80") // mov ecx,512; rep movsb
	b.start(0, bareCode, nil)
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RSI: barePage, RDI: barePage + 0x2000, RFLAGS: 2})
	b.setDebug(Debug{Watchpoints: []Watchpoint{{Addr: barePage + 0x2000 + 100, Len: 1, Write: true}}})
	if x := b.run(); x.Reason != x86.ExitDebug {
		t.Fatalf("exit %v", x.Reason)
	}
	if r := b.get(); r.RCX != 512-101 || r.RIP != bareCode+5 {
		t.Errorf("stopped with %d left at +%d, want behind the watched byte", r.RCX, r.RIP-bareCode)
	}
	b.setDebug(Debug{})
	b.wantPort(0x80)
}

// TestGuestBreakpoints: DR0 to execute, DR1 for data, as the guest's own
// debugger sets them.
func TestGuestBreakpoints(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareStubs+16*vectorDB, `e6 01 48 81 4c 24 10 00 00 01 00 48 cf`) // out 1,al; or qword [rsp+16],RF; iretq
	b.code(bareCode, `0f 23 c2 0f 23 cb 0f 23 fe `+debugLoop)               // mov dr0,rdx; mov dr1,rbx; mov dr7,rsi
	b.start(0, bareCode, nil)
	const begin = 9
	b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RBX: barePage, RDX: bareCode + begin + 6,
		RSI: 1 | 4 | drWrite<<20 | 3<<22, RFLAGS: 2})
	for range 2 {
		b.wantInterruptAt(vectorDB, bareCode+begin+4)
		if d, _ := b.cpu[0].DebugRegs(); d.DR6&15 != 2 {
			t.Errorf("DR6 %#x behind the store, want B1", d.DR6)
		}
		b.cpu[0].c.dr[6] = dr6Ones
		b.wantInterruptAt(vectorDB, bareCode+begin+6)
		if d, _ := b.cpu[0].DebugRegs(); d.DR6&15 != 1 {
			t.Errorf("DR6 %#x before the jump, want B0", d.DR6)
		}
		b.cpu[0].c.dr[6] = dr6Ones
	}
}

func TestInstructionHook(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "ff c0 48 89 c3 e6 80 ff c0 e6 81")
	b.start(0, bareCode, nil)
	var seen []string
	b.cpu[0].OnInstruction(func(rip uint64, code []byte) {
		r := b.get()
		seen = append(seen, fmt.Sprintf("+%d % x rax=%d", rip-bareCode, code, r.RAX))
		if r.RIP != rip {
			t.Errorf("rip %#x in the hook, want %#x", r.RIP, rip)
		}
	})
	b.wantPort(0x80)
	b.wantPort(0x81)
	want := []string{"+0 ff c0 rax=0", "+2 48 89 c3 rax=1", "+5 e6 80 rax=1", "+7 ff c0 rax=1", "+9 e6 81 rax=2"}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("saw %q, want %q", seen, want)
	}
	b.cpu[0].OnInstruction(nil)
	if b.cpu[0].c.debug.looking {
		t.Error("still looking")
	}
}

func TestEventHook(t *testing.T) {
	b := newBare(t, Options{}, 1)
	b.code(bareCode, "0f 0b")
	b.start(0, bareCode, nil)
	var seen []Event
	b.cpu[0].OnEvent(func(e Event) { seen = append(seen, e) })
	b.wantPort(vectorUD)
	if len(seen) != 1 || seen[0].Vector != vectorUD || seen[0].RIP != bareCode {
		t.Errorf("saw %+v", seen)
	}
}

func TestUnknownInstructionIsNamed(t *testing.T) {
	var seen []string
	b := newBare(t, Options{Unknown: func(cpu int, rip uint64, code []byte) {
		seen = append(seen, fmt.Sprintf("%#x % x", rip, code[:4]))
	}}, 1)
	b.code(bareCode, "c5 f8 58 c1 90") // vaddps: no AVX here
	b.start(0, bareCode, nil)
	b.wantPort(vectorUD)
	if len(seen) != 1 || seen[0] != fmt.Sprintf("%#x c5 f8 58 c1", bareCode) {
		t.Errorf("saw %q", seen)
	}
}
