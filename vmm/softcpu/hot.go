package softcpu

import "math/bits"

//go:generate go run ./internal/gen

// The handlers of hot_*.go do the same as the general ones, for one operand
// size and form each. The spec functions choose them.

// aluTest is TEST's place in the tables of operations.
const aluTest = 8

func sizeIndex(size uint8) int { return bits.TrailingZeros8(size) & 3 }

// plainRegs says that no operand is AH, CH, DH or BH.
func plainRegs(in *inst) bool { return in.reg < rHigh && (in.mem || in.rm < rHigh) }

func specAlu(in *inst, op int, regForm, memForm *[9][4]handler) handler {
	if !plainRegs(in) {
		return nil
	}
	if in.mem {
		return memForm[op][sizeIndex(in.size)]
	}
	return regForm[op][sizeIndex(in.size)]
}

func specAluEG(in *inst) handler { return specAlu(in, int(in.op), &hotAluRR, &hotAluMR) }
func specAluEI(in *inst) handler { return specAlu(in, int(in.op), &hotAluRI, &hotAluMI) }
func specTest(in *inst) handler  { return specAlu(in, aluTest, &hotAluRR, &hotAluMR) }
func specTestI(in *inst) handler { return specAlu(in, aluTest, &hotAluRI, &hotAluMI) }

// specAluGE: between registers, op r, r/m is op r/m, r with the fields
// exchanged.
func specAluGE(in *inst) handler {
	if in.mem {
		return specAlu(in, int(in.op), nil, &hotAluRM)
	}
	in.rm, in.reg = in.reg, in.rm
	h := specAlu(in, int(in.op), &hotAluRR, nil)
	if h == nil {
		in.rm, in.reg = in.reg, in.rm
	}
	return h
}

// nearAddress says that the memory operand is a base and a displacement.
func nearAddress(in *inst) bool {
	return in.index == rZero && in.seg == rZero && in.amask == ^uint64(0)
}

var (
	hotLoad   = [2][4]handler{{nil, nil, hotLoadA32, hotLoadA64}, {nil, nil, hotLoadB32, hotLoadB64}}
	hotStoreR = [2][4]handler{{hotStoreAR8, hotStoreAR16, hotStoreAR32, hotStoreAR64}, {hotStoreAR8, hotStoreAR16, hotStoreBR32, hotStoreBR64}}
	hotStoreI = [2][4]handler{{hotStoreAI8, hotStoreAI16, hotStoreAI32, hotStoreAI64}, {hotStoreAI8, hotStoreAI16, hotStoreBI32, hotStoreBI64}}
)

func specMovEG(in *inst) handler {
	switch {
	case !plainRegs(in):
		return nil
	case in.mem:
		return hotStoreR[bit(nearAddress(in))][sizeIndex(in.size)]
	case in.size == 8:
		return hotMovRR64
	case in.size == 4:
		return hotMovRR32
	}
	return nil
}

func specMovGE(in *inst) handler {
	switch {
	case in.mem:
		return hotLoad[bit(nearAddress(in))][sizeIndex(in.size)]
	case in.size >= 4:
		in.rm, in.reg = in.reg, in.rm
		return specMovEG(in)
	}
	return nil
}

func specMovEI(in *inst) handler {
	switch {
	case in.mem:
		return hotStoreI[bit(nearAddress(in))][sizeIndex(in.size)]
	case in.size == 4:
		in.imm = uint64(uint32(in.imm))
		return hotMovRI
	case in.size == 8:
		return hotMovRI
	}
	return nil
}

func hotMovRR64(c *cpu, in *inst) bool {
	c.regs[in.rm&31] = c.regs[in.reg&31]
	return true
}

func hotMovRR32(c *cpu, in *inst) bool {
	c.regs[in.rm&31] = uint64(uint32(c.regs[in.reg&31]))
	return true
}

func hotMovRI(c *cpu, in *inst) bool {
	c.regs[in.rm&31] = in.imm
	return true
}

