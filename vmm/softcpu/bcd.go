package softcpu

import "github.com/vitrine-vmm/vitrine/vmm/x86"

// Decimal adjustments (SDM vol. 2: DAA, DAS, AAA, AAS, AAM, AAD). They do not
// exist in 64-bit mode.

// opDaa is DAA (op 0) and DAS (op 1).
func opDaa(c *cpu, in *inst) bool {
	f := c.rflags()
	al := uint8(c.regs[rAX])
	old, cf, af := al, f&x86.FlagCF != 0, false
	carry := false
	by := func(n uint8) {
		if in.op == 0 {
			al += n
		} else {
			al -= n
		}
	}
	if al&15 > 9 || f&x86.FlagAF != 0 {
		carry = cf || in.op == 1 && al < 6 || in.op == 0 && al > 0xf9
		by(6)
		af = true
	}
	if old > 0x99 || cf {
		by(0x60)
		carry = true
	}
	c.setGPR(rAX, 1, uint64(al))
	c.setRes(uint64(al), 56, bit(carry)|bit(af)<<4)
	return true
}

// opAaa is AAA (op 0) and AAS (op 1).
func opAaa(c *cpu, in *inst) bool {
	f := c.rflags()
	ax := c.regs[rAX] & 0xffff
	adjust := ax&15 > 9 || f&x86.FlagAF != 0
	if adjust {
		if in.op == 0 {
			ax += 0x106
		} else {
			ax -= 0x106
		}
	}
	ax &= 0xff0f
	c.setGPR(rAX, 2, ax)
	c.setRes(ax&0xff, 56, bit(adjust)|bit(adjust)<<4)
	return true
}

func opAam(c *cpu, in *inst) bool {
	base := uint8(in.imm)
	if base == 0 {
		return c.raise(vectorDE)
	}
	al := uint8(c.regs[rAX])
	c.setGPR(rAX, 2, uint64(al/base)<<8|uint64(al%base))
	c.setLogic(uint64(al%base), 56)
	return true
}

func opAad(c *cpu, in *inst) bool {
	ax := c.regs[rAX]
	al := uint8(ax) + uint8(ax>>8)*uint8(in.imm)
	c.setGPR(rAX, 2, uint64(al))
	c.setLogic(uint64(al), 56)
	return true
}
