//go:build linux && amd64

package softcpu

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Differential tests: the same program runs natively in guest user mode under
// KVM and in the interpreter, from the same memory image. The program is a
// batch of cases; each loads all registers from a table, executes one
// instruction and stores all registers to another table. What a case's
// instruction writes goes to a window of memory of its own. Afterwards the
// tables and windows must be equal. A fault goes to a handler in the guest
// that tells the host, which notes the registers and sends it to the next
// case.

// Where things are in the guest: linear addresses are physical ones.
const (
	diffGDT     = 0x1000
	diffIDT     = 0x2000
	diffTSS     = 0x3000
	diffStubs   = 0x4000
	diffStack   = 0x7000 // grows down from here
	diffPML4    = 0x10000
	diffCode    = 0x100000
	diffIn      = 0x400000
	diffOut     = 0x800000
	diffScratch = 0xc00000
	diffAbsent  = 0xe00000
	diffROnly   = 0xe01000
	diffKernel  = 0xe02000
	diffSize    = 16 << 20

	diffWindow = 256 // bytes of memory for a case
	diffSlot   = 1024
	diffCases  = 512 // of a batch
	diffFX     = 256 // of the FXSAVE image in a slot
)

// machine is what both sides offer.
type machine interface {
	Run() (x86.Exit, error)
	Regs() (x86.Regs, error)
	SetRegs(*x86.Regs) error
	Sregs() (x86.Sregs, error)
	SetSregs(*x86.Sregs) error
}

// side is one of the two processors.
type side struct {
	name string
	ram  []byte
	cpu  machine
}

func le64(b []byte) uint64       { return binary.LittleEndian.Uint64(b) }
func put64(b []byte, v uint64)   { binary.LittleEndian.PutUint64(b, v) }
func put16(b []byte, v uint16)   { binary.LittleEndian.PutUint16(b, v) }
func put32at(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }

func newKVMSide(t testing.TB) *side {
	sys, err := kvm.Open()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = sys.Close() })
	vm, err := sys.CreateVM()
	if err != nil {
		t.Skip(err)
	}
	g := diffMemory(t)
	if err := vm.MapMemory(g); err != nil {
		t.Fatal(err)
	}
	table, err := sys.SupportedCPUID()
	if err != nil {
		t.Fatal(err)
	}
	c, err := vm.CreateVCPU(0, table)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = vm.Close() })
	return &side{"kvm", g.Regions()[0].Bytes, c}
}

func newSoftSide(t testing.TB) *side {
	vm, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	g := diffMemory(t)
	if err := vm.MapMemory(g); err != nil {
		t.Fatal(err)
	}
	c, err := vm.CreateVCPU(0, cpuidModel())
	if err != nil {
		t.Fatal(err)
	}
	return &side{"soft", g.Regions()[0].Bytes, c}
}

