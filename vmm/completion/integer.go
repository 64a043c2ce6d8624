package completion

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// arithFlags are the flags that arithmetic sets.
const arithFlags = x86.FlagCF | x86.FlagPF | x86.FlagAF | x86.FlagZF | x86.FlagSF | x86.FlagOF

// popcnt sets ZF by its source and clears the other arithmetic flags (SDM
// vol. 2, POPCNT).
func (e *Engine) popcnt() verdict {
	e.op(OpPOPCNT)
	size := e.in.size(e.mode)
	x, v := e.source(size)
	if v != done {
		return v
	}
	e.setReg(e.in.reg, size, uint64(bits.OnesCount64(x)))
	e.setFlags(arithFlags, flagIf(x86.FlagZF, x == 0))
	return done
}

// countZeros is TZCNT and LZCNT: CF says that the source is 0, ZF that the
// result is; the other flags are undefined and stay.
func (e *Engine) countZeros() verdict {
	size := e.in.size(e.mode)
	width := 8 * size
	e.op(OpTZCNT)
	if e.in.op == 0xbd {
		e.op(OpLZCNT)
	}
	x, v := e.source(size)
	if v != done {
		return v
	}
	n := min(bits.TrailingZeros64(x), width)
	if e.in.op == 0xbd {
		n = bits.LeadingZeros64(x) - (64 - width)
	}
	e.setReg(e.in.reg, size, uint64(n))
	e.setFlags(x86.FlagCF|x86.FlagZF, flagIf(x86.FlagCF, x == 0)|flagIf(x86.FlagZF, n == 0))
	return done
}

func flagIf(flag uint64, on bool) uint64 {
	if on {
		return flag
	}
	return 0
}

// cmpxchg16b is atomic whether or not LOCK stands before it: other CPUs of the
// guest and devices see the memory at the same time.
func (e *Engine) cmpxchg16b() verdict {
	e.op(OpCMPXCHG16B)
	// The destination is written in any case, so a read-only page faults.
	at, v := e.operand(16, paging.Write)
	if v != done {
		return v
	}
	if at&15 != 0 {
		return e.gp()
	}
	gpa, v := e.translate(at, paging.Write)
	if v != done {
		return v
	}
	b, err := e.mem.WritableBytes(gpa, 16)
	if err != nil {
		return e.fail(fmt.Errorf("its operand at %#x is not in memory: %w", at, err))
	}
	r := e.r
	lo, hi, swapped := compareAndSwap128((*[16]byte)(b), r.RAX, r.RDX, r.RBX, r.RCX)
	if !swapped {
		r.RAX, r.RDX = lo, hi
	}
	e.setFlags(x86.FlagZF, flagIf(x86.FlagZF, swapped))
	return done
}

// crc32c is the table of the polynomial 0x11EDC6F41, bit-reflected.
var crc32c = func() (t [256]uint32) {
	for i := range t {
		c := uint32(i)
		for range 8 {
			c = c>>1 ^ 0x82f63b78&-(c&1)
		}
		t[i] = c
	}
	return t
}()

func (e *Engine) crc32() verdict {
	e.op(OpCRC32)
	size := 1
	if e.in.op == 0xf1 {
		size = e.in.size(e.mode)
	}
	x, v := e.source(size)
	if v != done {
		return v
	}
	c := uint32(e.reg(e.in.reg, 4))
	for range size {
		c = c>>8 ^ crc32c[uint8(c)^uint8(x)]
		x >>= 8
	}
	e.setReg(e.in.reg, 4, uint64(c))
	return done
}

func (e *Engine) movbe() verdict {
	e.op(OpMOVBE)
	size := e.in.size(e.mode)
	if e.in.op == 0xf1 {
		return e.store(swapBytes(e.reg(e.in.reg, size), size), size)
	}
	x, v := e.source(size)
	if v != done {
		return v
	}
	e.setReg(e.in.reg, size, swapBytes(x, size))
	return done
}

func swapBytes(x uint64, size int) uint64 { return bits.ReverseBytes64(x) >> (64 - 8*size) }

// addCarry is ADCX and ADOX: an addition that uses and sets one flag only.
func (e *Engine) addCarry() verdict {
	in := &e.in
	var flag uint64
	switch {
	case in.opSize && in.rep == 0:
		e.op(OpADCX)
		flag = x86.FlagCF
	case in.rep == 0xf3 && !in.opSize:
		e.op(OpADOX)
		flag = x86.FlagOF
	default:
		return unknown
	}
	size := 4
	if in.rexW {
		size = 8
	}
	x, v := e.source(size)
	if v != done {
		return v
	}
	y, carry := e.reg(in.reg, size), flagBit(e.r.RFLAGS, flag)
	sum, out := bits.Add64(x, y, carry)
	if size == 4 {
		out = sum >> 32
	}
	e.setReg(in.reg, size, sum)
	e.setFlags(flag, flagIf(flag, out != 0))
	return done
}

func flagBit(flags, flag uint64) uint64 {
	if flags&flag != 0 {
		return 1
	}
	return 0
}

// movdir64b copies 64 bytes to an aligned place (SDM vol. 2, MOVDIR64B). The
// destination is in ES, whatever prefix there is.
func (e *Engine) movdir64b() verdict {
	e.op(OpMOVDIR64B)
	to := e.reg(e.in.reg, int(e.in.addressBits(e.mode)/8))
	dst, v := e.linear(segES, to, 64, paging.Write)
	if v != done {
		return v
	}
	if dst&63 != 0 {
		return e.gp()
	}
	src, v := e.operand(64, paging.Read)
	if v != done {
		return v
	}
	var b [64]byte
	if v := e.read(src, b[:]); v != done {
		return v
	}
	return e.write(dst, b[:])
}

// clzero zeroes the cache line that RAX is in (AMD APM vol. 3, CLZERO).
func (e *Engine) clzero() verdict {
	e.op(OpCLZero)
	seg := e.in.seg
	if seg == segNone {
		seg = segDS
	}
	off := e.reg(0, int(e.in.addressBits(e.mode)/8)) &^ 63
	at, v := e.linear(seg, off, 64, paging.Write)
	if v != done {
		return v
	}
	var zero [64]byte
	return e.write(at&^63, zero[:])
}

// rdrand is RDRAND and RDSEED, both from the host's generator.
func (e *Engine) rdrand(seed bool) verdict {
	e.op(OpRDRAND)
	if seed {
		e.op(OpRDSEED)
	}
	b := e.area[:8]
	if _, err := rand.Read(b); err != nil {
		return e.fail(err)
	}
	size := e.in.size(e.mode)
	e.setReg(e.in.rm, size, binary.LittleEndian.Uint64(b)&sizeMask(size))
	e.setFlags(arithFlags, x86.FlagCF)
	return done
}
