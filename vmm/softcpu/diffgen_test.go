//go:build linux && amd64

package softcpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/kvm"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// diffGen makes random cases.
type diffGen struct {
	r    *rand.Rand
	d    decoder
	only string
}

func newDiffGen(seed uint64) *diffGen {
	g := &diffGen{r: rand.New(rand.NewPCG(seed, 1))}
	g.d.c = &cpu{vm: &VM{}}
	g.d.c.cpl = 3
	return g
}

// skipped are instructions whose result depends on more than their operands,
// or that leave the case.
var skipped = map[string]bool{
	"cpuid": true, "rdtsc": true, "rdtscp": true, "rdrand": true, "rdseed": true, "xgetbv": true, "syscall": true,
	"sysenter": true, "sysexit": true, "sysret": true, "iret": true, "int": true, "int3": true, "int1": true, "call": true, "ret": true,
	"callf": true, "retf": true, "jmpf": true, "jmp": true, "popf": true, "pop fs": true, "xsave": true, "xrstor": true,
	"ldmxcsr": true, "rsqrtps": true, "rsqrtss": true, "rcpps": true, "rcpss": true, "wrfsbase": true, "wrgsbase": true, "rdfsbase": true, "rdgsbase": true,
	"(undefined)": true, "ud0": true, "ud1": true, "enter": true, "sldt": true, "str": true, "smsw": true, "sgdt": true, "sidt": true,
	"lseg": true, "verr": true, "verw": true, "lar": true, "lsl": true, "rdpmc": true, "fxrstor": true, "invlpg": true,
	"prefetch": true, "in": true, "out": true, "ins": true, "outs": true, "fxsave": true, "rdpid": true, "ltr": true, "lldt": true, "lmsw": true,
	"swapgs": true, "clac": true, "stac": true, "hlt": true, "cli": true, "sti": true, "xsetbv": true, "invpcid": true, "mov cr": true,
}

