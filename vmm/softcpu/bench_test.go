package softcpu

import (
	"debug/elf"
	"os"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// benchLoop runs a program that ends with a port write, b.N times, and reports
// millions of guest instructions a second.
func benchLoop(b *testing.B, program string, regs x86.Regs) {
	m := newBare(b, Options{}, 1)
	m.code(bareCode, program)
	m.start(0, bareCode, nil)
	regs.RIP, regs.RSP, regs.RFLAGS = bareCode, bareUser, x86.Flag1
	begin := m.cpu[0].c.icount
	b.ResetTimer()
	for range b.N {
		m.regs(&regs)
		if m.run().Reason != x86.ExitIO {
			b.Fatal("does not end")
		}
	}
	n := m.cpu[0].c.icount - begin
	b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "MIPS")
	b.ReportMetric(float64(n)/float64(b.N), "instructions/op")
}

// BenchmarkLoop is three instructions: add rax,rbx; dec rcx; jnz.
func BenchmarkLoop(b *testing.B) {
	benchLoop(b, "48 01 d8 48 ff c9 75 f8 e6 80", x86.Regs{RCX: 100_000})
}

// BenchmarkMemory loads, adds and stores: mov rax,[rsi]; add rax,rcx;
// mov [rdi],rax; cmp rax,rdx; je +0; dec rcx; jnz.
func BenchmarkMemory(b *testing.B) {
	benchLoop(b, "48 8b 06 48 01 c8 48 89 07 48 39 d0 74 00 48 ff c9 75 ed e6 80",
		x86.Regs{RCX: 100_000, RSI: barePage, RDI: barePage + 0x1000})
}

// BenchmarkCalls is call, push, pop and return.
func BenchmarkCalls(b *testing.B) {
	benchLoop(b, "e8 07 00 00 00 ff c9 75 f7 e6 80 90 55 48 89 e5 5d c3", x86.Regs{RCX: 50_000})
}

// BenchmarkSSE adds doubles: cvtsi2sd xmm1,rdx; addsd xmm0,xmm1; dec ecx; jnz
// to ADDSD.
func BenchmarkSSE(b *testing.B) {
	benchLoop(b, "f2 48 0f 2a ca f2 0f 58 c1 ff c9 75 f8 e6 80", x86.Regs{RCX: 50_000, RDX: 3})
}

// BenchmarkStrings moves 256 KiB: rep movsb.
func BenchmarkStrings(b *testing.B) {
	b.SetBytes(256 << 10)
	benchLoop(b, "f3 a4 e6 80", x86.Regs{RCX: 256 << 10, RSI: barePage, RDI: barePage + 0x80000})
}

// BenchmarkTLBMiss touches a page whose translation is not cached:
// invlpg [rsi]; mov rax,[rsi]; dec ecx; jnz.
func BenchmarkTLBMiss(b *testing.B) {
	benchLoop(b, "0f 01 3e 48 8b 06 ff c9 75 f6 e6 80", x86.Regs{RCX: 10_000, RSI: barePage})
}

// BenchmarkPortIO is what an exit costs, without the VMM's share.
func BenchmarkPortIO(b *testing.B) {
	benchLoop(b, "e6 80", x86.Regs{})
}

// BenchmarkDecode decodes a MiB of a real program's code, this one's, which is
// not executed: what a machine that is restored does with nearly all of its
// guest's code.
func BenchmarkDecode(b *testing.B) {
	const size = 1 << 20
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	f, err := elf.Open(self)
	if err != nil {
		b.Skip(err) // another system's
	}
	defer f.Close()
	m := newBare(b, Options{}, 1)
	text := f.Section(".text")
	if _, err := text.ReadAt(m.ram[barePage:barePage+size], int64(text.Size/2)&^15); err != nil {
		b.Fatal(err)
	}
	m.code(bareCode, "e6 80")
	m.start(0, bareCode, nil)
	m.run()
	c := m.cpu[0].c
	n := 0
	for b.Loop() {
		c.dropCode()
		for at := uint64(barePage); at < barePage+size; {
			c.rip, c.linkTo, c.stop = at, -1, stopNone
			if !c.findBlock() || len(c.next.ins) == 0 {
				b.Fatalf("nothing decoded at %#x", at)
			}
			last := &c.next.ins[len(c.next.ins)-1]
			n += int(c.next.n)
			at = max(at&^pageMask+uint64(last.next), at+1)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/instruction")
}
