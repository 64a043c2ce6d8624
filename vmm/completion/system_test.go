package completion_test

import (
	"encoding/binary"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/completion"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// fakeEnv is a CPU's other state, kept in fields.
type fakeEnv struct {
	area [4096]byte
	xcr0 uint64
	msrs map[uint32]uint64
	err  error
	one  [4]x86.MSR
}

func (f *fakeEnv) XSave(p []byte) error    { copy(p, f.area[:]); return f.err }
func (f *fakeEnv) SetXSave(p []byte) error { copy(f.area[:], p); return f.err }
func (f *fakeEnv) XCR0() (uint64, error)   { return f.xcr0, f.err }
func (f *fakeEnv) SetXCR0(x uint64) error  { f.xcr0 = x; return f.err }
func (f *fakeEnv) SetMSRs(m []x86.MSR) error {
	for _, r := range m {
		f.msrs[r.Index] = r.Data
	}
	return f.err
}

func (f *fakeEnv) MSRs(index ...uint32) ([]x86.MSR, error) {
	for i, x := range index {
		f.one[i] = x86.MSR{Index: x, Data: f.msrs[x]}
	}
	return f.one[:len(index)], f.err
}

// bench is an engine over 1 MiB of memory, with registers for 64-bit kernel
// mode: pages are one to one, code at 0x1000, GDT at 0x8000.
type bench struct {
	*completion.Engine
	env  *fakeEnv
	ram  []byte
	regs x86.Regs
	s    x86.Sregs
}

func newBench(t testing.TB) *bench {
	mem, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	env := &fakeEnv{xcr0: 7, msrs: make(map[uint32]uint64)}
	env.area[0], env.area[1] = 0x7f, 0x03
	binary.LittleEndian.PutUint32(env.area[24:], 0x1f80)
	cpuid := []x86.CPUIDEntry{{Function: 0xd, Index: 2, EAX: 256, EBX: 576}}
	b := &bench{Engine: completion.New(env, mem, cpuid, 4096), env: env, ram: mem.Regions()[0].Bytes}
	for i, d := range []uint64{0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff,
		0x0000890000001067, 0, 0x00009e0000000fff, 0x0000f10000000fff, 0x0000010000000000} {
		b.put64(0x8000+8*i, d)
	}
	b.put64(0x10000, 0x11067)
	b.put64(0x11000, 0x12067)
	b.put64(0x12000, 0xe7)
	// The last MiB of the address space too: 0xfffffffffff00000 is 0.
	b.put64(0x10ff8, 0x11067)
	b.put64(0x11ff8, 0x12067)
	b.put64(0x12ff8, 0xe7)
	b.regs = x86.Regs{RIP: 0x1000, RSP: 0x6000, RFLAGS: x86.Flag1}
	b.s = x86.Sregs{CR0: x86.CR0PE | x86.CR0PG | x86.CR0WP | x86.CR0NE, CR3: 0x10000,
		CR4:  x86.CR4PAE | x86.CR4OSFXSR | x86.CR4OSXSAVE | x86.CR4FSGSBASE,
		EFER: x86.EFERLME | x86.EFERLMA | x86.EFERSCE | x86.EFERNXE, GDT: x86.DTable{Base: 0x8000, Limit: 0x4f}}
	b.s.CS = x86.Segment{Limit: ^uint32(0), Selector: 8, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	data := x86.Segment{Limit: ^uint32(0), Selector: 0x10, Type: 3, Present: 1, S: 1, DB: 1, G: 1}
	b.s.DS, b.s.ES, b.s.SS, b.s.FS, b.s.GS = data, data, data, data, data
	b.s.LDT.Unusable = 1
	return b
}

func (b *bench) put64(at int, v uint64) { binary.LittleEndian.PutUint64(b.ram[at:], v) }

// do completes code and checks that RIP is behind it, or unchanged where an
// exception was raised. It returns the exception's vector, or -1.
func (b *bench) do(t *testing.T, code ...byte) int {
	t.Helper()
	rip := b.regs.RIP
	res, err := b.Complete(code, &b.regs, &b.s)
	if err != nil {
		t.Fatalf("% x: %v", code, err)
	}
	if res.Raised {
		if b.regs.RIP != rip && res.Op != completion.OpINT3 {
			t.Errorf("% x: RIP moved to %#x by an exception", code, b.regs.RIP)
		}
		return int(res.Exception.Vector)
	}
	if b.regs.RIP != rip+uint64(len(code)) && res.Op != completion.OpSYSCALL {
		t.Errorf("% x: RIP is %#x after it", code, b.regs.RIP)
	}
	return -1
}

func want(t *testing.T, what string, got, want uint64) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %#x, want %#x", what, got, want)
	}
}

