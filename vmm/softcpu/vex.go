package softcpu

import "math/bits"

// The general-register instructions in VEX encoding: BMI1 and BMI2 (SDM vol. 2:
// ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, MULX, PDEP, PEXT, RORX, SARX, SHLX,
// SHRX). No other VEX instruction exists here, as AVX is not claimed.

// vex reads a VEX prefix (SDM vol. 2, 2.3.5) and finds the opcode behind it.
// The register in VEX.vvvv ends up in inst.asize, which no handler of these
// needs otherwise.
func (d *decoder) vex(in *inst, code uint8) *opcode {
	b := d.byte()
	r, m, w := ^b>>5&4, uint8(1), uint8(0)
	if code == 0xc4 {
		r |= ^b >> 5 & 3
		m = b & 0x1f
		b = d.byte()
		w = b >> 4 & 8
	}
	if d.rex != 0 || in.flags&flagLock != 0 || in.rep != 0 || d.op16 || b&4 != 0 {
		return &undefined
	}
	d.rex = 0x40 | r&7 | w
	if d.mode&modeSize != mode64 {
		d.rex = 0x40
	}
	d.vvvv, d.isVEX = ^b>>3&15, true
	op := d.byte()
	row := vexOpcode(m, b&3, op)
	if row.imm != immNone && d.vvvv != 0 { // RORX names no third register
		return &undefinedModRM
	}
	return row
}

// Rows by map and mandatory prefix: 0 none, 1 66, 2 F3, 3 F2.
func vexOpcode(m, pp, op uint8) *opcode {
	for i := range vexTable {
		if v := &vexTable[i]; v.m == m && v.pp == pp && v.op == op {
			return &v.row
		}
	}
	return &undefinedModRM
}

var group17 = [8]opcode{
	1: {name: "blsr", fn: opBls, attr: aGPR32, op: 1},
	2: {name: "blsmsk", fn: opBls, attr: aGPR32, op: 2},
	3: {name: "blsi", fn: opBls, attr: aGPR32, op: 3},
}

const (
	bmiAndn = iota
	bmiBextr
	bmiBzhi
	bmiSarx
	bmiShlx
	bmiShrx
	bmiPdep
	bmiPext
)

var vexTable = []struct {
	m, pp, op uint8
	row       opcode
}{
	{2, 0, 0xf2, opcode{name: "andn", fn: opBMI, attr: aModRM | aGPR32, op: bmiAndn}},
	{2, 0, 0xf3, opcode{attr: aModRM, group: &group17}},
	{2, 0, 0xf5, opcode{name: "bzhi", fn: opBMI, attr: aModRM | aGPR32, op: bmiBzhi}},
	{2, 2, 0xf5, opcode{name: "pext", fn: opBMI, attr: aModRM | aGPR32, op: bmiPext}},
	{2, 3, 0xf5, opcode{name: "pdep", fn: opBMI, attr: aModRM | aGPR32, op: bmiPdep}},
	{2, 3, 0xf6, opcode{name: "mulx", fn: opMulx, attr: aModRM | aGPR32}},
	{2, 0, 0xf7, opcode{name: "bextr", fn: opBMI, attr: aModRM | aGPR32, op: bmiBextr}},
	{2, 1, 0xf7, opcode{name: "shlx", fn: opBMI, attr: aModRM | aGPR32, op: bmiShlx}},
	{2, 2, 0xf7, opcode{name: "sarx", fn: opBMI, attr: aModRM | aGPR32, op: bmiSarx}},
	{2, 3, 0xf7, opcode{name: "shrx", fn: opBMI, attr: aModRM | aGPR32, op: bmiShrx}},
	{3, 3, 0xf0, opcode{name: "rorx", fn: opRorx, attr: aModRM | aGPR32, imm: immU8}},
}

// opBMI computes from r/m and the register in VEX.vvvv.
func opBMI(c *cpu, in *inst) bool {
	a, ok := c.readRM(in)
	if !ok {
		return false
	}
	v := c.gpr(in.asize, in.size)
	width := uint64(in.size) * 8
	var r uint64
	switch in.op {
	case bmiAndn:
		r = ^v & a
		c.setLogic(r, in.sh)
	case bmiBextr:
		r = a >> (v & 0xff)
		if n := v >> 8 & 0xff; n < 64 {
			r &= 1<<n - 1
		}
		c.setArith(bit(zeroExtend(r, in.sh) == 0) << 6)
	case bmiBzhi:
		n := v & 0xff
		r = a
		if n < width {
			r &= 1<<n - 1
		}
		c.setRes(r, in.sh, bit(n >= width))
	case bmiShlx:
		r = a << (v & (width - 1))
	case bmiShrx:
		r = a >> (v & (width - 1))
	case bmiSarx:
		r = uint64(int64(signExtend(a, in.sh)) >> (v & (width - 1)))
	case bmiPdep:
		r = deposit(v, a)
	case bmiPext:
		r = extract(v, a)
	}
	c.setGPR(in.reg, in.size, r)
	return true
}

// deposit scatters the low bits of v to the bits set in mask, extract gathers
// them.
func deposit(v, mask uint64) (r uint64) {
	for ; mask != 0; mask &= mask - 1 {
		if v&1 != 0 {
			r |= mask & -mask
		}
		v >>= 1
	}
	return r
}

func extract(v, mask uint64) (r uint64) {
	for i := 0; mask != 0; mask &= mask - 1 {
		if v&mask&-mask != 0 {
			r |= 1 << i
		}
		i++
	}
	return r
}

// opBls is BLSR, BLSMSK, BLSI; the destination is VEX.vvvv.
func opBls(c *cpu, in *inst) bool {
	a, ok := c.readRM(in)
	if !ok {
		return false
	}
	var r, cf uint64
	switch in.op {
	case 1:
		r, cf = a&(a-1), bit(a == 0)
	case 2:
		r, cf = a^(a-1), bit(a == 0)
	default:
		r, cf = a&-a, bit(a != 0)
	}
	c.setRes(r, in.sh, cf)
	if in.op == 2 {
		c.setArith(c.rflags() &^ (1 << 6)) // BLSMSK's ZF is always 0
	}
	c.setGPR(in.asize, in.size, r)
	return true
}

func opMulx(c *cpu, in *inst) bool {
	a, ok := c.readRM(in)
	if !ok {
		return false
	}
	hi, lo := bits.Mul64(a, c.gpr(rDX, in.size))
	if in.size == 4 {
		hi = lo >> 32
	}
	c.setGPR(in.asize, in.size, lo)
	c.setGPR(in.reg, in.size, hi)
	return true
}

func opRorx(c *cpu, in *inst) bool {
	a, ok := c.readRM(in)
	if !ok {
		return false
	}
	if in.size == 8 {
		c.regs[in.reg&31] = bits.RotateLeft64(a, -int(in.imm&63))
	} else {
		c.regs[in.reg&31] = uint64(bits.RotateLeft32(uint32(a), -int(in.imm&31)))
	}
	return true
}
