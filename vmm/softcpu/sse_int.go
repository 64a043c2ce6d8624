package softcpu

// Packed integer arithmetic, by halves of an XMM register or on an MMX
// register: what stays inside 64 bits is the same for both.

// halfOp combines the halves of destination and source.
type halfOp func(a, b uint64) uint64

// halfOps are indexed by the op of their opcodes.
var halfOps = [...]halfOp{
	hPaddb: func(a, b uint64) uint64 { return each8(a, b, func(x, y uint8) uint8 { return x + y }) },
	hPaddw: func(a, b uint64) uint64 { return each16(a, b, func(x, y uint16) uint16 { return x + y }) },
	hPaddd: func(a, b uint64) uint64 { return each32(a, b, func(x, y uint32) uint32 { return x + y }) },
	hPaddq: func(a, b uint64) uint64 { return a + b },
	hPsubb: func(a, b uint64) uint64 { return each8(a, b, func(x, y uint8) uint8 { return x - y }) },
	hPsubw: func(a, b uint64) uint64 { return each16(a, b, func(x, y uint16) uint16 { return x - y }) },
	hPsubd: func(a, b uint64) uint64 { return each32(a, b, func(x, y uint32) uint32 { return x - y }) },
	hPsubq: func(a, b uint64) uint64 { return a - b },

	hPaddsb: func(a, b uint64) uint64 {
		return each8(a, b, func(x, y uint8) uint8 { return satS8(int(int8(x)) + int(int8(y))) })
	},
	hPaddsw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return satS16(int(int16(x)) + int(int16(y))) })
	},
	hPaddusb: func(a, b uint64) uint64 { return each8(a, b, func(x, y uint8) uint8 { return satU8(int(x) + int(y)) }) },
	hPaddusw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return satU16(int(x) + int(y)) })
	},
	hPsubsb: func(a, b uint64) uint64 {
		return each8(a, b, func(x, y uint8) uint8 { return satS8(int(int8(x)) - int(int8(y))) })
	},
	hPsubsw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return satS16(int(int16(x)) - int(int16(y))) })
	},
	hPsubusb: func(a, b uint64) uint64 { return each8(a, b, func(x, y uint8) uint8 { return satU8(int(x) - int(y)) }) },
	hPsubusw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return satU16(int(x) - int(y)) })
	},

	hPand:  func(a, b uint64) uint64 { return a & b },
	hPandn: func(a, b uint64) uint64 { return ^a & b },
	hPor:   func(a, b uint64) uint64 { return a | b },
	hPxor:  func(a, b uint64) uint64 { return a ^ b },

	hPcmpeqb: equalBytes,
	hPcmpeqw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return -uint16(bit(x == y)) })
	},
	hPcmpeqd: func(a, b uint64) uint64 {
		return each32(a, b, func(x, y uint32) uint32 { return -uint32(bit(x == y)) })
	},
	hPcmpeqq: func(a, b uint64) uint64 { return -bit(a == b) },
	hPcmpgtb: func(a, b uint64) uint64 {
		return each8(a, b, func(x, y uint8) uint8 { return -uint8(bit(int8(x) > int8(y))) })
	},
	hPcmpgtw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return -uint16(bit(int16(x) > int16(y))) })
	},
	hPcmpgtd: func(a, b uint64) uint64 {
		return each32(a, b, func(x, y uint32) uint32 { return -uint32(bit(int32(x) > int32(y))) })
	},
	hPcmpgtq: func(a, b uint64) uint64 { return -bit(int64(a) > int64(b)) },

	hPminub: func(a, b uint64) uint64 { return each8(a, b, func(x, y uint8) uint8 { return min(x, y) }) },
	hPmaxub: func(a, b uint64) uint64 { return each8(a, b, func(x, y uint8) uint8 { return max(x, y) }) },
	hPminsb: func(a, b uint64) uint64 {
		return each8(a, b, func(x, y uint8) uint8 { return uint8(min(int8(x), int8(y))) })
	},
	hPmaxsb: func(a, b uint64) uint64 {
		return each8(a, b, func(x, y uint8) uint8 { return uint8(max(int8(x), int8(y))) })
	},
	hPminuw: func(a, b uint64) uint64 { return each16(a, b, func(x, y uint16) uint16 { return min(x, y) }) },
	hPmaxuw: func(a, b uint64) uint64 { return each16(a, b, func(x, y uint16) uint16 { return max(x, y) }) },
	hPminsw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return uint16(min(int16(x), int16(y))) })
	},
	hPmaxsw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return uint16(max(int16(x), int16(y))) })
	},
	hPminud: func(a, b uint64) uint64 { return each32(a, b, func(x, y uint32) uint32 { return min(x, y) }) },
	hPmaxud: func(a, b uint64) uint64 { return each32(a, b, func(x, y uint32) uint32 { return max(x, y) }) },
	hPminsd: func(a, b uint64) uint64 {
		return each32(a, b, func(x, y uint32) uint32 { return uint32(min(int32(x), int32(y))) })
	},
	hPmaxsd: func(a, b uint64) uint64 {
		return each32(a, b, func(x, y uint32) uint32 { return uint32(max(int32(x), int32(y))) })
	},

	hPavgb: func(a, b uint64) uint64 {
		return each8(a, b, func(x, y uint8) uint8 { return uint8((uint(x) + uint(y) + 1) >> 1) })
	},
	hPavgw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return uint16((uint(x) + uint(y) + 1) >> 1) })
	},

	hPmullw: func(a, b uint64) uint64 { return each16(a, b, func(x, y uint16) uint16 { return x * y }) },
	hPmulhw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return uint16(int32(int16(x)) * int32(int16(y)) >> 16) })
	},
	hPmulhuw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return uint16(uint32(x) * uint32(y) >> 16) })
	},
	hPmulhrsw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return uint16((int32(int16(x))*int32(int16(y))>>14 + 1) >> 1) })
	},
	hPmulld:  func(a, b uint64) uint64 { return each32(a, b, func(x, y uint32) uint32 { return x * y }) },
	hPmuludq: func(a, b uint64) uint64 { return (a & 0xffffffff) * (b & 0xffffffff) },
	hPmuldq:  func(a, b uint64) uint64 { return uint64(int64(int32(a)) * int64(int32(b))) },
	hPmaddwd: maddWords,
	hPmaddubsw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 {
			return satS16(int(uint8(x))*int(int8(y)) + int(x>>8)*int(int8(y>>8)))
		})
	},
	hPsadbw: sumDifferences,

	hPsignb: func(a, b uint64) uint64 {
		return each8(a, b, func(x, y uint8) uint8 { return x * uint8(signOf(int64(int8(y)))) })
	},
	hPsignw: func(a, b uint64) uint64 {
		return each16(a, b, func(x, y uint16) uint16 { return x * uint16(signOf(int64(int16(y)))) })
	},
	hPsignd: func(a, b uint64) uint64 {
		return each32(a, b, func(x, y uint32) uint32 { return x * uint32(signOf(int64(int32(y)))) })
	},
	hPabsb: func(_, b uint64) uint64 {
		return each8(b, b, func(x, _ uint8) uint8 { return x * uint8(signOf(int64(int8(x)))) })
	},
	hPabsw: func(_, b uint64) uint64 {
		return each16(b, b, func(x, _ uint16) uint16 { return x * uint16(signOf(int64(int16(x)))) })
	},
	hPabsd: func(_, b uint64) uint64 {
		return each32(b, b, func(x, _ uint32) uint32 { return x * uint32(signOf(int64(int32(x)))) })
	},
}