func (b *bench) zf() bool { return b.regs.RFLAGS&x86.FlagZF != 0 }

func TestLoadAccessRightsAndLimit(t *testing.T) {
	cases := []struct {
		name           string
		selector       uint64
		cpl            uint8
		lar, lsl       bool
		rights, limit  uint64
		readOK, writOK bool
	}{
		{"null", 0, 0, false, false, 0, 0, false, false},
		{"null with RPL", 3, 0, false, false, 0, 0, false, false},
		{"kernel code", 8, 0, true, true, 0xaf9b00, 0xffffffff, true, false},
		{"kernel data", 0x10, 0, true, true, 0xcf9300, 0xffffffff, true, true},
		{"kernel data from user mode", 0x10, 3, false, false, 0, 0, false, false},
		{"kernel data with RPL 3", 0x13, 0, false, false, 0, 0, false, false},
		{"user data", 0x1b, 3, true, true, 0xcff300, 0xffffffff, true, true},
		{"TSS", 0x28, 0, true, true, 0x8900, 0x1067, false, false},
		{"the upper half of a TSS", 0x30, 0, false, false, 0, 0, false, false},
		{"conforming code from user mode", 0x38, 3, true, true, 0x9e00, 0xfff, true, false},
		{"read-only data", 0x43, 3, true, true, 0xf100, 0xfff, true, false},
		{"beyond the table", 0x50, 0, false, false, 0, 0, false, false},
		{"in an LDT that there is not", 0x0c, 0, false, false, 0, 0, false, false},
	}
	for _, c := range cases {
		b := newBench(t)
		b.s.SS.DPL, b.regs.RCX = c.cpl, c.selector
		b.regs.RAX = 0x1234
		b.do(t, 0x0f, 0x02, 0xc1) // lar eax, ecx
		if b.zf() != c.lar || c.lar && b.regs.RAX != c.rights || !c.lar && b.regs.RAX != 0x1234 {
			t.Errorf("LAR of %s: ZF %v, EAX %#x", c.name, b.zf(), b.regs.RAX)
		}
		b.do(t, 0x0f, 0x03, 0xc1) // lsl eax, ecx
		if b.zf() != c.lsl || c.lsl && b.regs.RAX != c.limit {
			t.Errorf("LSL of %s: ZF %v, EAX %#x", c.name, b.zf(), b.regs.RAX)
		}
		if b.do(t, 0x0f, 0x00, 0xe1); b.zf() != c.readOK {
			t.Errorf("VERR of %s: ZF %v", c.name, b.zf())
		}
		if b.do(t, 0x0f, 0x00, 0xe9); b.zf() != c.writOK {
			t.Errorf("VERW of %s: ZF %v", c.name, b.zf())
		}
	}
}

func TestVerwOfAMemoryOperandAndARealModeCPU(t *testing.T) {
	b := newBench(t)
	b.ram[0x2000] = 0x10
	b.regs.RBX = 0x2000
	if v := b.do(t, 0x0f, 0x00, 0x2b); v != -1 || !b.zf() { // verw [rbx]
		t.Errorf("vector %d, ZF %v", v, b.zf())
	}
	b.s.CR0 &^= x86.CR0PE | x86.CR0PG
	b.s.EFER = 0
	if v := b.do(t, 0x0f, 0x00, 0xe8); v != x86.VectorUD {
		t.Errorf("VERW in real mode raises %d", v)
	}
}

