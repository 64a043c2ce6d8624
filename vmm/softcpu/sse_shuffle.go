package softcpu

import "encoding/binary"

// Shuffles, packs, unpacks, inserts and extracts: elements that change places.

// vecOp combines whole registers; the immediate is 0 where there is none.
type vecOp func(a, b vec, imm uint8) vec

var vecOps = [...]vecOp{
	vUnpackLB: func(a, b vec, _ uint8) vec { return interleave(a[0], b[0], 8) },
	vUnpackLW: func(a, b vec, _ uint8) vec { return interleave(a[0], b[0], 16) },
	vUnpackLD: func(a, b vec, _ uint8) vec { return interleave(a[0], b[0], 32) },
	vUnpackLQ: func(a, b vec, _ uint8) vec { return vec{a[0], b[0]} },
	vUnpackHB: func(a, b vec, _ uint8) vec { return interleave(a[1], b[1], 8) },
	vUnpackHW: func(a, b vec, _ uint8) vec { return interleave(a[1], b[1], 16) },
	vUnpackHD: func(a, b vec, _ uint8) vec { return interleave(a[1], b[1], 32) },
	vUnpackHQ: func(a, b vec, _ uint8) vec { return vec{a[1], b[1]} },

	vPackSSWB: func(a, b vec, _ uint8) vec { return vec{packWords(a, satS8), packWords(b, satS8)} },
	vPackUSWB: func(a, b vec, _ uint8) vec { return vec{packWords(a, satU8), packWords(b, satU8)} },
	vPackSSDW: func(a, b vec, _ uint8) vec { return vec{packDwords(a, satS16), packDwords(b, satS16)} },
	vPackUSDW: func(a, b vec, _ uint8) vec { return vec{packDwords(a, satU16), packDwords(b, satU16)} },

	vPshufb:  func(a, b vec, _ uint8) vec { return shuffleBytes(a, b) },
	vPalignr: func(a, b vec, imm uint8) vec { return alignRight(a, b, imm) },

	vPhaddw:  func(a, b vec, _ uint8) vec { return vec{pairs16(a, addWords), pairs16(b, addWords)} },
	vPhaddsw: func(a, b vec, _ uint8) vec { return vec{pairs16(a, addWordsSat), pairs16(b, addWordsSat)} },
	vPhsubw:  func(a, b vec, _ uint8) vec { return vec{pairs16(a, subWords), pairs16(b, subWords)} },
	vPhsubsw: func(a, b vec, _ uint8) vec { return vec{pairs16(a, subWordsSat), pairs16(b, subWordsSat)} },
	vPhaddd: func(a, b vec, _ uint8) vec {
		return vec{pairs32(a, func(x, y uint32) uint32 { return x + y }), pairs32(b, func(x, y uint32) uint32 { return x + y })}
	},
	vPhsubd: func(a, b vec, _ uint8) vec {
		return vec{pairs32(a, func(x, y uint32) uint32 { return x - y }), pairs32(b, func(x, y uint32) uint32 { return x - y })}
	},

	vPshufd:  func(_, b vec, imm uint8) vec { return pick32(b, b, imm) },
	vPshufhw: func(_, b vec, imm uint8) vec { return vec{b[0], pick16(b[1], imm)} },
	vPshuflw: func(_, b vec, imm uint8) vec { return vec{pick16(b[0], imm), b[1]} },
	vShufps:  pick32,
	vShufpd:  func(a, b vec, imm uint8) vec { return vec{a[imm&1], b[imm>>1&1]} },

	vPblendw: func(a, b vec, imm uint8) vec { return blend(a, b, spread(imm, 16)) },
	vBlendps: func(a, b vec, imm uint8) vec { return blend(a, b, spread(imm, 32)) },
	vBlendpd: func(a, b vec, imm uint8) vec { return blend(a, b, spread(imm, 64)) },
}

