package softcpu

import "encoding/binary"

// decoder turns bytes into an inst.
type decoder struct {
	c    *cpu
	mode mode
	page *hostPage
	// pos is the offset of the next byte in the page; beyond pageSize it is
	// in second, the bytes of the next page, which are there once needed.
	pos, start int
	// Up to limit a byte can be read without a further look: it is in the page,
	// and the instruction is not too long with it.
	limit  int
	second *hostPage
	err    decodeError

	rex      uint8
	op16     bool // 0x66
	addr     bool // 0x67
	segment  int8 // overriding segment, or -1
	op       *opcode
	pfx      uint8 // 0, 1 for 66, 2 for F3, 3 for F2: the mandatory prefix
	last     uint8 // last byte of the opcode
	modrm    uint8
	hasModRM bool
	vvvv     uint8 // register in a VEX prefix
	isVEX    bool
	refused  bool // the instruction only raises an exception
}

// decodeError says why there is no instruction.
type decodeError uint8

const (
	decodeOK      decodeError = iota
	decodeFault               // cpu.exc has the page fault of the second page
	decodeTooLong             // more than 15 bytes: #GP
	decodeCross               // the instruction crosses into the next page and may not here
)

// mode is how instructions are decoded: a part of a block's key.
type mode uint16

const (
	mode16 mode = iota // the size of code (SDM vol. 3, 3.4.5, D/B and L)
	mode32
	mode64
	modeSize   mode = 3
	modeStep   mode = 1 << 2 // blocks of one instruction
	modeChecks mode = 1 << 3 // segments have limits and types that matter
	modeNoSSE  mode = 1 << 4 // SSE instructions raise an exception
	modeNoFPU  mode = 1 << 5 // x87 and MMX instructions do
	modeReal   mode = 1 << 6 // real or virtual-8086 mode
	modeUser   mode = 1 << 7 // CPL is not 0
)

const maxInstruction = 15 // bytes (SDM vol. 2, 2.3.11)

// byte returns the next byte of the instruction. After an error it is 0.
func (d *decoder) byte() uint8 {
	if p := d.pos; p < d.limit {
		d.pos++
		return d.page[p&pageMask]
	}
	return d.farByte()
}

// farByte is byte beyond limit.
func (d *decoder) farByte() uint8 {
	if d.err != decodeOK {
		return 0
	}
	if d.pos-d.start >= maxInstruction {
		d.err = decodeTooLong
		return 0
	}
	if d.second == nil {
		d.err = decodeCross
		return 0
	}
	d.pos++
	return d.second[d.pos-1-pageSize]
}

// int reads an n-byte integer, sign-extended.
func (d *decoder) int(n int) uint64 {
	var v uint64
	if p := d.pos; p+n <= d.limit && p <= pageSize-8 {
		v = binary.LittleEndian.Uint64(d.page[p : p+8])
		d.pos += n
	} else {
		for i := range n {
			v |= uint64(d.byte()) << (8 * i)
		}
	}
	return signExtend(v, uint8(64-8*n))
}

// decode decodes one instruction at d.pos into in. With an error, in has no
// meaning.
func (d *decoder) decode(in *inst) {
	*in = inst{off: uint16(d.pos), base: rZero, index: rZero, seg: rZero}
	d.limit = min(d.pos+maxInstruction, pageSize)
	d.start, d.rex, d.op16, d.addr, d.segment, d.pfx = d.pos, 0, false, false, -1, 0
	d.hasModRM, d.isVEX = false, false
	code := d.prefixes(in)
	d.op = d.lookup(in, code)
	if d.op.attr&aModRM != 0 {
		d.readModRM()
	}
	if d.op.group != nil {
		d.op = d.pick(in)
	}
	op := d.op
	d.sizes(in, op)
	if d.hasModRM {
		d.operands(in, op)
	} else if op.attr&aOpReg != 0 {
		in.rm = d.byteReg(d.last&7|d.rex&1<<3, op.attr)
	}
	if op.attr&aString != 0 {
		d.segmentFor(in, segDS)
		in.flags &^= flagStack
		if !d.hasModRM {
			in.rm = rZero
			if d.mode&modeSize != mode64 {
				in.rm = rSeg + segES
			}
		}
	}
	d.immediate(in, op.imm)
	in.next = uint16(d.pos)
	if op.imm == immRel8 || op.imm == immRelZ {
		d.target(in)
	}
	if in.base == rPage {
		in.disp += uint64(in.next)
	}
	in.op, in.fn = op.op, op.fn
	if d.isVEX {
		in.asize = d.vvvv
	}
	d.finish(in, op)
}