func TestClacStac(t *testing.T) {
	b := newBench(t)
	b.do(t, 0x0f, 0x01, 0xcb)
	want(t, "RFLAGS after STAC", b.regs.RFLAGS, x86.Flag1|x86.FlagAC)
	b.do(t, 0x0f, 0x01, 0xca)
	want(t, "RFLAGS after CLAC", b.regs.RFLAGS, x86.Flag1)
	b.s.SS.DPL = 3
	if v := b.do(t, 0x0f, 0x01, 0xca); v != x86.VectorUD {
		t.Errorf("CLAC at CPL 3 raises %d", v)
	}
}

const lstar = 0xffff_ffff_fff0_3000 // linear; the frame names it

func (b *bench) userFault(frame ...uint64) {
	b.s.CR2 = lstar
	b.regs.RSP = 0x6000 - uint64(8*len(frame))
	for i, v := range frame {
		b.put64(int(b.regs.RSP)+8*i, v)
	}
	b.regs.RCX, b.regs.R11 = 0x401000, 0x246
	b.env.msrs[x86.MSRLSTAR] = lstar
	b.env.msrs[x86.MSRSTAR] = 0x0023_0010_0000_0000
	b.env.msrs[x86.MSRSyscallMask] = x86.FlagIF | x86.FlagTF | x86.FlagDF
}

func TestSyscallThatCameAsAPageFault(t *testing.T) {
	b := newBench(t)
	flags := uint64(x86.Flag1 | x86.FlagIF | x86.FlagZF | x86.FlagRF)
	b.userFault(x86.PFUser|x86.PFFetch, lstar, 0x33, flags, 0x7fff_0000, 0x2b)
	res, err := b.Complete([]byte{0x0f, 0x01, 0xca}, &b.regs, &b.s)
	if err != nil || res.Op != completion.OpSYSCALL || !res.Sregs {
		t.Fatalf("%v %+v", err, res)
	}
	want(t, "RIP", b.regs.RIP, lstar)
	want(t, "RSP", b.regs.RSP, 0x7fff_0000)
	want(t, "RFLAGS", b.regs.RFLAGS, x86.Flag1|x86.FlagZF)
	want(t, "RCX", b.regs.RCX, 0x401000)
	want(t, "CS", uint64(b.s.CS.Selector), 0x10)
	want(t, "SS", uint64(b.s.SS.Selector), 0x18)
	want(t, "CPL", uint64(b.s.CPL()), 0)
	if b.s.CS.L != 1 || b.s.CS.DB != 0 || b.s.CS.Type != 11 || b.s.SS.Type != 3 {
		t.Errorf("segments %+v %+v", b.s.CS, b.s.SS)
	}
}

func TestClacThatIsNoSyscall(t *testing.T) {
	ok := []uint64{x86.PFUser | x86.PFFetch, lstar, 0x33, x86.Flag1, 0x7fff_0000, 0x2b}
	for name, change := range map[string]func(b *bench){
		"a kernel's fault":      func(b *bench) { b.put64(int(b.regs.RSP)+16, 0x10) },
		"a data access":         func(b *bench) { b.put64(int(b.regs.RSP), x86.PFUser) },
		"another RIP":           func(b *bench) { b.put64(int(b.regs.RSP)+8, lstar+1) },
		"another LSTAR":         func(b *bench) { b.env.msrs[x86.MSRLSTAR] = lstar + 64 },
		"SYSCALL disabled":      func(b *bench) { b.s.EFER &^= x86.EFERSCE },
		"a stack that is not":   func(b *bench) { b.regs.RSP = 0x4000_0000 },
		"an impossible stack":   func(b *bench) { b.regs.RSP = 1 << 62 },
		"an old fault, of user": func(b *bench) { b.s.CR2 = 0x401000 },
	} {
		b := newBench(t)
		b.userFault(ok...)
		change(b)
		cr2 := b.s.CR2
		res, err := b.Complete([]byte{0x0f, 0x01, 0xca}, &b.regs, &b.s)
		if err != nil || res.Op != completion.OpCLAC || res.Sregs || b.s.CR2 != cr2 {
			t.Errorf("%s: %v %+v", name, err, res)
		}
	}
}