// encoding is an opcode the generator may use.
func (g *diffGen) encoding() []byte {
	r := g.r
	var b []byte
	switch r.IntN(8) {
	case 0:
		b = append(b, 0x66)
	case 1:
		b = append(b, [2]byte{0xf2, 0xf3}[r.IntN(2)])
	case 2:
		b = append(b, 0x66, [2]byte{0xf2, 0xf3}[r.IntN(2)])
	}
	if r.IntN(24) == 0 {
		b = append(b, 0x67)
	}
	if r.IntN(40) == 0 {
		b = append(b, 0xf0)
	}
	if r.IntN(24) == 0 {
		return g.vex(b[:0])
	}
	if r.IntN(2) == 0 {
		b = append(b, 0x40|byte(r.IntN(16)))
	}
	switch r.IntN(5) {
	case 0, 1:
		b = append(b, byte(r.Uint32()))
	case 2, 3:
		b = append(b, 0x0f, byte(r.Uint32()))
	default:
		b = append(b, 0x0f, [2]byte{0x38, 0x3a}[r.IntN(2)], byte(r.Uint32()))
	}
	for range 12 {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

func (g *diffGen) vex(b []byte) []byte {
	v := vexTable[g.r.IntN(len(vexTable))]
	b = append(b, 0xc4, byte(g.r.IntN(8))<<5|v.m, byte(g.r.IntN(32))<<3|v.pp, v.op)
	for range 8 {
		b = append(b, byte(g.r.Uint32()))
	}
	return b
}

// instruction is a random one that can be tested, decoded.
func (g *diffGen) instruction(fx bool) (code []byte, in inst, op *opcode) {
	for {
		code = g.encoding()
		var page hostPage
		copy(page[:], code)
		g.d.page, g.d.pos, g.d.mode, g.d.err, g.d.second = &page, 0, mode64|modeUser, decodeOK, nil
		g.d.decode(&in)
		op = g.d.op
		if g.d.err != decodeOK || op == nil || skipped[op.name] {
			continue
		}
		isFX := op.attr&(aSSE|aX87|aMMX) != 0
		if isFX != fx || g.only != "" && g.only != op.name && !strings.HasPrefix(op.name, g.only) {
			continue
		}
		if in.fn == nil || g.unsuited(&in, op, code[:in.next]) {
			continue
		}
		return code[:in.next], in, op
	}
}

// unsuited are forms that the frame of a case does not support.
func (g *diffGen) unsuited(in *inst, op *opcode, code []byte) bool {
	switch {
	case op.attr&aPriv != 0, op.attr&aEnd != 0 && !strings.HasPrefix(op.name, "j") && !strings.HasPrefix(op.name, "loop"):
		return true
	case op.attr&aF64 != 0 && in.flags&flagOp16 != 0: // not the same on all processors
		return true
	case op.name == "x87":
		return g.unsuitedX87(in)
	case in.mem && op.attr&aNoData == 0 && (in.base == rPage || in.base == rZero && op.attr&aString == 0),
		op.imm == immMoffs, in.base < 16 && in.base == in.index && in.mem:
		return true
	case in.seg != rZero, op.name == "pop" && op.attr&aOpReg == 0 && !in.mem && op.attr&aModRM == 0, op.name == "push" && op.attr&(aModRM|aOpReg) == 0 && op.imm == immNone:
		return true
	case op.name == "mov" && (opcodeByte(code) == 0x8c || opcodeByte(code) == 0x8e):
		return true
	case strings.HasPrefix(op.name, "bt") && in.mem && in.reg == in.base, op.name == "bound", op.name == "emms" && (in.rep != 0 || in.flags&flagOp16 != 0), fxUndefined(in, op):
		return true
	case in.flags&flagLock != 0 && (op.name == "nop" || op.name == "fence"), in.rep != 0 && op.attr&aF64 != 0, op.name == "clflushopt" && !in.mem:
		return true // not the same on all processors
	case (op.name == "shld" || op.name == "shrd") && in.size == 2: // undefined for large counts
		return true
	case (op.name == "movbe" || op.name == "crc32" || op.name == "nop") && in.rep != 0 && in.flags&flagOp16 != 0:
		return true
	}
	// Prefixes that are not part of the encoding mean other instructions on
	// processors with newer extensions.
	return op.attr&(aSSE|aMMX) == 0 && in.rep != 0 && op.attr&aString == 0 && opcodeByte(code) == 0x0f && op.name != "crc32" && op.name != "popcnt" && op.name != "tzcnt" && op.name != "lzcnt" && op.name != "adox"
}

// fxUndefined are register forms of stores that not all processors refuse.
func fxUndefined(in *inst, op *opcode) bool {
	return op.attr&(aSSE|aMMX) != 0 && op.attr&aMem != 0 && !in.mem
}

// opcodeByte is the first byte behind the prefixes.
func opcodeByte(code []byte) byte {
	for _, b := range code {
		switch {
		case b == 0x26 || b == 0x2e || b == 0x36 || b == 0x3e || b == 0x64 || b == 0x65 || b == 0x66 || b == 0x67 || b == 0xf0 || b == 0xf2 || b == 0xf3 || b&0xf0 == 0x40:
		default:
			return b
		}
	}
	return 0
}

// unsuitedX87: transcendentals, which are not bit for bit the same on two
// processors, environments, and encodings that the manual does not have.
func (g *diffGen) unsuitedX87(in *inst) bool {
	reg, rm := in.reg&7, in.rm&7
	if in.mem {
		return in.base == rPage || in.base == rZero || in.base == in.index || in.seg != rZero ||
			(in.op == 1 || in.op == 5) && reg >= 4 && !(in.op == 1 && (reg == 5 || reg == 7)) && !(in.op == 5 && reg == 7) ||
			in.op == 1 && reg == 1 || in.op == 3 && (reg == 4 || reg == 6) || in.op == 5 && reg == 5
	}
	switch in.op {
	case 1:
		if reg == 6 || reg == 7 {
			k := reg&1<<3 | rm
			return k == mF2xm1 || k == mFyl2x || k == mFptan || k == mFpatan || k == mFyl2xp1 || k == mFsincos || k == mFsin || k == mFcos
		}
		return reg == 3 || reg == 2 && rm != 0 || reg == 4 && (rm == 2 || rm == 3 || rm >= 6) || reg == 5 && rm == 7
	case 2:
		return reg > 5 || reg == 4 || reg == 5 && rm != 1
	case 3:
		return reg == 7 || reg == 4 && rm != 2 && rm != 3
	case 4:
		return reg == 2 || reg == 3
	case 5:
		return reg == 1 || reg > 5
	case 6:
		return reg == 2 || reg == 3 && rm != 1
	case 7:
		return reg < 4 || reg == 4 && rm != 0 || reg == 7
	}
	return false
}

var interesting = []uint64{0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff,
	1<<63 - 1, 1 << 63, ^uint64(0), 0x0123456789abcdef}

func (g *diffGen) value() uint64 {
	switch g.r.IntN(4) {
	case 0:
		return interesting[g.r.IntN(len(interesting))]
	case 1:
		return g.r.Uint64() >> g.r.IntN(64)
	case 2:
		return -(g.r.Uint64() >> g.r.IntN(64))
	}
	return g.r.Uint64()
}

// slot is the input of case k with instruction in.
func (g *diffGen) slot(k int, in *inst, op *opcode) []byte {
	b := make([]byte, diffSlot)
	window := uint64(diffScratch + k*diffWindow)
	var regs [32]uint64
	for n := range 16 {
		regs[n] = g.value()
	}
	if strings.HasPrefix(op.name, "div") || strings.HasPrefix(op.name, "idiv") {
		regs[rDX] = g.r.Uint64() >> (40 + g.r.IntN(24))
		if g.r.IntN(2) == 0 {
			regs[rDX] = uint64(int64(regs[rAX]) >> 63)
		}
	}
	if op.name[0] == 'b' && in.mem && (op.name == "bt" || len(op.name) == 3) {
		regs[in.reg&15] = uint64(g.r.IntN(512) - 256)
		regs[in.reg&15] = uint64(int64(int8(g.r.Uint32())))
	}
	g.stackRegs(&regs, window, op)
	if in.mem && op.attr&aNoData == 0 || op.name == "x87" && in.mem || strings.HasPrefix(op.name, "bt") && in.mem {
		target := g.target(window)
		if target < diffAbsent && faultsElsewhere(in, op) {
			target = window + 64
		}
		g.aim(&regs, in, target)
	}
	if op.attr&aString != 0 {
		regs[rSI], regs[rDI] = g.target(window), g.target(window)
		regs[rCX] = uint64(g.r.IntN(6))
		if op.name == "cmps" { // which operand faults first is not the same on all
			regs[[2]uint8{rSI, rDI}[g.r.IntN(2)]] = window + 64 + uint64(g.r.IntN(64))
		}
		if strings.HasPrefix(op.name, "maskmov") { // which byte faults first is not the same on all
			regs[rDI] = window + 64 + uint64(g.r.IntN(64))
		}
		if op.name == "xlat" {
			regs[rBX] = window + 64 - regs[rAX]&0xff
		}
	}
	for n := range 16 {
		put64(b[8*n:], regs[n])
	}
	flags := uint64(2) | g.r.Uint64()&arith
	if g.r.IntN(4) == 0 {
		flags |= x86.FlagDF
	}
	put64(b[slotFlags:], flags)
	g.fx(b[diffFX:])
	return b
}

// faultsElsewhere says of instructions that not all processors let fault at the
// end of a page alike: an FSTP or FBSTP of ten bytes may write some of them
// first, where other cases read, and AMD's MOVSXD of 16 bits reads 32.
func faultsElsewhere(in *inst, op *opcode) bool {
	ten := in.op == 3 && in.reg&7 == 7 || in.op == 7 && in.reg&7 == 6
	return op.name == "x87" && ten || op.name == "movsxd" && in.size == 2
}

// stackRegs gives instructions that use the stack one.
func (g *diffGen) stackRegs(regs *[32]uint64, window uint64, op *opcode) {
	switch op.name {
	case "push", "pop", "pushf":
		regs[rSP] = window + 64 + uint64(g.r.IntN(16))
	case "leave":
		regs[rBP] = window + 64
	}
}

// target is where memory is accessed: nearly always in the case's window.
func (g *diffGen) target(window uint64) uint64 {
	switch g.r.IntN(60) {
	case 0:
		return diffAbsent + uint64(g.r.IntN(4096))
	case 1:
		return diffROnly + uint64(g.r.IntN(4096))
	case 2:
		return diffKernel + uint64(g.r.IntN(4096))
	case 3:
		return 0x8000_0000_0000 + uint64(g.r.IntN(32))
	case 4:
		return diffAbsent - uint64(g.r.IntN(16))
	}
	a := window + 64 + uint64(g.r.IntN(64))
	if g.r.IntN(4) != 0 {
		a &^= 15
	}
	return a
}

// aim sets the base register so that the operand is at target.
func (g *diffGen) aim(regs *[32]uint64, in *inst, target uint64) {
	regs[in.base&31] = target - regs[in.index&31]<<in.scale - in.disp
	if in.asize == 4 && g.r.IntN(2) == 0 {
		regs[in.base&31] &= 0xffffffff
	}
	regs[rZero] = 0
}

// fx makes an FXSAVE image.
func (g *diffGen) fx(b []byte) {
	r := g.r
	cw := uint16(0x37f)
	if r.IntN(3) == 0 {
		cw = cw&^0xf00 | uint16([]int{0, 2, 3}[r.IntN(3)])<<8 | uint16(r.IntN(4))<<10
	}
	if r.IntN(40) == 0 {
		cw &^= uint16(r.IntN(64))
	}
	put16(b, cw)
	put16(b[2:], uint16(r.IntN(8))<<11|uint16(r.Uint32())&0x4700|uint16(r.IntN(2)*r.IntN(64))&^(^cw&0x3f))
	b[4] = 0xff
	if r.IntN(6) == 0 {
		b[4] = byte(r.Uint32())
	}
	mx := uint32(0x1f80) | uint32(r.IntN(2))<<5
	if r.IntN(3) == 0 {
		mx |= uint32(r.IntN(4)) << 13
	}
	if r.IntN(16) == 0 {
		mx ^= uint32(r.Uint32()) & 0x8040
	}
	if r.IntN(40) == 0 {
		mx &^= uint32(r.IntN(64)) << 7
	}
	put32at(b[24:], mx)
	for i := range 8 {
		se, frac := g.extended()
		put64(b[32+16*i:], frac)
		put16(b[40+16*i:], se)
	}
	for i := range 16 {
		put64(b[160+16*i:], g.lane())
		put64(b[168+16*i:], g.lane())
	}
}

// lane is 64 bits of an XMM register: doubles, singles, integers.
func (g *diffGen) lane() uint64 {
	switch g.r.IntN(4) {
	case 0:
		return math.Float64bits(g.double())
	case 1:
		return uint64(math.Float32bits(g.single())) | uint64(math.Float32bits(g.single()))<<32
	}
	return g.value()
}

func (g *diffGen) double() float64 {
	special := []uint64{0, 1 << 63, 1, 0x7ff << 52, 0xfff << 52, 0x7ff8 << 48, 0x7ff0000000000001, 0xfff8000000000123,
		1 << 52, 1<<52 - 1, 0x3ff << 52, 0xbff << 52, 0x7fefffffffffffff, 0x43e0000000000000, 0xc3e0000000000000, 0x41dfffffffc00000}
	switch g.r.IntN(4) {
	case 0:
		return math.Float64frombits(special[g.r.IntN(len(special))])
	case 1:
		return float64(g.r.IntN(2000)-1000) / 4
	}
	return math.Float64frombits(g.r.Uint64()&^(0x7ff<<52) | (1023-40+g.r.Uint64N(80))<<52)
}

func (g *diffGen) single() float32 {
	special := []uint32{0, 1 << 31, 1, 0xff << 23, 0x1ff << 23, 0x7fc00000, 0x7f800001, 0xffc00123, 1 << 23, 1<<23 - 1, 0x7f << 23, 0x7f7fffff, 0x4f000000}
	switch g.r.IntN(4) {
	case 0:
		return math.Float32frombits(special[g.r.IntN(len(special))])
	case 1:
		return float32(g.r.IntN(2000)-1000) / 4
	}
	return math.Float32frombits(g.r.Uint32()&^(0xff<<23) | (127-20+g.r.Uint32N(40))<<23)
}

func (g *diffGen) extended() (uint16, uint64) {
	switch g.r.IntN(10) {
	case 0:
		return []uint16{0, 0x8000, 0x7fff, 0xffff}[g.r.IntN(4)], []uint64{0, 1 << 63, 3 << 62, 1<<63 | 1, 1}[g.r.IntN(5)]
	case 1:
		return uint16(g.r.Uint32()), g.r.Uint64()
	case 2:
		v := uint64(g.r.IntN(100) + 1)
		z := uint(0)
		for v>>63 == 0 {
			v, z = v<<1, z+1
		}
		return uint16(16383+63-z) | uint16(g.r.IntN(2))<<15, v
	case 3:
		return uint16(g.r.IntN(2)) << 15, g.r.Uint64() >> g.r.IntN(64)
	}
	return uint16(16383-40+g.r.IntN(80)) | uint16(g.r.IntN(2))<<15, g.r.Uint64() | 1<<63
}

// undefined are the flags, and the register, that an instruction leaves
// undefined (SDM vol. 1, appendix A, and the instructions' pages).
func undefinedState(in *inst, op *opcode, slot []byte) (flags uint64, reg int) {
	const cf, pf, af, zf, sf, of = x86.FlagCF, x86.FlagPF, x86.FlagAF, x86.FlagZF, x86.FlagSF, x86.FlagOF
	count := in.imm & 0xff
	if op.imm == immNone {
		count = slotReg(slot, rCX) & 0xff
	}
	if in.size == 8 {
		count &= 63
	} else {
		count &= 31
	}
	switch op.name {
	case "mul", "imul":
		return sf | zf | af | pf, -1
	case "div", "idiv":
		return arith, -1
	case "and", "or", "xor", "test":
		return af, -1
	case "shl", "shr", "sal", "sar", "shld", "shrd":
		if op.name[2] != 'd' && isShift1(in, op) {
			return af, -1
		}
		if count == 0 {
			return 0, -1
		}
		flags = af
		if count != 1 {
			flags |= of
		}
		if count >= uint64(in.size)*8 {
			flags |= cf
		}
		if (op.name == "shld" || op.name == "shrd") && count > uint64(in.size)*8 {
			return arith, int(in.rm)
		}
		return flags, -1
	case "rol", "ror", "rcl", "rcr":
		if isShift1(in, op) || count == 1 || count == 0 {
			return 0, -1
		}
		return of, -1
	case "bt", "bts", "btr", "btc":
		return of | sf | af | pf, -1
	case "bsf", "bsr":
		return of | sf | af | pf | cf, -1
	case "tzcnt", "lzcnt":
		return of | sf | af | pf, -1
	case "bextr":
		return af | sf | pf, -1
	case "andn", "bzhi", "blsr", "blsmsk", "blsi":
		return af | pf, -1
	}
	return 0, -1
}

// isShift1 says whether the count is the 1 of the opcode.
func isShift1(in *inst, op *opcode) bool { return op.imm == immNone && in.imm == 1 }

func slotReg(slot []byte, n int) uint64 { return le64(slot[8*n:]) }

// batch makes a batch of cases.
func (g *diffGen) batch(fx bool, n int, count map[string]int) *diffBatch {
	b := &diffBatch{fx: fx, in: make([]byte, diffCases*diffSlot), scratch: make([]byte, diffCases*diffWindow)}
	for i := 0; i < len(b.scratch); i += 8 {
		put64(b.scratch[i:], g.lane())
	}
	for k := range n {
		code, in, op := g.instruction(fx)
		if op.imm == immNone && (opcodeByte(code)&0xfe == 0xd0) {
			in.imm = 1 // for isShift1
		}
		slot := g.slot(k, &in, op)
		c := diffCase{name: op.name, insn: append([]byte(nil), code...), undefReg: -1, nans: -1}
		c.clears = (op.name == "movs" || op.name == "stos") && in.rep != 0 && in.asize == 4
		if op.name == "dpps" || op.name == "dppd" {
			c.nans = int(in.reg & 15)
		}
		if strings.HasPrefix(op.name, "j") || strings.HasPrefix(op.name, "loop") {
			if g.r.IntN(2) == 0 {
				g.comparison(&c, k, &in, &slot)
			}
			c.insn = g.branchCase(c.insn, op.imm)
		}
		c.undefFlags, c.undefReg = undefinedState(&in, op, slot)
		if op.name == "x87" {
			c.name = fmt.Sprintf("x87 %x/%d", 0xd8+in.op, in.reg&7)
		}
		count[c.name]++
		b.add(c, slot)
	}
	b.code = append(b.code, 0x0f, 0x0b)
	return b
}

// comparison puts one before a branch, which is decoded together with it.
func (g *diffGen) comparison(c *diffCase, k int, in *inst, slot *[]byte) {
	only := g.only
	g.only = []string{"cmp", "test"}[g.r.IntN(2)]
	for {
		code, cin, cop := g.instruction(false)
		if cop.form == formNone || cin.flags&flagLock != 0 {
			continue
		}
		*slot = g.slot(k, &cin, cop)
		c.insn = append(append([]byte(nil), code...), c.insn...)
		c.name = cop.name + "+" + c.name
		break
	}
	g.only = only
}

// branchCase makes a branch skip an instruction if taken.
func (g *diffGen) branchCase(code []byte, k immKind) []byte {
	skip := []byte{0xb0, 0x5a} // mov al, 0x5a
	n := 1
	if k == immRelZ {
		n = 4
	}
	for i := range n {
		code[len(code)-n+i] = 0
	}
	code[len(code)-n] = byte(len(skip))
	return append(code, skip...)
}

func envInt(name string, def int) int {
	if v, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return v
	}
	return def
}

// diffSample is how many cases go test compares: enough for every instruction.
const diffSample = 60_000

// FuzzDifferential compares batches of random instructions with the processor.
// For a certain number of cases: VITRINE_DIFF=10000000 go test -timeout 1h
// -run TestDifferential.
func FuzzDifferential(f *testing.F) {
	f.Add(uint64(1), false)
	f.Add(uint64(2), true)
	want, got := newKVMSide(f), newSoftSide(f)
	count := map[string]int{}
	f.Fuzz(func(t *testing.T, seed uint64, fx bool) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		want.cpu.(*kvm.VCPU).Adopt()
		b := newDiffGen(seed).batch(fx, diffCases, count)
		for _, d := range b.differences(t, want, got) {
			t.Errorf("%v: %s\n\tin: %s", b.cases[d.k], d.what, describe(b.cases[d.k].in, fx))
		}
	})
}

