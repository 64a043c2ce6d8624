package softcpu

import (
	"hash/crc32"
	"math/bits"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Bit instructions (SDM vol. 2: BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT,
// POPCNT, CRC32, and BMI1, BMI2, ADX).

const (
	btTest = iota
	btSet
	btReset
	btComplement
)

func btApply(op uint8, v, mask uint64) uint64 {
	switch op {
	case btSet:
		return v | mask
	case btReset:
		return v &^ mask
	case btComplement:
		return v ^ mask
	}
	return v
}

// setCF changes CF alone.
func (c *cpu) setCF(cf uint64) {
	c.setCarries(cf | bit(c.of())<<11)
}

// opBtI is BTx r/m, imm8.
func opBtI(c *cpu, in *inst) bool { return c.bt(in, in.imm, 0) }

// opBt is BTx r/m, r: with memory, the bit may be far from the address.
func opBt(c *cpu, in *inst) bool {
	n := signExtend(c.regs[in.reg&31], in.sh)
	var away uint64
	if in.mem {
		words := uint64(int64(n) >> (3 + uint(bits.TrailingZeros8(in.size))))
		away = words * uint64(in.size)
	}
	return c.bt(in, n, away)
}

func (c *cpu) bt(in *inst, n, away uint64) bool {
	n &= uint64(in.size)*8 - 1
	mask := uint64(1) << n
	if !in.mem {
		v := c.regs[in.rm&31]
		if in.op != btTest {
			c.setGPR(in.rm, in.size, btApply(in.op, v, mask))
		}
		c.setCF(v >> n & 1)
		return true
	}
	a := (c.offset(in)+away)&in.amask + c.regs[in.seg&31]
	if in.op == btTest {
		v, ok := c.load(a, in.size)
		if ok {
			c.setCF(v >> n & 1)
		}
		return ok
	}
	v, ok := c.loadRMW(a, in.size)
	if !ok || !c.store(a, in.size, btApply(in.op, v, mask)) {
		return false
	}
	c.setCF(v >> n & 1)
	return true
}

// opBsf is BSF (op 0) and BSR (op 1). Without a bit set the destination stays
// as it is, as the processors do although the manual says "undefined".
func opBsf(c *cpu, in *inst) bool {
	v, ok := c.readRM(in)
	if !ok {
		return false
	}
	if v == 0 {
		c.setArith(c.rflags() | x86.FlagZF)
		return true
	}
	n := uint64(bits.TrailingZeros64(v))
	if in.op == 1 {
		n = uint64(bits.Len64(v) - 1)
	}
	c.setGPR(in.reg, in.size, n)
	c.setArith(c.rflags() &^ x86.FlagZF)
	return true
}

// opCountZeros is TZCNT (op 0) and LZCNT (op 1).
func opCountZeros(c *cpu, in *inst) bool {
	v, ok := c.readRM(in)
	if !ok {
		return false
	}
	width := uint64(in.size) * 8
	n := width
	switch {
	case v == 0:
	case in.op == 0:
		n = uint64(bits.TrailingZeros64(v))
	default:
		n = width - uint64(bits.Len64(v))
	}
	c.setGPR(in.reg, in.size, n)
	f := c.rflags() &^ (x86.FlagCF | x86.FlagZF)
	c.setArith(f | bit(n == width) | bit(n == 0)<<6)
	return true
}

func opPopcnt(c *cpu, in *inst) bool {
	v, ok := c.readRM(in)
	if !ok {
		return false
	}
	c.setGPR(in.reg, in.size, uint64(bits.OnesCount64(v)))
	c.setArith(bit(v == 0) << 6)
	return true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// opCRC32 is CRC32 r32, r/m; the polynomial is iSCSI's, without the inversions
// that hash/crc32 makes.
func opCRC32(c *cpu, in *inst) bool {
	n := in.op
	if n == 0 {
		n = in.size
	}
	var v uint64
	if in.mem {
		var ok bool
		if v, ok = c.load(c.ea(in), n); !ok {
			return false
		}
	} else if v = c.gpr(in.rm, n); n == 1 && in.flags&flagREX == 0 && in.rm >= 4 && in.rm < 8 {
		v = c.regs[in.rm&3] >> 8 & 0xff
	}
	crc := uint32(c.regs[in.reg&31])
	for i := range n {
		b := uint8(v >> (8 * i))
		crc = castagnoli[uint8(crc)^b] ^ crc>>8
	}
	c.regs[in.reg&31] = uint64(crc)
	return true
}

// opAdx is ADCX (op 0: CF) and ADOX (op 1: OF).
func opAdx(c *cpu, in *inst) bool {
	b, ok := c.readRM(in)
	if !ok {
		return false
	}
	shift := uint(in.op) * 11
	f := c.rflags()
	sum, carry := bits.Add64(c.gpr(in.reg, in.size), b, f>>shift&1)
	if in.size == 4 {
		carry = sum >> 32
	}
	c.setGPR(in.reg, in.size, sum)
	c.flags = f&^(1<<shift) | carry<<shift
	return true
}

// Compare and exchange, exchange and add. On one CPU, and on several that take
// turns, a LOCK prefix needs nothing more; see lock.go for those that do not.

func opCmpxchg(c *cpu, in *inst) bool {
	v, ok := c.modifyRM(in)
	if !ok {
		return false
	}
	acc := c.gpr(rAX, in.size)
	if v == acc {
		if !c.writeRM(in, c.gpr(in.reg, in.size)) {
			return false
		}
	} else {
		if in.mem && !c.writeRM(in, v) { // the bus cycle writes either way
			return false
		}
		c.setGPR(rAX, in.size, v)
	}
	c.alu(aluCmp, acc, v, in.sh)
	return true
}

func opXadd(c *cpu, in *inst) bool {
	v, ok := c.modifyRM(in)
	if !ok {
		return false
	}
	old, add := c.saveCC(), c.gpr(in.reg, in.size)
	sum := c.alu(aluAdd, v, add, in.sh)
	if in.mem {
		if !c.store(c.ea(in), in.size, sum) {
			c.restoreCC(old)
			return false
		}
		c.setGPR(in.reg, in.size, v)
		return true
	}
	c.setGPR(in.reg, in.size, v)
	c.setGPR(in.rm, in.size, sum)
	return true
}

// opCmpxchgPair is CMPXCHG8B and, with REX.W, CMPXCHG16B.
func opCmpxchgPair(c *cpu, in *inst) bool {
	a, n := c.ea(in), uint8(4)
	if in.flags&flagREXW != 0 {
		n = 8
		if a&15 != 0 {
			return c.raiseCode(vectorGP, 0)
		}
	}
	lo, ok := c.loadRMW(a, n)
	if !ok {
		return false
	}
	hi, ok := c.loadRMW(a+uint64(n), n)
	if !ok {
		return false
	}
	f := c.rflags()
	if lo == c.gpr(rAX, n) && hi == c.gpr(rDX, n) {
		if !c.store(a, n, c.regs[rBX]) || !c.store(a+uint64(n), n, c.regs[rCX]) {
			return false
		}
		c.flags = f | x86.FlagZF
		return true
	}
	c.setGPR(rAX, n, lo)
	c.setGPR(rDX, n, hi)
	c.flags = f &^ x86.FlagZF
	return true
}