// TestEntryThatFaultedAgain: a double fault at LSTAR, with the user's stack, is
// the host's mistake where the page tables permit the fetch.
func TestEntryThatFaultedAgain(t *testing.T) {
	clac := []byte{0x0f, 0x01, 0xca}
	frame := []uint64{0, lstar, 0x10, x86.Flag1 | x86.FlagZF, 0x7fff_0000, 0x18}
	b := newBench(t)
	for i := range 100 {
		b.userFault(frame...)
		b.regs.RIP = 0x1000
		b.s.CS.Selector = 0x10 // the guest's gate has the segment of STAR: nothing to write
		res, err := b.Complete(clac, &b.regs, &b.s)
		if err != nil || res.Op != completion.OpSYSCALL || res.Sregs {
			t.Fatalf("%d: %v %+v", i, err, res)
		}
		want(t, "RIP", b.regs.RIP, lstar)
		want(t, "RSP", b.regs.RSP, 0x7fff_0000)
		want(t, "RFLAGS", b.regs.RFLAGS, x86.Flag1|x86.FlagZF)
	}
	b.userFault(frame...)
	b.regs.RIP = 0x1000
	if res, err := b.Complete(clac, &b.regs, &b.s); err != nil || res.Op != completion.OpCLAC {
		t.Errorf("again and again: %v %+v", err, res)
	}
	for name, change := range map[string]func(b *bench){
		"a page that is not":   func(b *bench) { b.put64(0x12ff8, 0) },
		"no execution":         func(b *bench) { b.put64(0x12ff8, 0xe7|1<<63) },
		"the kernel's stack":   func(b *bench) { b.put64(int(b.regs.RSP)+32, lstar-0x100) },
		"another segment":      func(b *bench) { b.put64(int(b.regs.RSP)+16, 0x20) },
		"another double fault": func(b *bench) { b.put64(int(b.regs.RSP)+8, lstar+1) },
	} {
		b = newBench(t)
		b.userFault(frame...)
		change(b)
		b.regs.RIP = 0x1000
		if res, err := b.Complete(clac, &b.regs, &b.s); err != nil || res.Op != completion.OpCLAC || res.Sregs {
			t.Errorf("%s: %v %+v", name, err, res)
		}
	}
}

// A kernel that follows another in the same memory has other registers, though
// perhaps the same LSTAR.
func TestSyscallRegistersAreReadAgainForAnotherKernel(t *testing.T) {
	b := newBench(t)
	frame := []uint64{x86.PFUser | x86.PFFetch, lstar, 0x33, x86.Flag1 | x86.FlagIF, 0x7fff_0000, 0x2b}
	clac := []byte{0x0f, 0x01, 0xca}
	b.userFault(frame...)
	if _, err := b.Complete(clac, &b.regs, &b.s); err != nil {
		t.Fatal(err)
	}
	b.s.GDT.Base = 0x9000 // the next kernel's
	b.userFault(frame...)
	b.env.msrs[x86.MSRSTAR] = 0x0023_0040_0000_0000
	b.regs.RIP, b.s.SS.DPL = 0x1000, 0
	if _, err := b.Complete(clac, &b.regs, &b.s); err != nil {
		t.Fatal(err)
	}
	want(t, "CS", uint64(b.s.CS.Selector), 0x40)
	b.userFault(frame...)
	b.env.msrs[x86.MSRLSTAR] = lstar + 0x100
	b.s.CR2 = lstar + 0x100
	b.put64(int(b.regs.RSP)+8, lstar+0x100)
	b.regs.RIP, b.s.SS.DPL = 0x1000, 0
	res, err := b.Complete(clac, &b.regs, &b.s)
	if err != nil || res.Op != completion.OpSYSCALL {
		t.Fatalf("%v %v", err, res.Op)
	}
	b.Reset()
	b.userFault(frame...)
	if res, _ := b.Complete(clac, &b.regs, &b.s); res.Op != completion.OpSYSCALL {
		t.Errorf("after Reset: %v", res.Op)
	}
}