const (
	vUnpackLB = iota
	vUnpackLW
	vUnpackLD
	vUnpackLQ
	vUnpackHB
	vUnpackHW
	vUnpackHD
	vUnpackHQ
	vPackSSWB
	vPackUSWB
	vPackSSDW
	vPackUSDW
	vPshufb
	vPalignr
	vPhaddw
	vPhaddsw
	vPhsubw
	vPhsubsw
	vPhaddd
	vPhsubd
	vPshufd
	vPshufhw
	vPshuflw
	vShufps
	vShufpd
	vPblendw
	vBlendps
	vBlendpd
)

// opVec applies a vecOp.
func opVec(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if ok {
		d := c.dest(in)
		*d = vecOps[in.op](*d, b, uint8(in.imm))
	}
	return ok
}

// interleave takes elements of w bits from a and b in turn.
func interleave(a, b uint64, w uint) (r vec) {
	mask := uint64(1)<<w - 1
	for i := uint(0); i < 64; i += w {
		pair := a>>i&mask | (b>>i&mask)<<w
		at := 2 * i
		r[at/64] |= pair << (at % 64)
	}
	return r
}

func packWords(v vec, sat func(int) uint8) (r uint64) {
	for i := range 8 {
		r |= uint64(sat(int(int16(v[i/4]>>(16*(i%4)))))) << (8 * i)
	}
	return r
}

func packDwords(v vec, sat func(int) uint16) (r uint64) {
	for i := range 4 {
		r |= uint64(sat(int(int32(v[i/2]>>(32*(i%2)))))) << (16 * i)
	}
	return r
}

func shuffleBytes(a, b vec) (r vec) {
	var src [16]byte
	binary.LittleEndian.PutUint64(src[:], a[0])
	binary.LittleEndian.PutUint64(src[8:], a[1])
	for i := range 16 {
		if s := uint8(b[i/8] >> (8 * (i % 8))); s < 0x80 {
			r[i/8] |= uint64(src[s&15]) << (8 * (i % 8))
		}
	}
	return r
}

func addWords(x, y uint16) uint16    { return x + y }
func subWords(x, y uint16) uint16    { return x - y }
func addWordsSat(x, y uint16) uint16 { return satS16(int(int16(x)) + int(int16(y))) }
func subWordsSat(x, y uint16) uint16 { return satS16(int(int16(x)) - int(int16(y))) }

// pairs16 combines neighbouring words of a register into one half.
func pairs16(v vec, f func(x, y uint16) uint16) (r uint64) {
	for i := range 4 {
		w := v[i/2] >> (32 * (i % 2))
		r |= uint64(f(uint16(w), uint16(w>>16))) << (16 * i)
	}
	return r
}

func pairs32(v vec, f func(x, y uint32) uint32) uint64 {
	return uint64(f(uint32(v[0]), uint32(v[0]>>32))) | uint64(f(uint32(v[1]), uint32(v[1]>>32)))<<32
}

// pick32 takes two doublewords of a and two of b, as imm says.
func pick32(a, b vec, imm uint8) vec {
	at := func(v vec, n uint8) uint64 { return v[n>>1&1] >> (n & 1 * 32) & 0xffffffff }
	return vec{at(a, imm) | at(a, imm>>2)<<32, at(b, imm>>4) | at(b, imm>>6)<<32}
}

func pick16(v uint64, imm uint8) (r uint64) {
	for i := range 4 {
		r |= v >> (imm >> (2 * i) & 3 * 16) & 0xffff << (16 * i)
	}
	return r
}

// blend takes the bits of b where mask is set.
func blend(a, b, mask vec) vec {
	return vec{a[0]&^mask[0] | b[0]&mask[0], a[1]&^mask[1] | b[1]&mask[1]}
}