const (
	hPaddb = iota
	hPaddw
	hPaddd
	hPaddq
	hPsubb
	hPsubw
	hPsubd
	hPsubq
	hPaddsb
	hPaddsw
	hPaddusb
	hPaddusw
	hPsubsb
	hPsubsw
	hPsubusb
	hPsubusw
	hPand
	hPandn
	hPor
	hPxor
	hPcmpeqb
	hPcmpeqw
	hPcmpeqd
	hPcmpeqq
	hPcmpgtb
	hPcmpgtw
	hPcmpgtd
	hPcmpgtq
	hPminub
	hPmaxub
	hPminsb
	hPmaxsb
	hPminuw
	hPmaxuw
	hPminsw
	hPmaxsw
	hPminud
	hPmaxud
	hPminsd
	hPmaxsd
	hPavgb
	hPavgw
	hPmullw
	hPmulhw
	hPmulhuw
	hPmulhrsw
	hPmulld
	hPmuludq
	hPmuldq
	hPmaddwd
	hPmaddubsw
	hPsadbw
	hPsignb
	hPsignw
	hPsignd
	hPabsb
	hPabsw
	hPabsd
)

// opHalves applies a halfOp to both halves of an XMM register.
func opHalves(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if !ok {
		return false
	}
	d, f := c.dest(in), halfOps[in.op]
	d[0], d[1] = f(d[0], b[0]), f(d[1], b[1])
	return true
}

// opPxor is PXOR and XORPS: how a register is cleared.
func opPxor(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if ok {
		d := c.dest(in)
		d[0] ^= b[0]
		d[1] ^= b[1]
	}
	return ok
}

func each8(a, b uint64, f func(x, y uint8) uint8) (r uint64) {
	for i := 0; i < 64; i += 8 {
		r |= uint64(f(uint8(a>>i), uint8(b>>i))) << i
	}
	return r
}

func each16(a, b uint64, f func(x, y uint16) uint16) (r uint64) {
	for i := 0; i < 64; i += 16 {
		r |= uint64(f(uint16(a>>i), uint16(b>>i))) << i
	}
	return r
}

func each32(a, b uint64, f func(x, y uint32) uint32) uint64 {
	return uint64(f(uint32(a), uint32(b))) | uint64(f(uint32(a>>32), uint32(b>>32)))<<32
}

func satS8(v int) uint8   { return uint8(max(min(v, 127), -128)) }
func satU8(v int) uint8   { return uint8(max(min(v, 255), 0)) }
func satS16(v int) uint16 { return uint16(max(min(v, 32767), -32768)) }
func satU16(v int) uint16 { return uint16(max(min(v, 65535), 0)) }