func TestInt3ReturnsBehindItself(t *testing.T) {
	b := newBench(t)
	if v := b.do(t, 0xcc); v != x86.VectorBP {
		t.Errorf("vector %d", v)
	}
	want(t, "RIP", b.regs.RIP, 0x1001)
}

func TestExtendedControlRegister(t *testing.T) {
	b := newBench(t)
	b.env.area[512] = 3
	b.do(t, 0x0f, 0x01, 0xd0)
	want(t, "XCR0", b.regs.RAX, 7)
	b.regs.RCX = 1
	b.do(t, 0x0f, 0x01, 0xd0)
	want(t, "components in use", b.regs.RAX, 3)
	b.regs.RCX = 2
	if v := b.do(t, 0x0f, 0x01, 0xd0); v != x86.VectorGP {
		t.Errorf("XGETBV of 2 raises %d", v)
	}
	b.regs.RCX, b.regs.RAX, b.regs.RDX = 0, 3, 0
	b.do(t, 0x0f, 0x01, 0xd1)
	want(t, "XCR0 set", b.env.xcr0, 3)
	for name, rax := range map[string]uint64{"without x87": 2, "AVX without SSE": 5} {
		b.regs.RAX = rax
		if v := b.do(t, 0x0f, 0x01, 0xd1); v != x86.VectorGP {
			t.Errorf("XSETBV %s raises %d", name, v)
		}
	}
	b.s.CR4 &^= x86.CR4OSXSAVE
	if v := b.do(t, 0x0f, 0x01, 0xd0); v != x86.VectorUD {
		t.Errorf("XGETBV without OSXSAVE raises %d", v)
	}
}

func TestSegmentBasesAndTSC(t *testing.T) {
	b := newBench(t)
	b.s.GS.Base, b.env.msrs[x86.MSRKernelGSBase] = 0x1111, 0x2222
	b.do(t, 0x0f, 0x01, 0xf8)
	want(t, "GS base", b.s.GS.Base, 0x2222)
	want(t, "kernel GS base", b.env.msrs[x86.MSRKernelGSBase], 0x1111)
	b.do(t, 0xf3, 0x48, 0x0f, 0xae, 0xc8) // rdgsbase rax
	want(t, "RAX", b.regs.RAX, 0x2222)
	b.regs.RBX = 0x1234_5678_9abc
	b.do(t, 0xf3, 0x48, 0x0f, 0xae, 0xd3) // wrfsbase rbx
	want(t, "FS base", b.s.FS.Base, 0x1234_5678_9abc)
	b.regs.RBX = 1 << 60
	if v := b.do(t, 0xf3, 0x48, 0x0f, 0xae, 0xd3); v != x86.VectorGP {
		t.Errorf("WRFSBASE of a non-canonical base raises %d", v)
	}
	b.env.msrs[x86.MSRTSC], b.env.msrs[x86.MSRTSCAux] = 0x1_0000_0002, 5
	b.do(t, 0x0f, 0x01, 0xf9)
	want(t, "RAX", b.regs.RAX, 2)
	want(t, "RDX", b.regs.RDX, 1)
	want(t, "RCX", b.regs.RCX, 5)
	b.do(t, 0xf3, 0x41, 0x0f, 0xc7, 0xf8) // rdpid r8
	want(t, "R8", b.regs.R8, 5)
}