// spread makes a mask of elements of w bits from the bits of imm.
func spread(imm uint8, w uint) (m vec) {
	for i := uint(0); i < 128; i += w {
		if imm>>(i/w)&1 != 0 {
			m[i/64] |= ^uint64(0) >> (64 - w) << (i % 64)
		}
	}
	return m
}

// opBlendv is PBLENDVB (op 8), BLENDVPS (32), BLENDVPD (64): XMM0's top bits
// choose.
func opBlendv(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if !ok {
		return false
	}
	var mask vec
	w, m := uint(in.op), c.sse.xmm[0]
	for i := uint(0); i < 128; i += w {
		if m[i/64]>>(i%64+w-1)&1 != 0 {
			mask[i/64] |= ^uint64(0) >> (64 - w) << (i % 64)
		}
	}
	d := c.dest(in)
	*d = blend(*d, b, mask)
	return true
}

// opPmovx is PMOVSX and PMOVZX: op is from | to<<3 in log2 of bytes, bit 6 for
// the sign.
func opPmovx(c *cpu, in *inst) bool {
	from, to := uint8(8)<<(in.op&7), uint8(8)<<(in.op>>3&7)
	n := uint8(128) / to
	bytes := n * from / 8
	v := c.sse.xmm[in.rm&15][0]
	if in.mem {
		var ok bool
		if v, ok = c.load(c.ea(in), bytes); !ok {
			return false
		}
	}
	var r vec
	for i := range n {
		e := zeroExtend(v>>(i*from), 64-from)
		if in.op&64 != 0 {
			e = zeroExtend(signExtend(e, 64-from), 64-to)
		}
		r[i*to/64] |= e << (i * to % 64)
	}
	*c.dest(in) = r
	return true
}

// opPextr is PEXTRB, PEXTRW (SSE4.1), PEXTRD, PEXTRQ, EXTRACTPS: op is the
// element's bytes, 0 for the operand size.
func opPextr(c *cpu, in *inst) bool {
	n := in.op
	if n == 0 {
		n = in.size
	}
	i := uint8(in.imm) & (16/n - 1) * n
	v := zeroExtend(c.dest(in)[i/8]>>(i%8*8), 64-8*n)
	if in.mem {
		return c.store(c.ea(in), n, v)
	}
	c.regs[in.rm&31] = v
	return true
}

// opPinsr is PINSRB, PINSRW, PINSRD, PINSRQ.
func opPinsr(c *cpu, in *inst) bool {
	n := in.op
	if n == 0 {
		n = in.size
	}
	v := c.regs[in.rm&31]
	if in.mem {
		var ok bool
		if v, ok = c.load(c.ea(in), n); !ok {
			return false
		}
	}
	i := uint8(in.imm) & (16/n - 1) * n
	mask := ^uint64(0) >> (64 - 8*n) << (i % 8 * 8)
	d := c.dest(in)
	d[i/8] = d[i/8]&^mask | v<<(i%8*8)&mask
	return true
}

// opPextrwReg is the older PEXTRW r, xmm, imm8.
func opPextrwReg(c *cpu, in *inst) bool {
	i := in.imm & 7
	c.regs[in.reg&31] = c.sse.xmm[in.rm&15][i/4] >> (i % 4 * 16) & 0xffff
	return true
}

// opInsertps is INSERTPS.
func opInsertps(c *cpu, in *inst) bool {
	imm := uint8(in.imm)
	var v uint64
	if in.mem {
		var ok bool
		if v, ok = c.load32(c.ea(in)); !ok {
			return false
		}
	} else {
		n := imm >> 6
		v = c.sse.xmm[in.rm&15][n/2] >> (n % 2 * 32) & 0xffffffff
	}
	d := c.dest(in)
	n := imm >> 4 & 3
	d[n/2] = d[n/2]&^(0xffffffff<<(n%2*32)) | v<<(n%2*32)
	zero := spread(imm&15, 32)
	d[0], d[1] = d[0]&^zero[0], d[1]&^zero[1]
	return true
}