func signOf(v int64) int64 {
	switch {
	case v > 0:
		return 1
	case v < 0:
		return -1
	}
	return 0
}

// equalBytes is PCMPEQB without a loop: a byte of x is zero where a and b are
// equal.
func equalBytes(a, b uint64) uint64 {
	const low7 = 0x7f7f7f7f7f7f7f7f
	x := a ^ b
	nonzero := (x&low7 + low7 | x) & ^uint64(low7)
	return (^nonzero & ^uint64(low7)) >> 7 * 0xff
}

func maddWords(a, b uint64) uint64 {
	return each32(a, b, func(x, y uint32) uint32 {
		return uint32(int32(int16(x))*int32(int16(y)) + int32(int16(x>>16))*int32(int16(y>>16)))
	})
}

func sumDifferences(a, b uint64) (r uint64) {
	for i := 0; i < 64; i += 8 {
		x, y := a>>i&0xff, b>>i&0xff
		r += max(x, y) - min(x, y)
	}
	return r
}

// Shifts of packed elements: op is shift kind<<4 | log2 of the element's bytes.
const (
	pShr = iota << 4
	pSar
	pShl
)

// shiftHalf shifts each element of a half.
func shiftHalf(op uint8, v, n uint64) (r uint64) {
	w := uint64(8) << (op & 15)
	kind := op &^ 15
	if n >= w {
		if kind != pSar {
			return 0
		}
		n = w - 1
	}
	for i := uint64(0); i < 64; i += w {
		e := zeroExtend(v>>i, uint8(64-w))
		switch kind {
		case pShr:
			e >>= n
		case pShl:
			e = zeroExtend(e<<n, uint8(64-w))
		default:
			e = zeroExtend(uint64(int64(signExtend(e, uint8(64-w)))>>n), uint8(64-w))
		}
		r |= e << i
	}
	return r
}

// opPShift shifts by the low quadword of the source, opPShiftI by an
// immediate.
func opPShift(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if ok {
		d := c.dest(in)
		d[0], d[1] = shiftHalf(in.op, d[0], b[0]), shiftHalf(in.op, d[1], b[0])
	}
	return ok
}

func opPShiftI(c *cpu, in *inst) bool {
	d := &c.sse.xmm[in.rm&15]
	d[0], d[1] = shiftHalf(in.op, d[0], in.imm), shiftHalf(in.op, d[1], in.imm)
	return true
}

// opPShiftBytes is PSRLDQ (op 0) and PSLLDQ (op 1).
func opPShiftBytes(c *cpu, in *inst) bool {
	d := &c.sse.xmm[in.rm&15]
	if in.op == 0 {
		*d = alignRight(vec{}, *d, uint8(in.imm))
	} else {
		*d = shiftLeftBytes(*d, uint8(in.imm))
	}
	return true
}

// alignRight is the 16 bytes at offset n of lo, hi and zeros.
func alignRight(hi, lo vec, n uint8) vec {
	w := [6]uint64{lo[0], lo[1], hi[0], hi[1]}
	if n >= 32 {
		return vec{}
	}
	i, s := n/8, n%8*8
	at := func(i uint8) uint64 { return w[i]>>s | w[i+1]<<1<<(63-s) }
	return vec{at(i), at(i + 1)}
}

func shiftLeftBytes(v vec, n uint8) vec {
	if n >= 16 {
		return vec{}
	}
	return alignRight(v, vec{}, 16-n)
}

// opPhminpos is PHMINPOSUW: the least word and its place.
func opPhminpos(c *cpu, in *inst) bool {
	v, ok := c.source128(in)
	if !ok {
		return false
	}
	least, at := uint64(0xffff), uint64(0)
	for i := range uint64(8) {
		if w := v[i/4] >> (16 * (i % 4)) & 0xffff; w < least {
			least, at = w, i
		}
	}
	*c.dest(in) = vec{least | at<<16}
	return true
}

// opPtest is PTEST.
func opPtest(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if !ok {
		return false
	}
	d := c.dest(in)
	zero := d[0]&b[0]|d[1]&b[1] == 0
	carry := ^d[0]&b[0]|^d[1]&b[1] == 0
	c.setArith(bit(carry) | bit(zero)<<6)
	return true
}

// opMpsadbw is MPSADBW: sums of absolute differences of four bytes of the
// source with eleven of the destination.
func opMpsadbw(c *cpu, in *inst) bool {
	b, ok := c.source128(in)
	if !ok {
		return false
	}
	d := c.dest(in)
	s := alignRight(vec{}, b, uint8(in.imm&3*4))[0]
	a := alignRight(vec{}, *d, uint8(in.imm>>2&1*4))
	var r vec
	for i := range 8 {
		x := alignRight(vec{}, a, uint8(i))[0] & 0xffffffff
		r[i/4] |= sumDifferences(x, s&0xffffffff) << (16 * (i % 4))
	}
	*d = r
	return true
}