// lookup finds the row for an opcode, reading its further bytes.
func (d *decoder) lookup(in *inst, code uint8) *opcode {
	switch {
	case in.rep == 0xf3:
		d.pfx = 2
	case in.rep == 0xf2:
		d.pfx = 3
	case d.op16:
		d.pfx = 1
	}
	d.last = code
	if code != 0x0f {
		return d.lookup1(in, code)
	}
	code = d.byte()
	d.last = code
	switch code {
	case 0xb8, 0xbc, 0xbd:
		return lookupCount(code, in.rep == 0xf3)
	case 0x38:
		return d.byPrefix(&map38, d.byte())
	case 0x3a:
		return d.byPrefix(&map3A, d.byte())
	}
	if op := &map0F[0][code]; op.fn != nil || op.group != nil {
		return op
	}
	return d.byPrefix(&mapSSE, code)
}

// lookup1 is lookup for one-byte opcodes, some of which 64-bit mode or a
// prefix gives another meaning.
func (d *decoder) lookup1(in *inst, code uint8) *opcode {
	wide := d.mode&modeSize == mode64
	switch {
	case code == 0x90 && in.rep == 0xf3:
		// With REX.B too: repeat prefixes are reserved with XCHG (SDM vol. 2,
		// 2.1.1), of which AMD's processors make one of R8 here.
		return &pause
	case code == 0x90 && d.rex&1 == 0:
		return &nop
	case code == 0x63 && wide && d.op16 && d.rex&8 == 0:
		return &movsxd16
	case code == 0x63 && wide:
		return &movsxd
	case (code == 0xc4 || code == 0xc5) && (wide || d.peek() >= 0xc0) && d.mode&modeReal == 0:
		return d.vex(in, code)
	}
	return &oneByte[code]
}

// peek is the next byte, without reading it.
func (d *decoder) peek() uint8 {
	b := d.byte()
	if d.err == decodeOK {
		d.pos--
	}
	return b
}

func lookupCount(code uint8, f3 bool) *opcode {
	switch {
	case code == 0xbc && f3:
		return &tzcnt
	case code == 0xbc:
		return &bsf
	case code == 0xbd && f3:
		return &lzcnt
	case code == 0xbd:
		return &bsr
	case f3:
		return &popcnt
	}
	return &undefined
}

// byPrefix finds the row of an opcode that has another meaning with each
// mandatory prefix. 66 together with F2 makes no difference but in operand
// size (CRC32).
func (d *decoder) byPrefix(m *[4][256]opcode, code uint8) *opcode {
	op := &m[d.pfx][code]
	if op.fn == nil && op.group == nil {
		return &undefined
	}
	return op
}

func (d *decoder) readModRM() {
	if !d.hasModRM {
		d.modrm, d.hasModRM = d.byte(), true
	}
}

// pick chooses a group's row.
func (d *decoder) pick(in *inst) *opcode {
	outer := d.op
	op := &outer.group[d.modrm>>3&7]
	if op.group != nil { // by the memory or register form
		k := 0
		if d.modrm >= 0xc0 {
			k = 1
		}
		op = &op.group[k]
		if op.group != nil { // by ModRM.rm
			op = &op.group[d.modrm&7]
		}
	}
	if op.fn == nil {
		return &undefinedModRM
	}
	return op
}

// sizes computes operand and address size (SDM vol. 1, 3.6).
func (d *decoder) sizes(in *inst, op *opcode) {
	in.size, in.asize = 4, 4
	switch d.mode & modeSize {
	case mode64:
		in.asize = 8
		if d.addr {
			in.asize = 4
		}
		switch {
		case d.rex&8 != 0 || op.attr&aF64 != 0:
			in.size = 8
		case d.op16:
			in.size = 2
		case op.attr&aD64 != 0:
			in.size = 8
		}
	case mode32:
		if d.op16 {
			in.size = 2
		}
		if d.addr {
			in.asize = 2
		}
	case mode16:
		if !d.op16 {
			in.size = 2
		}
		if !d.addr {
			in.asize = 2
		}
	}
	if op.attr&aByte != 0 {
		in.size = 1
	}
	if op.attr&aGPR32 != 0 {
		in.size = 4 + d.rex&8>>1
	}
	in.sh = 64 - 8*in.size
	in.amask = ^uint64(0) >> (64 - 8*in.asize)
}

// byteReg turns the encodings 4 to 7 of an 8-bit operand without REX into AH,
// CH, DH and BH.
func (d *decoder) byteReg(n uint8, a attr) uint8 {
	if a&aByte != 0 && d.rex == 0 && n >= 4 && n < 8 {
		return rHigh + n - 4
	}
	return n
}