func diffMemory(t testing.TB) *memory.Guest {
	g, err := memory.New(diffSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	diffSystem(g.Regions()[0].Bytes)
	return g
}

// diffSystem writes page tables, descriptor tables and fault handlers.
func diffSystem(m []byte) {
	const table = 0x1000
	put64(m[diffPML4:], diffPML4+table|7)
	put64(m[diffPML4+table:], diffPML4+2*table|7)
	for i := range uint64(diffSize >> 21) {
		pt := diffPML4 + (3+i)*table
		put64(m[diffPML4+2*table+8*i:], pt|7)
		for j := range uint64(512) {
			page := i<<21 | j<<12
			e := page | 0x67
			switch {
			case page == diffAbsent:
				e = 0
			case page == diffROnly:
				e &^= pteWrite
			case page == diffKernel, page < diffCode:
				e &^= pteUser
			}
			put64(m[pt+8*j:], e)
		}
	}
	put64(m[diffGDT+0x08:], 0x00af9b000000ffff) // kernel code
	put64(m[diffGDT+0x10:], 0x00cf93000000ffff) // kernel data
	put64(m[diffGDT+0x18:], 0x00cff3000000ffff) // user data
	put64(m[diffGDT+0x20:], 0x00affb000000ffff) // user code
	put64(m[diffGDT+0x28:], 0x0000890000000067|diffTSS<<16)
	put64(m[diffTSS+4:], diffStack)
	for v := range uint64(32) {
		at := diffStubs + 16*v
		dpl := uint64(0xe)
		if v == 3 || v == 4 {
			dpl = 0x6e
		}
		put64(m[diffIDT+16*v:], at&0xffff|8<<16|(0x80|dpl)<<40)
		code := []byte{0xe6, byte(v)} // out v, al
		if v == 8 || v >= 10 && v <= 14 || v == 17 {
			code = append(code, 0x48, 0x83, 0xc4, 8) // add rsp, 8
		}
		copy(m[at:], append(code, 0x48, 0xcf)) // iretq
	}
}

// start sets the registers to run user code at rip.
func (s *side) start(t testing.TB, rip uint64) {
	r, err := s.cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	r.CR0, r.CR3, r.EFER = 0x80050033, diffPML4, x86.EFERLME|x86.EFERLMA|x86.EFERSCE
	r.CR4 = x86.CR4PAE | x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4FSGSBASE
	data := x86.Segment{Limit: ^uint32(0), Selector: 0x1b, Type: 3, Present: 1, DPL: 3, DB: 1, S: 1, G: 1}
	r.DS, r.ES, r.FS, r.GS, r.SS = data, data, data, data, data
	r.CS = x86.Segment{Limit: ^uint32(0), Selector: 0x23, Type: 11, Present: 1, DPL: 3, S: 1, L: 1, G: 1}
	r.GDT = x86.DTable{Base: diffGDT, Limit: 0x37}
	r.IDT = x86.DTable{Base: diffIDT, Limit: 0x1ff}
	r.TR = x86.Segment{Base: diffTSS, Limit: 0x67, Selector: 0x28, Type: 11, Present: 1}
	if err := s.cpu.SetSregs(&r); err != nil {
		t.Fatal(err)
	}
	if err := s.cpu.SetRegs(&x86.Regs{RIP: rip, RFLAGS: 2 | x86.FlagIF}); err != nil {
		t.Fatal(err)
	}
}

// diffFault is how a case ended that did not complete.
type diffFault struct {
	vector    uint8
	code, rip uint64
	cr2       uint64
	regs      x86.Regs
}

// run executes a batch and returns the faults by case.
func (s *side) run(t testing.TB, b *diffBatch) map[int]diffFault {
	t.Helper()
	copy(s.ram[diffCode:], b.code)
	clear(s.ram[diffCode+len(b.code) : diffIn])
	copy(s.ram[diffIn:], b.in)
	clear(s.ram[diffOut : diffOut+diffCases*diffSlot])
	copy(s.ram[diffScratch:], b.scratch)
	copy(s.ram[diffROnly:diffROnly+4096], b.scratch)
	copy(s.ram[diffAbsent-4096:diffAbsent], b.scratch)
	if v, ok := s.cpu.(*VCPU); ok {
		v.c.dropCode()
	}
	s.start(t, diffCode)
	faults := map[int]diffFault{}
	last := diffCode + uint64(len(b.code)) - 2
	for {
		x, err := s.cpu.Run()
		if err != nil {
			t.Fatal(err)
		}
		if x.Reason == x86.ExitInterrupted {
			continue
		}
		if x.Reason != x86.ExitIO || x.Port >= 32 {
			r, _ := s.cpu.Regs()
			t.Fatalf("%s: exit %v at %#x port %#x: %s", s.name, x.Reason, r.RIP, x.Port, b.around(r.RIP))
		}
		f, frame := s.fault(t, uint8(x.Port))
		k := b.caseAt(f.rip)
		if f.rip == last {
			return faults
		}
		if k == len(b.cases) {
			t.Fatalf("%s: lost at %#x: vector %d code %#x cr2 %#x", s.name, f.rip, f.vector, f.code, f.cr2)
		}
		if _, ok := faults[k]; ok {
			t.Fatalf("%s: two faults in case %d: %+v, %s", s.name, k, f, b.cases[k])
		}
		faults[k] = f
		put64(s.ram[frame:], b.cases[k].end)
		put64(s.ram[frame+16:], 2|x86.FlagIF)
	}
}

// fault reads what the handler's stack and the registers say.
func (s *side) fault(t testing.TB, vector uint8) (f diffFault, frame uint64) {
	f.vector = vector
	frame = diffStack - 40
	if vector == 8 || vector >= 10 && vector <= 14 || vector == 17 {
		f.code = le64(s.ram[frame-8:])
	}
	f.rip = le64(s.ram[frame:])
	var err error
	if f.regs, err = s.cpu.Regs(); err != nil {
		t.Fatal(err)
	}
	f.regs.RIP, f.regs.RSP = f.rip, le64(s.ram[frame+24:])
	f.regs.RFLAGS = le64(s.ram[frame+16:]) &^ x86.FlagRF
	if vector == vectorPF {
		sr, err := s.cpu.Sregs()
		if err != nil {
			t.Fatal(err)
		}
		f.cr2 = sr.CR2
	}
	return f, frame
}

// diffBatch is a program of cases and its data.
type diffBatch struct {
	code, in, scratch []byte
	cases             []diffCase
	fx                bool
}

// diffCase is one instruction and where it stands.
type diffCase struct {
	name       string
	insn       []byte
	at, end    uint64 // of the instruction, of the next case
	undefFlags uint64
	undefReg   int // a register whose result is undefined, or -1
	// clears: the upper halves of RSI and RDI may be cleared by an instruction
	// that moves nothing, as Intel's processors do with fast strings (compare
	// string_registers_quirk in Linux, arch/x86/kvm/emulate.c).
	clears bool
	nans   int // an XMM register that may hold any quiet NaN for another, or -1
	in     []byte
}

func (c diffCase) String() string {
	return fmt.Sprintf("%s [% x]", c.name, c.insn)
}

// caseAt is the case whose instruction is at rip; len(cases) for the end.
func (b *diffBatch) caseAt(rip uint64) int {
	for k := range b.cases {
		if rip >= b.cases[k].at && rip < b.cases[k].end {
			return k
		}
	}
	return len(b.cases)
}

func (b *diffBatch) around(rip uint64) string {
	if k := b.caseAt(rip); k < len(b.cases) {
		return b.cases[k].String()
	}
	return "no case"
}

// Offsets in a slot of the input and output tables.
const (
	slotFlags = 128
	slotTop   = 136 // above the flags, where the stack is for POPF and PUSHF
)

// add appends a case: load, execute, store.
func (b *diffBatch) add(c diffCase, in []byte) {
	k := len(b.cases)
	slotIn, slotOut := uint64(diffIn+k*diffSlot), uint64(diffOut+k*diffSlot)
	copy(b.in[k*diffSlot:], in)
	if b.fx {
		b.rip([]byte{0x48, 0x0f, 0xae, 0x0d}, slotIn+diffFX) // fxrstor64
	}
	b.rip([]byte{0x48, 0x8d, 0x25}, slotIn+slotFlags) // lea rsp
	b.code = append(b.code, 0x9d)                     // popf
	for n := range uint64(16) {
		b.rip([]byte{0x48 | byte(n>>3)<<2, 0x8b, 0x05 | byte(n&7)<<3}, slotIn+8*n)
	}
	c.at = diffCode + uint64(len(b.code))
	b.code = append(b.code, c.insn...)
	b.rip([]byte{0x48, 0x89, 0x25}, slotOut+8*rSP)
	for n := range uint64(16) {
		if n != rSP {
			b.rip([]byte{0x48 | byte(n>>3)<<2, 0x89, 0x05 | byte(n&7)<<3}, slotOut+8*n)
		}
	}
	b.rip([]byte{0x48, 0x8d, 0x25}, slotOut+slotTop)
	b.code = append(b.code, 0x9c, 0xfc) // pushf; cld
	if b.fx {
		b.rip([]byte{0x48, 0x0f, 0xae, 0x05}, slotOut+diffFX) // fxsave64
	}
	c.end = diffCode + uint64(len(b.code))
	c.in = in
	b.cases = append(b.cases, c)
}

// rip appends an instruction with a RIP-relative operand.
func (b *diffBatch) rip(op []byte, target uint64) {
	b.code = append(b.code, op...)
	next := diffCode + uint64(len(b.code)) + 4
	b.code = binary.LittleEndian.AppendUint32(b.code, uint32(target-next))
}

// x87Stores are those whose result may raise an exception.
var x87Stores = []string{
	"x87 d9/2", "x87 d9/3", // FST, FSTP, of 32 bits
	"x87 db/1", "x87 db/2", "x87 db/3", // FISTTP, FIST, FISTP
	"x87 db/7",                         // FSTP, of 80 bits: an empty register
	"x87 dd/1", "x87 dd/2", "x87 dd/3", // FISTTP, FST, FSTP, of 64 bits
	"x87 df/1", "x87 df/2", "x87 df/3", // FISTTP, FIST, FISTP, of 16 bits
	"x87 df/6", "x87 df/7", // FBSTP; FISTP, of 64 bits
}

// compareCase says how the two sides differ in case k, if they do.
func (b *diffBatch) compareCase(k int, want, got *side, wf, gf map[int]diffFault) string {
	c := &b.cases[k]
	w, wok := wf[k]
	g, gok := gf[k]
	switch {
	case wok && gok && (g.vector == vectorGP || g.vector == vectorPF && w.vector == vectorUD):
		// Some hosts emulate what raises #GP, and report what becomes of
		// that.
		return ""
	case !wok && gok && (g.vector == vectorPF || g.vector == vectorGP || g.vector == vectorSS) && slices.Contains(x87Stores, c.name) &&
		le64(want.ram[diffOut+k*diffSlot+diffFX:])>>16&swES != 0:
		// An x87 store with an unmasked exception stores nothing: some
		// processors do not look at its operand then, the order being theirs
		// (SDM vol. 3, 6.9, table 6-2).
		return ""
	case wok != gok || w.vector != g.vector:
		return fmt.Sprintf("kvm faults %v %d, soft %v %d (rip+%d, code %#x)", wok, w.vector, gok, g.vector, g.rip-c.at, g.code)
	case wok:
		if what := w.differs(&g, c); what != "" {
			return what
		}
	default:
		if what := b.differs(want.ram, got.ram, k); what != "" {
			return what
		}
	}
	at := diffScratch + k*diffWindow
	for i := range diffWindow {
		if w, g := want.ram[at+i], got.ram[at+i]; w != g {
			return fmt.Sprintf("memory window+%d: kvm %#x, soft %#x", i, w, g)
		}
	}
	return ""
}

func (w *diffFault) differs(g *diffFault, c *diffCase) string {
	if w.code != g.code || w.rip != g.rip || w.cr2 != g.cr2 {
		return fmt.Sprintf("fault %d: kvm code %#x rip+%d cr2 %#x, soft code %#x rip+%d cr2 %#x",
			w.vector, w.code, w.rip-c.at, w.cr2, g.code, g.rip-c.at, g.cr2)
	}
	for n := range uint8(16) {
		if w, g := *w.regs.GPR(n), *g.regs.GPR(n); w != g && !c.cleared(n, w, g) {
			return fmt.Sprintf("r%d at fault: kvm %#x, soft %#x", n, w, g)
		}
	}
	undefined := c.undefFlags
	if c.name == "cmps" || c.name == "scas" {
		// A fault of a repeated one brings the flags back from before it
		// (SDM vol. 2, REP); AMD's processors leave those of the last element.
		if before := le64(c.in[slotFlags:]); (g.regs.RFLAGS^before)&arith != 0 {
			return fmt.Sprintf("flags at fault: before %#x, soft %#x", before, g.regs.RFLAGS)
		}
		undefined = arith
	}
	if d := (w.regs.RFLAGS ^ g.regs.RFLAGS) &^ undefined; d != 0 {
		return fmt.Sprintf("flags at fault: kvm %#x, soft %#x", w.regs.RFLAGS, g.regs.RFLAGS)
	}
	return ""
}

// cleared says whether register n is one that the case may clear half of.
func (c *diffCase) cleared(n uint8, w, g uint64) bool {
	return c.clears && (n == rSI || n == rDI) && w == uint64(uint32(g))
}

// differs compares the output slots of case k.
func (b *diffBatch) differs(want, got []byte, k int) string {
	c := &b.cases[k]
	w, g := want[diffOut+k*diffSlot:][:diffSlot], got[diffOut+k*diffSlot:][:diffSlot]
	for n := range 16 {
		if w, g := le64(w[8*n:]), le64(g[8*n:]); w != g && n != c.undefReg && !c.cleared(uint8(n), w, g) {
			return fmt.Sprintf("r%d: kvm %#x, soft %#x", n, w, g)
		}
	}
	if b.fx && le64(w[diffFX:])>>16&swES != 0 {
		return ""
	}
	if d := (le64(w[slotFlags:]) ^ le64(g[slotFlags:])) &^ c.undefFlags; d != 0 {
		return fmt.Sprintf("flags: kvm %#x, soft %#x (differ in %#x)", le64(w[slotFlags:]), le64(g[slotFlags:]), d)
	}
	if b.fx {
		var loose uint16
		switch {
		case le64(w[diffFX:])>>16&swES != 0: // an unmasked exception leaves much undefined
			return ""
		case strings.HasPrefix(c.name, "x87 d") && strings.Contains("x87 db/5 x87 db/6 x87 df/5 x87 df/6 x87 dd/0 x87 df/0", c.name):
			loose = swC1
		}
		put16(w[diffFX+2:], uint16(le64(w[diffFX:])>>16)&^loose)
		put16(g[diffFX+2:], uint16(le64(g[diffFX:])>>16)&^loose)
		if c.nans >= 0 {
			at := diffFX + 160 + 16*c.nans
			sameNaNs(w[at:at+16], g[at:at+16], c.name == "dppd")
		}
		return fxDiffers(w[diffFX:], g[diffFX:])
	}
	return ""
}

// sameNaNs makes one of two quiet NaNs in the same element of the result of a
// DPPS or DPPD: which of several gets where depends on the implementation (SDM
// vol. 2, DPPS and DPPD).
func sameNaNs(w, g []byte, double bool) {
	const single64, double64 = 0x7fc00000, 0x7ff8 << 48
	for at := 0; at < 16; at += 8 {
		x, y := le64(w[at:]), le64(g[at:])
		masks := []uint64{1<<32 - 1, (1<<32 - 1) << 32}
		nan := uint64(single64<<32 | single64)
		if double {
			masks, nan = []uint64{^uint64(0)}, double64
		}
		for _, m := range masks {
			if x&nan&m == nan&m && y&nan&m == nan&m {
				y = y&^m | x&m
			}
		}
		put64(g[at:], y)
	}
}

// fxDiffers compares FXSAVE images without the x87's instruction pointers,
// which not every processor saves, and without the reserved bytes.
func fxDiffers(w, g []byte) string {
	for _, f := range []struct {
		name    string
		at, len int
	}{{"fcw", 0, 2}, {"fsw", 2, 2}, {"ftw", 4, 1}, {"mxcsr", 24, 4}} {
		if x, y := w[f.at:f.at+f.len], g[f.at:f.at+f.len]; string(x) != string(y) {
			return fmt.Sprintf("%s: kvm %x, soft %x", f.name, x, y)
		}
	}
	for i := range 8 {
		if x, y := w[32+16*i:][:10], g[32+16*i:][:10]; string(x) != string(y) {
			return fmt.Sprintf("st%d: kvm %x %x, soft %x %x", i, x[8:], le64(x), y[8:], le64(y))
		}
	}
	for i := range 16 {
		if x, y := w[160+16*i:][:16], g[160+16*i:][:16]; string(x) != string(y) {
			return fmt.Sprintf("xmm%d: kvm %016x %016x, soft %016x %016x", i, le64(x[8:]), le64(x), le64(y[8:]), le64(y))
		}
	}
	return ""
}
