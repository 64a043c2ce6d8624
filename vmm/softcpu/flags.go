package softcpu

import (
	"math/bits"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Arithmetic flags are computed when they are read. An instruction leaves in
// cpu.ccKind what it was and in ccDst, ccA, ccB its result and operands, all
// sign-extended from the operand's size to 64 bits. Sign extension keeps both
// the signed and the unsigned order of values, so none of the formulas below
// needs to know the size.
const (
	ccEager = iota // the bits in cpu.flags are right
	ccAdd          // ccDst = ccA + ccB
	ccSub          // ccDst = ccA - ccB; also CMP and NEG (ccA = 0)
	ccLogic        // CF = OF = AF = 0
	ccRes          // CF, AF and OF are given in ccA, in their places; ccDst has the rest
)

// arith is the arithmetic flags in RFLAGS.
const arith = x86.FlagCF | x86.FlagPF | x86.FlagAF | x86.FlagZF | x86.FlagSF | x86.FlagOF

// signExtend extends v from its low 64-sh bits.
func signExtend(v uint64, sh uint8) uint64 { return uint64(int64(v<<(sh&63)) >> (sh & 63)) }

// zeroExtend keeps the low 64-sh bits of v.
func zeroExtend(v uint64, sh uint8) uint64 { return v << (sh & 63) >> (sh & 63) }

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (c *cpu) cf() bool {
	switch c.ccKind {
	case ccAdd:
		return c.ccDst < c.ccA
	case ccSub:
		return c.ccA < c.ccB
	case ccLogic:
		return false
	case ccRes:
		return c.ccA&x86.FlagCF != 0
	}
	return c.flags&x86.FlagCF != 0
}

func (c *cpu) zf() bool {
	if c.ccKind == ccEager {
		return c.flags&x86.FlagZF != 0
	}
	return c.ccDst == 0
}

func (c *cpu) sf() bool {
	if c.ccKind == ccEager {
		return c.flags&x86.FlagSF != 0
	}
	return int64(c.ccDst) < 0
}

func (c *cpu) of() bool {
	switch c.ccKind {
	case ccAdd:
		return int64((c.ccA^c.ccDst)&(c.ccB^c.ccDst)) < 0
	case ccSub:
		return int64((c.ccA^c.ccB)&(c.ccA^c.ccDst)) < 0
	case ccLogic:
		return false
	case ccRes:
		return c.ccA&x86.FlagOF != 0
	}
	return c.flags&x86.FlagOF != 0
}

func (c *cpu) pf() bool {
	if c.ccKind == ccEager {
		return c.flags&x86.FlagPF != 0
	}
	return bits.OnesCount8(uint8(c.ccDst))&1 == 0
}

func (c *cpu) af() bool {
	switch c.ccKind {
	case ccAdd, ccSub:
		return (c.ccA^c.ccB^c.ccDst)&0x10 != 0
	case ccLogic:
		return false
	case ccRes:
		return c.ccA&x86.FlagAF != 0
	}
	return c.flags&x86.FlagAF != 0
}

// rflags is RFLAGS with every bit computed.
func (c *cpu) rflags() uint64 {
	c.settleFlags()
	return c.flags
}

// settleFlags computes the arithmetic flags into cpu.flags.
func (c *cpu) settleFlags() {
	if c.ccKind == ccEager {
		return
	}
	f := bit(c.cf()) | bit(c.pf())<<2 | bit(c.af())<<4 | bit(c.zf())<<6 | bit(c.sf())<<7 | bit(c.of())<<11
	c.flags = c.flags&^arith | f
	c.ccKind = ccEager
}

// setCarries changes CF and OF (given in their places) and leaves the others.
func (c *cpu) setCarries(f uint64) {
	switch c.ccKind {
	case ccEager:
		c.flags = c.flags&^(x86.FlagCF|x86.FlagOF) | f
	case ccRes:
		c.ccA = c.ccA&x86.FlagAF | f
	case ccLogic:
		c.ccA, c.ccKind = f, ccRes
	default:
		c.ccA, c.ccKind = (c.ccA^c.ccB^c.ccDst)&x86.FlagAF|f, ccRes
	}
}

// setArith replaces the arithmetic flags.
func (c *cpu) setArith(f uint64) {
	c.flags = c.flags&^arith | f&arith
	c.ccKind = ccEager
}

// setLogic sets the flags for the result of a logical instruction of size
// 64-sh bits.
func (c *cpu) setLogic(v uint64, sh uint8) {
	c.ccDst, c.ccKind = signExtend(v, sh), ccLogic
}

// setRes sets the flags for result v; other has CF, AF and OF in their places.
func (c *cpu) setRes(v uint64, sh uint8, other uint64) {
	c.ccDst, c.ccA, c.ccKind = signExtend(v, sh), other, ccRes
}

// cond evaluates condition code cc, the low four bits of the opcode of a
// conditional instruction (SDM vol. 2, appendix B.1.4.7).
func (c *cpu) cond(cc uint8) bool {
	var r bool
	switch cc >> 1 & 7 {
	case 0:
		r = c.of()
	case 1:
		r = c.cf()
	case 2:
		r = c.zf()
	case 3:
		r = c.cf() || c.zf()
	case 4:
		r = c.sf()
	case 5:
		r = c.pf()
	case 6:
		r = c.less()
	default:
		r = c.zf() || c.less()
	}
	return r != (cc&1 != 0)
}

func (c *cpu) less() bool {
	if c.ccKind == ccSub {
		return int64(c.ccA) < int64(c.ccB)
	}
	return c.sf() != c.of()
}
