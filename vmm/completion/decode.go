package completion

import (
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// mode is the size of code that is executed.
type mode uint8

const (
	mode16 mode = 16
	mode32 mode = 32
	mode64 mode = 64
)

func modeOf(s *x86.Sregs) mode {
	switch {
	case s.LongMode():
		return mode64
	case s.CR0&x86.CR0PE != 0 && s.CS.DB != 0:
		return mode32
	}
	return mode16
}

// ip is an instruction pointer as wide as the mode has it.
func (m mode) ip(v uint64) uint64 {
	switch m {
	case mode64:
		return v
	case mode32:
		return uint64(uint32(v))
	}
	return uint64(uint16(v))
}

// opMap is one of the processor's opcode tables (SDM vol. 2, appendix A).
type opMap uint8

const (
	mapOne opMap = iota
	map0F
	map0F38
	map0F3A
)

// maxLength is the longest an instruction can be (SDM vol. 2, 2.3.11).
const maxLength = 15

// Segment registers by their encoding.
const (
	segES = iota
	segCS
	segSS
	segDS
	segFS
	segGS
	segNone = 0xff
)

// inst is a decoded instruction. Fields that a decode does not set are zero.
type inst struct {
	code [maxLength]byte
	n    int // bytes of code
	pos  int // the next byte to decode; in the end, the length

	table    opMap
	op       byte
	opSize   bool // 66
	addrSize bool // 67
	rep      byte // F2 or F3, the last one
	lock     bool
	seg      uint8
	rexW     bool
	rexR     uint8 // 8 where REX.R or its VEX form is set, to be added to a register's number
	rexX     uint8
	rexB     uint8
	hasREX   bool
	vex      bool
	long     bool  // VEX.L
	vvvv     uint8 // VEX's second register

	modRM        byte
	mod, reg, rm uint8 // reg and rm with their REX bits
	base, index  uint8 // noReg where there is none
	scale        uint8
	disp         int64
	relative     bool // disp is from the end of the instruction
	imm          byte
}

const noReg = 0xff

// fetch decodes the instruction from code, or from guest memory where code
// does not hold all of it.
func (e *Engine) fetch(code []byte) verdict {
	in := &e.in
	in.load(code)
	switch in.decode(e.mode) {
	case decoded:
		return done
	case invalid:
		return unknown
	}
	// The host gave too few bytes, or none: the rest is where RIP points.
	var buf [maxLength]byte
	n := copy(buf[:], code)
	base := e.s.CS.Base
	if e.mode == mode64 {
		base = 0
	}
	for ; n < maxLength; n++ {
		at := e.wrap(base + e.mode.ip(e.r.RIP+uint64(n)))
		if !e.cpu.Canonical(at) {
			break
		}
		gpa, _, ok := e.cpu.Translate(e.mem, at, paging.Fetch)
		if !ok {
			break
		}
		b, err := e.mem.Bytes(gpa, 1)
		if err != nil {
			break
		}
		buf[n] = b[0]
	}
	in.load(buf[:n])
	if in.decode(e.mode) != decoded {
		return unknown
	}
	return done
}

func (in *inst) load(code []byte) {
	*in = inst{seg: segNone, base: noReg, index: noReg}
	in.n = copy(in.code[:], code)
}

type decodeResult uint8

const (
	decoded decodeResult = iota
	short                // bytes are missing
	invalid
)

// next returns the next byte; past the end it returns 0 and leaves pos beyond
// n, which decode finds in the end.
func (in *inst) next() byte {
	in.pos++
	if in.pos > in.n {
		return 0
	}
	return in.code[in.pos-1]
}

func (in *inst) decode(m mode) decodeResult {
	if !in.prefixes(m) {
		return invalid
	}
	in.opcode(m)
	if in.hasModRM() {
		in.decodeModRM(m)
	}
	if in.table == map0F3A || in.table == mapOne && in.op == 0xcd {
		in.imm = in.next()
	}
	switch {
	case in.pos > maxLength:
		return invalid
	case in.pos > in.n:
		return short
	}
	return decoded
}

// prefixes reads legacy prefixes and REX, which must be the last.
func (in *inst) prefixes(m mode) bool {
	for in.pos < maxLength {
		b := in.next()
		switch b {
		case 0x66:
			in.opSize = true
		case 0x67:
			in.addrSize = true
		case 0xf2, 0xf3:
			in.rep = b
		case 0xf0:
			in.lock = true
		case 0x26, 0x2e, 0x36, 0x3e:
			if m != mode64 { // there they have no meaning
				in.seg = b >> 3 & 3
			}
		case 0x64, 0x65:
			in.seg = b & 7
		default:
			if m == mode64 && b&0xf0 == 0x40 {
				in.hasREX = true
				in.rexW, in.rexR, in.rexX, in.rexB = b&8 != 0, b<<1&8, b<<2&8, b<<3&8
				b = in.next()
			}
			in.op = b
			return true
		}
	}
	return false
}

// opcode reads the rest of the opcode after its first byte.
func (in *inst) opcode(m mode) {
	switch {
	case in.op == 0x0f:
		in.table, in.op = map0F, in.next()
		switch in.op {
		case 0x38:
			in.table, in.op = map0F38, in.next()
		case 0x3a:
			in.table, in.op = map0F3A, in.next()
		}
	case in.op == 0xc4 || in.op == 0xc5:
		// Outside 64-bit mode these are LES and LDS unless the next byte
		// would be a register form, which those do not have.
		if m == mode64 || in.pos < in.n && in.code[in.pos] >= 0xc0 {
			in.decodeVEX(m)
		}
	}
}

// decodeVEX reads a VEX prefix and the opcode behind it (SDM vol. 2, 2.3.5).
// Its pp field is kept as the prefix that it stands for.
func (in *inst) decodeVEX(m mode) {
	in.vex = true
	b := in.next()
	in.rexR = ^b >> 4 & 8
	in.table = map0F
	if in.op == 0xc4 {
		in.rexX, in.rexB = ^b>>3&8, ^b>>2&8
		in.table = opMap(b & 0x1f)
		if b&0x1f > uint8(map0F3A) {
			in.table = mapOne // no such table: nothing matches
		}
		b = in.next()
		in.rexW = b&0x80 != 0 && m == mode64
	}
	in.vvvv = ^b >> 3 & 15
	in.long = b&4 != 0
	// A VEX prefix excludes 66, F2, F3, LOCK and REX before it.
	if in.opSize || in.rep != 0 || in.hasREX {
		in.lock = true // makes the instruction undefined
	}
	in.opSize, in.rep = false, 0
	switch b & 3 {
	case 1:
		in.opSize = true
	case 2:
		in.rep = 0xf3
	case 3:
		in.rep = 0xf2
	}
	in.op = in.next()
	if m != mode64 {
		in.rexR, in.rexX, in.rexB, in.vvvv = 0, 0, 0, in.vvvv&7
	}
}

// hasModRM says whether a ModRM byte follows; it is right for the opcodes that
// this package knows, and for others it does not matter.
func (in *inst) hasModRM() bool {
	switch in.table {
	case mapOne:
		return in.op >= 0xd8 && in.op <= 0xdf
	case map0F:
		switch in.op {
		case 0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x0e, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x77, 0xa2, 0xaa:
			return false
		}
	}
	return true
}

func (in *inst) decodeModRM(m mode) {
	b := in.next()
	in.modRM = b
	in.mod, in.reg, in.rm = b>>6, b>>3&7|in.rexR, b&7
	if in.mod == 3 {
		in.rm |= in.rexB
		return
	}
	if in.addressBits(m) == 16 {
		in.address16()
		return
	}
	low := b & 7
	switch {
	case low == 4:
		sib := in.next()
		in.scale = sib >> 6
		if x := sib>>3&7 | in.rexX; x != 4 {
			in.index = x
		}
		if sib&7 != 5 || in.mod != 0 {
			in.base = sib&7 | in.rexB
		}
		in.displacement(sib&7 == 5)
	case low == 5 && in.mod == 0:
		in.relative = m == mode64
		in.displacement(true)
	default:
		in.base = low | in.rexB
		in.displacement(false)
	}
}

// displacement reads what mod says follows; wide32 where mod 0 has one too.
func (in *inst) displacement(wide32 bool) {
	switch {
	case in.mod == 1:
		in.disp = int64(int8(in.next()))
	case in.mod == 2, wide32 && in.mod == 0:
		v := uint32(in.next()) | uint32(in.next())<<8 | uint32(in.next())<<16 | uint32(in.next())<<24
		in.disp = int64(int32(v))
	}
}

// address16 decodes a 16-bit address form (SDM vol. 2, table 2-1).
func (in *inst) address16() {
	const bx, bp, si, di = 3, 5, 6, 7
	forms := [8][2]uint8{{bx, si}, {bx, di}, {bp, si}, {bp, di}, {noReg, si}, {noReg, di}, {bp, noReg}, {bx, noReg}}
	f := forms[in.modRM&7]
	in.base, in.index = f[0], f[1]
	switch {
	case in.mod == 1:
		in.disp = int64(int8(in.next()))
	case in.mod == 2, in.mod == 0 && in.modRM&7 == 6:
		if in.mod == 0 {
			in.base = noReg
		}
		in.disp = int64(int16(uint16(in.next()) | uint16(in.next())<<8))
	}
}

// addressBits is the width of effective addresses.
func (in *inst) addressBits(m mode) uint {
	switch {
	case m == mode64 && in.addrSize, m == mode32 && !in.addrSize, m == mode16 && in.addrSize:
		return 32
	case m == mode64:
		return 64
	}
	return 16
}

// size is the operand size in bytes: 2, 4 or 8.
func (in *inst) size(m mode) int {
	switch {
	case in.rexW:
		return 8
	case in.vex:
		return 4
	case in.opSize == (m == mode16):
		return 4
	}
	return 2
}