// TestDifferential compares random instructions with the processor. More of
// them: VITRINE_DIFF=cases, VITRINE_DIFF_SEED, VITRINE_DIFF_ONLY=name.
func TestDifferential(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	want, got := newKVMSide(t), newSoftSide(t)
	g := newDiffGen(uint64(envInt("VITRINE_DIFF_SEED", 1)))
	g.only = os.Getenv("VITRINE_DIFF_ONLY")
	total := envInt("VITRINE_DIFF", diffSample)
	count, failures, seen := map[string]int{}, 0, map[string]int{}
	for done := 0; done < total; done += diffCases {
		fx := done/diffCases%2 == 1
		if os.Getenv("VITRINE_DIFF_FX") != "" {
			fx = os.Getenv("VITRINE_DIFF_FX") == "1"
		}
		b := g.batch(fx, diffCases, count)
		for _, d := range b.differences(t, want, got) {
			name := b.cases[d.k].name
			seen[name]++
			if seen[name] <= 3 {
				failures++
				t.Errorf("%v: %s\n\tin: %s", b.cases[d.k], d.what, describe(b.cases[d.k].in, fx))
			}
		}
		if failures > 60 {
			break
		}
	}
	if testing.Verbose() {
		t.Logf("%d cases: %s", total, coverage(count))
	}
}

