package completion_test

import (
	"errors"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/completion"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

func TestInstructionsThatAreNotCompleted(t *testing.T) {
	for _, code := range [][]byte{
		{0x90}, {0x0f, 0x05}, {0x0f, 0x58, 0xc1}, {0xc5, 0xf8, 0x58, 0xc1}, {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1},
		{0x0f, 0xae, 0x03}, {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66},
	} {
		b := newBench(t)
		copy(b.ram[0x1000:], code)
		regs, s := b.regs, b.s
		if _, err := b.Complete(code, &b.regs, &b.s); !errors.Is(err, completion.ErrUnknown) || b.regs != regs || b.s != s {
			t.Errorf("% x: %v", code, err)
		}
	}
}

func TestLockPrefixWhereThereIsNone(t *testing.T) {
	b := newBench(t)
	if v := b.do(t, 0xf0, 0xf3, 0x0f, 0xb8, 0xc1); v != x86.VectorUD {
		t.Errorf("LOCK POPCNT raises %d", v)
	}
	if v := b.do(t, 0x66, 0xc4, 0xe2, 0x60, 0xf2, 0xc1); v != x86.VectorUD {
		t.Errorf("66 ANDN raises %d", v)
	}
	if v := b.do(t, 0xc4, 0xe2, 0x64, 0xf2, 0xc1); v != x86.VectorUD {
		t.Errorf("ANDN with VEX.L raises %d", v)
	}
}

// The host may hand over fewer bytes than the instruction has, or none.
func TestMissingBytesAreFetched(t *testing.T) {
	code := []byte{0xf3, 0x0f, 0xb8, 0x05, 0xf8, 0x0f, 0x00, 0x00} // popcnt eax, [rip+0xff8]
	for n := range code {
		b := newBench(t)
		copy(b.ram[0x1000:], code)
		b.put64(0x2000, 0x7)
		if _, err := b.Complete(code[:n], &b.regs, &b.s); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		want(t, "RAX", b.regs.RAX, 3)
		want(t, "RIP", b.regs.RIP, 0x1008)
	}
}

func TestSixteenBitAddressing(t *testing.T) {
	b := newBench(t)
	b.s.CR0, b.s.EFER, b.s.CR4 = 0, 0, 0
	b.s.CS = x86.Segment{Limit: 0xffff, Present: 1, Type: 11, S: 1}
	for _, seg := range []*x86.Segment{&b.s.DS, &b.s.ES, &b.s.SS, &b.s.FS, &b.s.GS} {
		*seg = x86.Segment{Limit: 0xffff, Present: 1, Type: 3, S: 1}
	}
	b.s.DS.Base, b.s.SS.Base = 0x10000, 0x20000
	b.regs.RBX, b.regs.RSI, b.regs.RBP = 0xf000, 0x1100, 0x40
	b.ram[0x10103] = 0x0f // ds:[bx+si+3], wrapped at 64 KiB
	b.ram[0x20042] = 0x03 // ss:[bp+2]
	b.regs.RAX = 0xaaaa_0000
	b.do(t, 0xf3, 0x0f, 0xb8, 0x40, 0x03) // popcnt ax, [bx+si+3]
	want(t, "EAX", b.regs.RAX, 0xaaaa_0004)
	b.do(t, 0xf3, 0x0f, 0xb8, 0x46, 0x02) // popcnt ax, [bp+2]
	want(t, "EAX", b.regs.RAX, 0xaaaa_0002)
	b.regs.RBX = 0xffff
	b.regs.RSI = 0
	if v := b.do(t, 0xf3, 0x0f, 0xb8, 0x00); v != x86.VectorGP {
		t.Errorf("a word across the segment's end raises %d", v)
	}
}

func TestProtectedModeSegments(t *testing.T) {
	b := newBench(t)
	b.s.CR0, b.s.EFER, b.s.CR4 = x86.CR0PE, 0, 0
	b.s.CS.L, b.s.CS.DB = 0, 1
	b.s.DS.Limit = 0x2003
	b.regs.RBX = 0x2000
	code := []byte{0xf3, 0x0f, 0xb8, 0x03} // popcnt eax, [ebx]
	if v := b.do(t, code...); v != -1 {
		t.Errorf("raises %d", v)
	}
	b.s.DS.Limit--
	if v := b.do(t, code...); v != x86.VectorGP {
		t.Errorf("beyond the limit raises %d", v)
	}
	b.s.DS.Limit, b.s.DS.Type = 0x1fff, 7 // expand-down: above the limit is inside
	if v := b.do(t, code...); v != -1 {
		t.Errorf("expand-down raises %d", v)
	}
	b.regs.RBX = 0x1fff
	if v := b.do(t, code...); v != x86.VectorGP {
		t.Errorf("below an expand-down limit raises %d", v)
	}
	b.s.DS.Unusable = 1
	if v := b.do(t, code...); v != x86.VectorGP {
		t.Errorf("a null segment raises %d", v)
	}
}

func TestCompletionDoesNotAllocate(t *testing.T) {
	b := newBench(t)
	b.regs.RDI = 0x2000
	codes := [][]byte{
		{0x0f, 0x01, 0xca}, {0xf3, 0x48, 0x0f, 0xb8, 0x07}, {0xf0, 0x48, 0x0f, 0xc7, 0x0f}, {0x48, 0x0f, 0xae, 0x27},
		{0x48, 0x0f, 0xc7, 0x27}, {0x48, 0x0f, 0xae, 0x2f}, {0x0f, 0x00, 0xe9}, {0xc4, 0xe2, 0x60, 0xf2, 0xc1},
		{0x0f, 0x28, 0x0f}, {0x48, 0x0f, 0x38, 0xf1, 0x0f}, {0x9b},
	}
	n := testing.AllocsPerRun(100, func() {
		for _, c := range codes {
			b.regs.RIP = 0x1000
			if _, err := b.Complete(c, &b.regs, &b.s); err != nil {
				t.Fatal(err)
			}
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzComplete executes any bytes with any registers and control bits: nothing
// may panic, and an error may change nothing.
func FuzzComplete(f *testing.F) {
	f.Add([]byte{0x0f, 0x01, 0xca}, uint64(0), uint64(0x2000), uint64(0x10000), uint8(0))
	f.Add([]byte{0xf0, 0x48, 0x0f, 0xc7, 0x0f}, uint64(1), uint64(0xfffffffffffffff8), uint64(0x10000), uint8(3))
	f.Add([]byte{0x48, 0x0f, 0xae, 0x2f}, ^uint64(0), uint64(0x2000), uint64(0x12000), uint8(4))
	f.Add([]byte{0xc4, 0xe2, 0xf2, 0xf5, 0xc3}, uint64(5), uint64(7), uint64(0), uint8(5))
	f.Add([]byte{0x67, 0x66, 0x0f, 0x38, 0xf8, 0x3a}, uint64(5), uint64(7), uint64(0), uint8(0x42))
	f.Add([]byte{0x0f, 0x02, 0x00}, uint64(0x50), uint64(0x2000), uint64(0x10000), uint8(0x88))
	b := newBench(f)
	base, baseRegs := b.s, b.regs
	f.Fuzz(func(t *testing.T, code []byte, rax, rdi, cr3 uint64, mode uint8) {
		b.s, b.regs = base, baseRegs
		b.regs.RAX, b.regs.RCX, b.regs.RDX = rax, rax>>3, rax<<7
		b.regs.RDI, b.regs.RBX, b.regs.RSI, b.regs.RBP, b.regs.R8 = rdi, rdi+1, rdi<<1, ^rdi, rdi
		b.s.CR3 = cr3
		b.s.SS.DPL = mode & 3
		switch mode >> 2 & 3 {
		case 1:
			b.s.CR0, b.s.EFER = 0, 0
		case 2:
			b.s.EFER, b.s.CS.L, b.s.CS.DB = 0, 0, 1
		case 3:
			b.s.CS.L, b.s.CS.DB = 0, 1
		}
		if mode&0x10 != 0 {
			b.s.CR4 ^= x86.CR4PAE
		}
		if mode&0x20 != 0 {
			b.s.CR4 |= x86.CR4LA57 | x86.CR4SMAP | x86.CR4SMEP
		}
		res, err := b.Complete(code, &b.regs, &b.s)
		if err == nil && res.Raised && res.Exception.Vector > 31 {
			t.Errorf("vector %d", res.Exception.Vector)
		}
	})
}
