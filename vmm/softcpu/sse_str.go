package softcpu

import (
	"math/bits"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// The string instructions of SSE4.2: PCMPESTRI, PCMPESTRM, PCMPISTRI,
// PCMPISTRM (SDM vol. 2, 4.1, "Imm8 control byte operation").

// strOperand is one of the two strings.
type strOperand struct {
	v    vec
	n    int // elements that are valid
	bits uint
	sign bool
}

func (s *strOperand) at(i int) int {
	w := uint(i) * s.bits
	e := zeroExtend(s.v[w/64]>>(w%64), uint8(64-s.bits))
	if s.sign {
		return int(int64(signExtend(e, uint8(64-s.bits))))
	}
	return int(e)
}

// terminated counts the elements before the first zero.
func (s *strOperand) terminated(max int) {
	for s.n = 0; s.n < max; s.n++ {
		if zeroExtend(s.v[uint(s.n)*s.bits/64]>>(uint(s.n)*s.bits%64), uint8(64-s.bits)) == 0 {
			return
		}
	}
}

// explicit takes the length from a general register.
func (s *strOperand) explicit(v uint64, wide bool, limit int) {
	n := int64(int32(v))
	if wide {
		n = int64(v)
	}
	if n < 0 {
		n = -n
	}
	if n < 0 || n > int64(limit) {
		n = int64(limit)
	}
	s.n = int(n)
}

// opPcmpstr: op bit 0 gives an index in ECX instead of a mask in XMM0, bit 1
// strings that end with zero instead of lengths in EAX and EDX.
func opPcmpstr(c *cpu, in *inst) bool {
	b, ok := c.source128u(in)
	if !ok {
		return false
	}
	imm := uint8(in.imm)
	w, limit := uint(8), 16
	if imm&1 != 0 {
		w, limit = 16, 8
	}
	x := strOperand{v: *c.dest(in), bits: w, sign: imm&2 != 0}
	y := strOperand{v: b, bits: w, sign: imm&2 != 0}
	if in.op&2 != 0 {
		x.terminated(limit)
		y.terminated(limit)
	} else {
		wide := in.flags&flagREXW != 0
		x.explicit(c.regs[rAX], wide, limit)
		y.explicit(c.regs[rDX], wide, limit)
	}
	r := aggregate(&x, &y, imm>>2&3, limit)
	if imm&0x10 != 0 {
		flip := uint64(1)<<limit - 1
		if imm&0x20 != 0 {
			flip = 1<<y.n - 1
		}
		r ^= flip
	}
	c.strResult(in, imm, r, limit, w)
	c.setArith(bit(r != 0)*x86.FlagCF | bit(y.n < limit)*x86.FlagZF | bit(x.n < limit)*x86.FlagSF | r&1<<11)
	return true
}

func (c *cpu) strResult(in *inst, imm uint8, r uint64, limit int, w uint) {
	switch {
	case in.op&1 != 0 && r == 0:
		c.regs[rCX] = uint64(limit)
	case in.op&1 != 0 && imm&0x40 != 0:
		c.regs[rCX] = uint64(bits.Len64(r) - 1)
	case in.op&1 != 0:
		c.regs[rCX] = uint64(bits.TrailingZeros64(r))
	case imm&0x40 != 0:
		var m vec
		for i := range uint(limit) {
			if r>>i&1 != 0 {
				m[i*w/64] |= ^uint64(0) >> (64 - w) << (i * w % 64)
			}
		}
		c.sse.xmm[0] = m
	default:
		c.sse.xmm[0] = vec{r}
	}
}

// aggregate compares the strings: equal any, ranges, equal each, equal
// ordered.
func aggregate(x, y *strOperand, how uint8, limit int) (r uint64) {
	for j := range limit {
		var hit bool
		switch how {
		case 0:
			hit = j < y.n && contains(x, y.at(j))
		case 1:
			hit = j < y.n && inRanges(x, y.at(j))
		case 2:
			hit = j >= x.n && j >= y.n || j < x.n && j < y.n && x.at(j) == y.at(j)
		default:
			hit = beginsAt(x, y, j, limit)
		}
		if hit {
			r |= 1 << j
		}
	}
	return r
}

func contains(x *strOperand, e int) bool {
	for i := range x.n {
		if x.at(i) == e {
			return true
		}
	}
	return false
}

func inRanges(x *strOperand, e int) bool {
	for i := 0; i+1 < x.n; i += 2 {
		if x.at(i) <= e && e <= x.at(i+1) {
			return true
		}
	}
	return false
}

// beginsAt says whether x, as far as it fits, stands in y from j on.
func beginsAt(x, y *strOperand, j, limit int) bool {
	for i := 0; i < x.n && i+j < limit; i++ {
		if i+j >= y.n || x.at(i) != y.at(i+j) {
			return false
		}
	}
	return true
}