// difference is a case in which the two processors disagree.
type difference struct {
	k    int
	what string
}

// differences runs the batch on both sides. A host that emulates what it cannot
// run now and then refuses an instruction that it executes the next time: only
// what differs each of several times counts.
func (b *diffBatch) differences(t testing.TB, want, got *side) []difference {
	wf, gf := want.run(t, b), got.run(t, b)
	var ds []difference
	for k := range b.cases {
		if what := b.compareCase(k, want, got, wf, gf); what != "" {
			ds = append(ds, difference{k, what})
		}
	}
	for range 4 {
		if len(ds) == 0 {
			break
		}
		wf = want.run(t, b)
		ds = slices.DeleteFunc(ds, func(d difference) bool { return b.compareCase(d.k, want, got, wf, gf) == "" })
	}
	return ds
}

func describe(in []byte, fx bool) string {
	fx = fx && os.Getenv("VITRINE_DIFF_BRIEF") == ""
	var s strings.Builder
	for n, name := range []string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "flags"} {
		fmt.Fprintf(&s, "%s=%x ", name, le64(in[8*n:]))
	}
	if fx {
		f := in[diffFX:]
		fmt.Fprintf(&s, "fcw=%x fsw=%x ftw=%x mxcsr=%x", f[:2], f[2:4], f[4:5], f[24:28])
		for i := range 8 {
			fmt.Fprintf(&s, " st%d=%x:%x", i, f[40+16*i:42+16*i], le64(f[32+16*i:]))
		}
		for i := range 16 {
			fmt.Fprintf(&s, " xmm%d=%016x%016x", i, le64(f[168+16*i:]), le64(f[160+16*i:]))
		}
	}
	return s.String()
}

func coverage(count map[string]int) string {
	var names []string
	for n := range count {
		names = append(names, n)
	}
	sort.Strings(names)
	var s strings.Builder
	for _, n := range names {
		fmt.Fprintf(&s, "%s:%d ", n, count[n])
	}
	return s.String()
}
