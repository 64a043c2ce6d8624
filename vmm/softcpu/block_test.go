package softcpu

import (
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// TestCodeOfIdleCPUsIsLetGo runs more code than the arena holds, has the CPU
// idle, and runs it again.
func TestCodeOfIdleCPUsIsLetGo(t *testing.T) {
	const blocks = 50_000
	b := newBare(t, Options{}, 1)
	b.code(bareCode, strings.Repeat("48 ff c0 eb 00 ", blocks)+"e6 80") // inc rax; jmp +0
	b.start(0, bareCode, nil)
	count := func() uint64 {
		b.regs(&x86.Regs{RIP: bareCode, RSP: bareUser, RFLAGS: x86.Flag1})
		if x := b.run(); x.Reason != x86.ExitIO {
			t.Fatalf("exit %v", x.Reason)
		}
		return b.get().RAX
	}
	c := b.cpu[0].c
	if n := count(); n != blocks {
		t.Fatalf("%d blocks, want %d", n, blocks)
	}
	if n := len(c.code.pieces); n != mostInsts/pieceInsts {
		t.Fatalf("%d pieces of the arena, want all %d", n, mostInsts/pieceInsts)
	}
	now := time.Now()
	if c.resting(now) {
		t.Error("the first look at a busy CPU finds it idle")
	}
	c.icount += 10 * idlePerSecond
	if now = now.Add(leastPatience); c.resting(now) {
		t.Error("a busy CPU is found idle")
	}
	c.icount += idlePerSecond / 2
	if c.resting(now.Add(leastPatience / 2)) {
		t.Error("found idle before its time")
	}
	if now = now.Add(leastPatience); !c.resting(now) || len(c.code.pieces) != 1 {
		t.Errorf("an idle CPU keeps %d pieces", len(c.code.pieces))
	}
	if c.resting(now.Add(leastPatience)) {
		t.Error("in as much of a hurry as before")
	}
	if n := count(); n != blocks {
		t.Errorf("%d blocks after the rest, want %d", n, blocks)
	}
}