// hotMovx are MOVZX, MOVSX and MOVSXD by source (log2), sign and width of the
// destination, from memory and from a register.
var hotMovx = [3][2][2][2]handler{
	{{{hotMovZx8to32, hotMovZx8to32R}, {hotMovZx8to64, hotMovZx8to64R}}, {{hotMovSx8to32, hotMovSx8to32R}, {hotMovSx8to64, hotMovSx8to64R}}},
	{{{hotMovZx16to32, hotMovZx16to32R}, {hotMovZx16to64, hotMovZx16to64R}}, {{hotMovSx16to32, hotMovSx16to32R}, {hotMovSx16to64, hotMovSx16to64R}}},
	{{{}, {}}, {{}, {hotMovSx32to64, hotMovSx32to64R}}},
}

func specMovx(in *inst) handler {
	n := in.op & 15
	if in.size < 4 || !in.mem && n == 1 && in.flags&flagREX == 0 && in.rm >= 4 {
		return nil
	}
	return hotMovx[sizeIndex(n)%3][in.op>>4][in.size>>3][bit(!in.mem)]
}

var hotShift = [8][2]handler{
	shShl: {hotShlRI32, hotShlRI64}, shSal: {hotShlRI32, hotShlRI64},
	shRol: {hotRolRI32, hotRolRI64}, shRor: {hotRorRI32, hotRorRI64},
	shShr: {hotShrRI32, hotShrRI64}, shSar: {hotSarRI32, hotSarRI64},
}

// specShift serves shifts of registers by an immediate that is not 0.
func specShift(in *inst) handler {
	if in.mem || in.size < 4 || in.imm&31 != in.imm&(8*uint64(in.size)-1) && in.size == 4 || in.imm&(8*uint64(in.size)-1) == 0 {
		return nil
	}
	return hotShift[in.op&7][in.size>>3]
}

func hotRolRI64(c *cpu, in *inst) bool {
	r := bits.RotateLeft64(c.regs[in.rm&31], int(in.imm))
	c.regs[in.rm&31] = r
	c.setCarries(r&1 | (r^r>>63)&1<<11)
	return true
}

func hotRolRI32(c *cpu, in *inst) bool {
	r := bits.RotateLeft32(uint32(c.regs[in.rm&31]), int(in.imm))
	c.regs[in.rm&31] = uint64(r)
	c.setCarries(uint64(r&1 | (r^r>>31)&1<<11))
	return true
}

func hotRorRI64(c *cpu, in *inst) bool {
	r := bits.RotateLeft64(c.regs[in.rm&31], -int(in.imm))
	c.regs[in.rm&31] = r
	c.setCarries(r>>63 | (r>>63^r>>62)&1<<11)
	return true
}

func hotRorRI32(c *cpu, in *inst) bool {
	r := bits.RotateLeft32(uint32(c.regs[in.rm&31]), -int(in.imm))
	c.regs[in.rm&31] = uint64(r)
	c.setCarries(uint64(r>>31 | (r>>31^r>>30)&1<<11))
	return true
}

func specCmov(in *inst) handler {
	if in.mem || in.size != 8 {
		return nil
	}
	return hotCmov64
}

func hotCmov64(c *cpu, in *inst) bool {
	if c.cond(in.op) {
		c.regs[in.reg&31] = c.regs[in.rm&31]
	}
	return true
}

func specJcc(in *inst) handler {
	switch {
	case in.size == 2:
		return opJcc16
	case in.op == 4:
		return hotJe
	case in.op == 5:
		return hotJne
	}
	return nil
}

func specJmp(in *inst) handler {
	if in.size == 2 {
		return opJmp16
	}
	return nil
}

func hotJe(c *cpu, in *inst) bool {
	if c.zf() {
		return c.follow(1, in.imm)
	}
	return c.follow(0, uint64(in.next))
}