func TestInvpcid(t *testing.T) {
	b := newBench(t)
	b.regs.RBX = 0x2000
	code := []byte{0x66, 0x0f, 0x38, 0x82, 0x03} // invpcid rax, [rbx]
	for rax, ok := range map[uint64]bool{0: true, 1: true, 2: true, 3: true, 4: false} {
		b.regs.RAX, b.regs.RIP = rax, 0x1000
		res, err := b.Complete(code, &b.regs, &b.s)
		if err != nil || res.Raised == ok || res.FlushTLB != ok {
			t.Errorf("type %d: %v %+v", rax, err, res)
		}
	}
	b.put64(0x2000, 0x1000) // a PCID of 13 bits
	b.regs.RAX = 1
	if v := b.do(t, code...); v != x86.VectorGP {
		t.Errorf("PCID 0x1000 raises %d", v)
	}
}

func TestControlWords(t *testing.T) {
	b := newBench(t)
	b.regs.RBX = 0x2000
	b.put64(0x2000, 0x9fc0)
	b.do(t, 0x0f, 0xae, 0x13) // ldmxcsr
	want(t, "MXCSR", uint64(binary.LittleEndian.Uint32(b.env.area[24:])), 0x9fc0)
	b.put64(0x2000, 0x1_0000)
	if v := b.do(t, 0x0f, 0xae, 0x13); v != x86.VectorGP {
		t.Errorf("LDMXCSR of a reserved bit raises %d", v)
	}
	b.put64(0x2000, 0x27f)
	b.do(t, 0xd9, 0x2b) // fldcw
	want(t, "FCW", uint64(binary.LittleEndian.Uint16(b.env.area[0:])), 0x27f)
	b.env.area[2] = 0x04 // a division by zero has happened
	b.put64(0x2000, 0x37b)
	b.do(t, 0xd9, 0x2b) // unmasks it
	if v := b.do(t, 0x9b); v != x86.VectorMF {
		t.Errorf("FWAIT raises %d", v)
	}
	b.do(t, 0xdb, 0xe2) // fnclex
	want(t, "FSW", uint64(binary.LittleEndian.Uint16(b.env.area[2:])), 0)
	b.s.CR0 |= x86.CR0TS | x86.CR0MP
	for _, code := range [][]byte{{0x9b}, {0xdb, 0xe2}, {0x0f, 0xae, 0x1b}, {0x48, 0x0f, 0xae, 0x23}} {
		if v := b.do(t, code...); v != x86.VectorNM {
			t.Errorf("% x with CR0.TS raises %d", code, v)
		}
	}
}

// Components in their initial state are not written by XSAVEC, and are named
// as absent.
func TestXSaveCLeavesOutWhatIsInitial(t *testing.T) {
	b := newBench(t)
	b.regs.RBX, b.regs.RAX = 0x2000, 7
	for i := range 1024 {
		b.ram[0x2000+i] = 0xee
	}
	b.env.area[512] = 1
	b.do(t, 0x48, 0x0f, 0xc7, 0x23)
	want(t, "XSTATE_BV", binary.LittleEndian.Uint64(b.ram[0x2200:]), 1)
	want(t, "XCOMP_BV", binary.LittleEndian.Uint64(b.ram[0x2208:]), 1<<63|7)
	if b.ram[0x2000] != 0x7f || b.ram[0x2000+160] != 0xee || b.ram[0x2000+24] != 0xee || b.ram[0x2000+576] != 0xee {
		t.Error("the legacy region is wrong")
	}
	b.env.msrs[0xda0] = 1 << 11
	if _, err := b.Complete([]byte{0x48, 0x0f, 0xc7, 0x2b}, &b.regs, &b.s); err == nil {
		t.Error("XSAVES of supervisor state that KVM does not give went well")
	}
}