// operands decodes ModRM, SIB and displacement (SDM vol. 2, 2.1.5).
func (d *decoder) operands(in *inst, op *opcode) {
	in.reg = d.byteReg(d.modrm>>3&7|d.rex&4<<1, op.attr)
	mod, rm := d.modrm>>6, d.modrm&7
	if mod == 3 {
		in.rm = d.byteReg(rm|d.rex&1<<3, op.attr)
		return
	}
	in.mem = true
	seg := int8(segDS)
	if in.asize == 2 {
		seg = d.address16(in, mod, rm)
	} else {
		seg = d.address(in, mod, rm)
	}
	d.segmentFor(in, seg)
}

// segmentFor names the segment base of the memory operand, whose default
// segment is seg.
func (d *decoder) segmentFor(in *inst, seg int8) {
	if d.segment >= 0 {
		seg = d.segment
	}
	if seg == segSS {
		in.flags |= flagStack
	}
	if d.mode&modeSize != mode64 || seg >= segFS {
		in.seg = rSeg + uint8(seg)
	}
}

// address16 decodes a 16-bit address and returns its default segment (SDM
// vol. 2, table 2-1).
func (d *decoder) address16(in *inst, mod, rm uint8) int8 {
	base := [8]uint8{rBX, rBX, rBP, rBP, rZero, rZero, rBP, rBX}
	index := [8]uint8{rSI, rDI, rSI, rDI, rSI, rDI, rZero, rZero}
	in.base, in.index = base[rm], index[rm]
	switch {
	case mod == 0 && rm == 6:
		in.base = rZero
		in.disp = d.int(2)
	case mod == 1:
		in.disp = d.int(1)
	case mod == 2:
		in.disp = d.int(2)
	}
	if in.base == rBP {
		return segSS
	}
	return segDS
}

// address decodes a 32- or 64-bit address and returns its default segment
// (SDM vol. 2, tables 2-2 and 2-3).
func (d *decoder) address(in *inst, mod, rm uint8) int8 {
	in.base = rm | d.rex&1<<3
	if rm == 4 {
		sib := d.byte()
		in.base = sib&7 | d.rex&1<<3
		if n := sib>>3&7 | d.rex&2<<2; n != rSP {
			in.index, in.scale = n, sib>>6
		}
	}
	switch {
	case mod == 0 && in.base&7 == rBP:
		in.base = rZero
		in.disp = d.int(4)
		if rm != 4 && d.mode&modeSize == mode64 {
			in.base = rPage
		}
	case mod == 1:
		in.disp = d.int(1)
	case mod == 2:
		in.disp = d.int(4)
	}
	if in.base == rSP || in.base == rBP {
		return segSS
	}
	return segDS
}

// immediate reads what follows the operands.
func (d *decoder) immediate(in *inst, k immKind) {
	wide := int(min(in.size, 4))
	switch k {
	case imm8, immRel8:
		in.imm = d.int(1)
	case immU8:
		in.imm = d.int(1) & 0xff
	case immU16:
		in.imm = d.int(2) & 0xffff
	case immZ, immRelZ:
		in.imm = d.int(wide)
	case immV:
		in.imm = d.int(int(in.size))
	case immEnter:
		in.imm = d.int(2) & 0xffff
		in.imm |= d.int(1) & 0xff << 16
	case immFar:
		in.imm = d.int(wide) & (1<<(8*wide) - 1)
		in.imm |= d.int(2) & 0xffff << 32
	case immMoffs:
		in.mem = true
		in.disp = d.int(int(in.asize))
		d.segmentFor(in, segDS)
	}
}

// target turns a branch's displacement into one from the start of the page.
// What it is added to is masked to the size of IP when it is taken.
func (d *decoder) target(in *inst) { in.imm += uint64(in.next) }

// finish applies the checks that need no operands, and picks the handler for
// the form at hand.
func (d *decoder) finish(in *inst, op *opcode) {
	a := op.attr
	d.refused = true
	switch {
	case a&aNo64 != 0 && d.mode&modeSize == mode64,
		a&aMem != 0 && !in.mem,
		a&aReg != 0 && in.mem,
		a&aProt != 0 && d.mode&modeReal != 0,
		in.flags&flagLock != 0 && (a&aLock == 0 || !in.mem):
		in.fn = opUndefined
	case a&aSSE != 0 && d.mode&modeNoSSE != 0:
		in.fn = opNoSSE
	case a&(aX87|aMMX) != 0 && d.mode&modeNoFPU != 0:
		in.fn = opNoFPU
		in.op = uint8(bit(a&aMMX != 0))
	case a&aPriv != 0 && d.mode&modeUser != 0:
		in.fn = opGP0
	case op.spec != nil:
		d.refused = false
		if h := op.spec(in); h != nil {
			in.fn = h
		}
	default:
		d.refused = false
	}
}