func hotJne(c *cpu, in *inst) bool {
	if !c.zf() {
		return c.follow(1, in.imm)
	}
	return c.follow(0, uint64(in.next))
}

// specIncDec serves registers.
func specIncDec(in *inst) handler {
	switch {
	case in.mem || in.size < 4:
		return nil
	case in.op == 0 && in.size == 8:
		return hotInc64
	case in.op == 0:
		return hotInc32
	case in.size == 8:
		return hotDec64
	}
	return hotDec32
}

func hotInc64(c *cpu, in *inst) bool {
	cf, a := bit(c.cf()), c.regs[in.rm&31]
	r := a + 1
	c.regs[in.rm&31] = r
	c.ccDst, c.ccA, c.ccKind = r, cf|(a^r^1)&0x10|(r&^a)>>63<<11, ccRes
	return true
}

func hotDec64(c *cpu, in *inst) bool {
	cf, a := bit(c.cf()), c.regs[in.rm&31]
	r := a - 1
	c.regs[in.rm&31] = r
	c.ccDst, c.ccA, c.ccKind = r, cf|(a^r^1)&0x10|(a&^r)>>63<<11, ccRes
	return true
}

func hotInc32(c *cpu, in *inst) bool {
	cf, a := bit(c.cf()), uint32(c.regs[in.rm&31])
	r := a + 1
	c.regs[in.rm&31] = uint64(r)
	c.ccDst, c.ccA, c.ccKind = uint64(int64(int32(r))), cf|uint64(a^r^1)&0x10|uint64((r&^a)>>31)<<11, ccRes
	return true
}

func hotDec32(c *cpu, in *inst) bool {
	cf, a := bit(c.cf()), uint32(c.regs[in.rm&31])
	r := a - 1
	c.regs[in.rm&31] = uint64(r)
	c.ccDst, c.ccA, c.ccKind = uint64(int64(int32(r))), cf|uint64(a^r^1)&0x10|uint64((a&^r)>>31)<<11, ccRes
	return true
}

// fusion is the table of fused handlers for a comparison, by its form.
func fusion(op *opcode, in *inst) *[4][16]handler {
	if !plainRegs(in) {
		return nil
	}
	test := op.op == aluTest
	switch {
	case op.form == formGE && in.mem:
		return &hotJCmpRM
	case op.form == formEI && in.mem && test:
		return &hotJTestMI
	case op.form == formEI && in.mem:
		return &hotJCmpMI
	case op.form == formEI && test:
		return &hotJTestRI
	case op.form == formEI:
		return &hotJCmpRI
	case in.mem && test:
		return &hotJTestMR
	case in.mem:
		return &hotJCmpMR
	case test:
		return &hotJTestRR
	}
	return &hotJCmpRR // with formGE, the fields have been exchanged
}

// fuse makes one inst of the conditional jump in and the comparison before it,
// which stands last in the arena. It returns the inst that remains.
func (c *cpu) fuse(b *block, d *decoder, in *inst) *inst {
	prev := c.code.last
	c.code.last = nil
	op := d.op
	if (op.op == aluCmp || op.op == aluTest) && op.form != formNone && !d.refused {
		c.code.last, c.code.lastOp = in, op
	}
	if prev == nil || !isJcc(op) || d.refused || in.size == 2 || c.mode&modeStep != 0 {
		return in
	}
	t := fusion(c.code.lastOp, prev)
	if t == nil {
		return in
	}
	h := t[sizeIndex(prev.size)][in.op&15]
	if h == nil {
		return in
	}
	prev.fn, prev.target, prev.next = h, in.imm, in.next
	c.code.insts = c.code.insts[:len(c.code.insts)-1]
	return prev
}

func isJcc(op *opcode) bool {
	return op.attr&aEnd != 0 && (op.imm == immRel8 || op.imm == immRelZ) && op.name[0] == 'j' && op.name != "jmp" && op.name != "jrcxz"
}
