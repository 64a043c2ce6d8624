package softcpu

// Opcode tables: SDM vol. 2, appendix A.

// undefined and undefinedModRM are opcodes that are not there. With ModRM the
// instruction's length is known, which the trace shows.
var (
	undefined      = opcode{name: "(undefined)", fn: opUndefined, attr: aEnd}
	undefinedModRM = opcode{name: "(undefined)", fn: opUndefined, attr: aEnd | aModRM}
)

// oneByte is table A-2.
var oneByte = makeOneByte()

var aluNames = [8]string{"add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"}

func makeOneByte() (t [256]opcode) {
	for i := range t {
		t[i] = undefined
	}
	addAlu(&t)
	addStackOps(&t)
	addMoves(&t)
	addBranches(&t)
	addMisc(&t)
	addStrings(&t)
	addGroups(&t)
	for i := range uint8(8) {
		t[0xd8+i] = opcode{name: "x87", fn: opEscape, attr: aModRM | aX87 | aNoData, op: i}
	}
	t[0xd9].group = nil
	return t
}

func addAlu(t *[256]opcode) {
	for op := range uint8(8) {
		row, name := op<<3, aluNames[op]
		store := aLock | aStore
		if op == aluCmp {
			store = 0
		}
		t[row] = opcode{name: name, fn: opAluEG, attr: aModRM | aByte | store, op: op, form: formEG, spec: specAluEG}
		t[row+1] = opcode{name: name, fn: opAluEG, attr: aModRM | store, op: op, form: formEG, spec: specAluEG}
		t[row+2] = opcode{name: name, fn: opAluGE, attr: aModRM | aByte, op: op, form: formGE, spec: specAluGE}
		t[row+3] = opcode{name: name, fn: opAluGE, attr: aModRM, op: op, form: formGE, spec: specAluGE}
		t[row+4] = opcode{name: name, fn: opAluEI, attr: aByte, imm: imm8, op: op, form: formEI, spec: specAluEI}
		t[row+5] = opcode{name: name, fn: opAluEI, imm: immZ, op: op, form: formEI, spec: specAluEI}
	}
}

func addStackOps(t *[256]opcode) {
	for i, s := range []uint8{segES, segCS, segSS, segDS} {
		t[6+8*i] = opcode{name: "push", fn: opPushSeg, attr: aNo64, op: s}
		if s != segCS {
			t[7+8*i] = opcode{name: "pop", fn: opPopSeg, attr: aNo64 | aEnd, op: s}
		}
	}
	for r := range 8 {
		t[0x50+r] = opcode{name: "push", fn: opPushR, attr: aD64 | aOpReg, spec: spec64(opPushR64)}
		t[0x58+r] = opcode{name: "pop", fn: opPopR, attr: aD64 | aOpReg, spec: spec64(opPopR64)}
	}
	t[0x60] = opcode{name: "pusha", fn: opPusha, attr: aNo64}
	t[0x61] = opcode{name: "popa", fn: opPopa, attr: aNo64}
	t[0x68] = opcode{name: "push", fn: opPushImm, attr: aD64, imm: immZ}
	t[0x6a] = opcode{name: "push", fn: opPushImm, attr: aD64, imm: imm8}
	t[0x8f] = opcode{name: "pop", attr: aModRM | aD64 | aStore, group: &group1A}
	t[0x9c] = opcode{name: "pushf", fn: opPushf, attr: aD64}
	t[0x9d] = opcode{name: "popf", fn: opPopf, attr: aD64}
	t[0xc8] = opcode{name: "enter", fn: opEnter, attr: aD64, imm: immEnter}
	t[0xc9] = opcode{name: "leave", fn: opLeave, attr: aD64}
}

// spec64 picks h for an operand size of 64 bits.
func spec64(h handler) func(*inst) handler {
	return func(in *inst) handler {
		if in.size == 8 {
			return h
		}
		return nil
	}
}

func addMoves(t *[256]opcode) {
	t[0x63] = opcode{name: "arpl", fn: opArpl, attr: aModRM | aStore} // MOVSXD in 64-bit mode, see decoder.lookup
	t[0x84] = opcode{name: "test", fn: opTest, attr: aModRM | aByte, op: aluTest, form: formEG, spec: specTest}
	t[0x85] = opcode{name: "test", fn: opTest, attr: aModRM, op: aluTest, form: formEG, spec: specTest}
	t[0x86] = opcode{name: "xchg", fn: opXchg, attr: aModRM | aByte | aLock | aStore}
	t[0x87] = opcode{name: "xchg", fn: opXchg, attr: aModRM | aLock | aStore}
	t[0x88] = opcode{name: "mov", fn: opMovEG, attr: aModRM | aByte | aStore, spec: specMovEG}
	t[0x89] = opcode{name: "mov", fn: opMovEG, attr: aModRM | aStore, spec: specMovEG}
	t[0x8a] = opcode{name: "mov", fn: opMovGE, attr: aModRM | aByte, spec: specMovGE}
	t[0x8b] = opcode{name: "mov", fn: opMovGE, attr: aModRM, spec: specMovGE}
	t[0x8c] = opcode{name: "mov", fn: opMovFromSeg, attr: aModRM | aStore | aMem16}
	t[0x8d] = opcode{name: "lea", fn: opLea, attr: aModRM | aMem | aNoData, spec: specLea}
	t[0x8e] = opcode{name: "mov", fn: opMovToSeg, attr: aModRM | aEnd | aMem16}
	for r := range 8 {
		t[0x90+r] = opcode{name: "xchg", fn: opXchgAcc, attr: aOpReg}
		t[0xb0+r] = opcode{name: "mov", fn: opMovEI, attr: aOpReg | aByte, imm: imm8}
		t[0xb8+r] = opcode{name: "mov", fn: opMovEI, attr: aOpReg, imm: immV, spec: specMovEI}
	}
	t[0xa0] = opcode{name: "mov", fn: opMovFromMoffs, attr: aByte, imm: immMoffs}
	t[0xa1] = opcode{name: "mov", fn: opMovFromMoffs, imm: immMoffs}
	t[0xa2] = opcode{name: "mov", fn: opMovToMoffs, attr: aByte | aStore, imm: immMoffs}
	t[0xa3] = opcode{name: "mov", fn: opMovToMoffs, attr: aStore, imm: immMoffs}
	t[0xa8] = opcode{name: "test", fn: opTestI, attr: aByte, imm: imm8, op: aluTest, form: formEI, spec: specTestI}
	t[0xa9] = opcode{name: "test", fn: opTestI, imm: immZ, op: aluTest, form: formEI, spec: specTestI}
	t[0xc4] = opcode{name: "les", fn: opLoadFar, attr: aModRM | aMem | aNo64 | aEnd, op: segES}
	t[0xc5] = opcode{name: "lds", fn: opLoadFar, attr: aModRM | aMem | aNo64 | aEnd, op: segDS}
	t[0xc6] = opcode{name: "mov", attr: aModRM | aByte | aStore, group: &group11b}
	t[0xc7] = opcode{name: "mov", attr: aModRM | aStore, group: &group11v}
	t[0xd7] = opcode{name: "xlat", fn: opXlat, attr: aString}
}

func addBranches(t *[256]opcode) {
	for cc := range uint8(16) {
		t[0x70+cc] = opcode{name: ccName("j", cc), fn: opJcc, attr: aF64 | aEnd, imm: immRel8, op: cc, spec: specJcc}
	}
	t[0x9a] = opcode{name: "callf", fn: opCallFar, attr: aNo64 | aEnd, imm: immFar}
	t[0xc2] = opcode{name: "ret", fn: opRet, attr: aF64 | aEnd, imm: immU16}
	t[0xc3] = opcode{name: "ret", fn: opRet, attr: aF64 | aEnd, spec: specRet}
	t[0xca] = opcode{name: "retf", fn: opRetFar, attr: aEnd, imm: immU16}
	t[0xcb] = opcode{name: "retf", fn: opRetFar, attr: aEnd}
	t[0xcc] = opcode{name: "int3", fn: opInt3, attr: aEnd}
	t[0xcd] = opcode{name: "int", fn: opInt, attr: aEnd, imm: immU8}
	t[0xce] = opcode{name: "into", fn: opInto, attr: aNo64}
	t[0xcf] = opcode{name: "iret", fn: opIret, attr: aEnd}
	for i, name := range []string{"loopne", "loope", "loop", "jrcxz"} {
		t[0xe0+i] = opcode{name: name, fn: opLoop, attr: aF64 | aEnd, imm: immRel8, op: uint8(i)}
	}
	t[0xe8] = opcode{name: "call", fn: opCall, attr: aF64 | aEnd, imm: immRelZ, spec: specCall}
	t[0xe9] = opcode{name: "jmp", fn: opJmp, attr: aF64 | aEnd, imm: immRelZ, spec: specJmp}
	t[0xea] = opcode{name: "jmpf", fn: opJmpFar, attr: aNo64 | aEnd, imm: immFar}
	t[0xeb] = opcode{name: "jmp", fn: opJmp, attr: aF64 | aEnd, imm: immRel8, spec: specJmp}
}

func ccName(prefix string, cc uint8) string {
	return prefix + [16]string{"o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"}[cc]
}

func addMisc(t *[256]opcode) {
	t[0x27] = opcode{name: "daa", fn: opDaa, attr: aNo64, op: 0}
	t[0x2f] = opcode{name: "das", fn: opDaa, attr: aNo64, op: 1}
	t[0x37] = opcode{name: "aaa", fn: opAaa, attr: aNo64, op: 0}
	t[0x3f] = opcode{name: "aas", fn: opAaa, attr: aNo64, op: 1}
	for r := range 8 { // REX prefixes in 64-bit mode
		t[0x40+r] = opcode{name: "inc", fn: opIncDec, attr: aOpReg, op: 0}
		t[0x48+r] = opcode{name: "dec", fn: opIncDec, attr: aOpReg, op: 1}
	}
	t[0x62] = opcode{name: "bound", fn: opBound, attr: aModRM | aMem | aNo64}
	t[0x69] = opcode{name: "imul", fn: opIMul3, attr: aModRM, imm: immZ}
	t[0x6b] = opcode{name: "imul", fn: opIMul3, attr: aModRM, imm: imm8}
	t[0x98] = opcode{name: "cbw", fn: opCbw}
	t[0x99] = opcode{name: "cwd", fn: opCwd}
	t[0x9b] = opcode{name: "fwait", fn: opFwait}
	t[0x9e] = opcode{name: "sahf", fn: opSahf}
	t[0x9f] = opcode{name: "lahf", fn: opLahf}
	t[0xd4] = opcode{name: "aam", fn: opAam, attr: aNo64, imm: imm8}
	t[0xd5] = opcode{name: "aad", fn: opAad, attr: aNo64, imm: imm8}
	t[0xf4] = opcode{name: "hlt", fn: opHlt, attr: aPriv | aEnd}
	t[0xf5] = opcode{name: "cmc", fn: opCmc}
	t[0xf8] = opcode{name: "clc", fn: opClc}
	t[0xf9] = opcode{name: "stc", fn: opStc}
	t[0xfa] = opcode{name: "cli", fn: opCli}
	t[0xfb] = opcode{name: "sti", fn: opSTI, attr: aHold}
	t[0xfc] = opcode{name: "cld", fn: opCld}
	t[0xfd] = opcode{name: "std", fn: opStd}
	t[0xe4] = opcode{name: "in", fn: opIn, attr: aAlone | aByte, imm: immU8}
	t[0xe5] = opcode{name: "in", fn: opIn, attr: aAlone, imm: immU8}
	t[0xe6] = opcode{name: "out", fn: opOut, attr: aAlone | aByte, imm: immU8}
	t[0xe7] = opcode{name: "out", fn: opOut, attr: aAlone, imm: immU8}
	t[0xec] = opcode{name: "in", fn: opIn, attr: aAlone | aByte, op: 1}
	t[0xed] = opcode{name: "in", fn: opIn, attr: aAlone, op: 1}
	t[0xee] = opcode{name: "out", fn: opOut, attr: aAlone | aByte, op: 1}
	t[0xef] = opcode{name: "out", fn: opOut, attr: aAlone, op: 1}
	t[0xf1] = opcode{name: "int1", fn: opInt1, attr: aEnd}
}

func addStrings(t *[256]opcode) {
	both := func(at int, name string, h handler) {
		t[at] = opcode{name: name, fn: h, attr: aByte | aString}
		t[at+1] = opcode{name: name, fn: h, attr: aString}
	}
	both(0x6c, "ins", opIns)
	both(0x6e, "outs", opOuts)
	for at := 0x6c; at <= 0x6f; at++ {
		t[at].attr |= aAlone
	}
	both(0xa4, "movs", opMovs)
	both(0xa6, "cmps", opCmps)
	both(0xaa, "stos", opStos)
	both(0xac, "lods", opLods)
	both(0xae, "scas", opScas)
}

func addGroups(t *[256]opcode) {
	const rmw = aModRM | aStore
	t[0x80] = opcode{attr: rmw, group: aluGroup(aByte, imm8)}
	t[0x81] = opcode{attr: rmw, group: aluGroup(0, immZ)}
	t[0x82] = opcode{attr: rmw, group: aluGroup(aByte|aNo64, imm8)}
	t[0x83] = opcode{attr: rmw, group: aluGroup(0, imm8)}
	t[0xc0] = opcode{attr: rmw, group: shiftGroup(opShiftImm, aByte, immU8)}
	t[0xc1] = opcode{attr: rmw, group: shiftGroup(opShiftImm, 0, immU8)}
	t[0xd0] = opcode{attr: rmw, group: shiftGroup(opShift1, aByte, immNone)}
	t[0xd1] = opcode{attr: rmw, group: shiftGroup(opShift1, 0, immNone)}
	t[0xd2] = opcode{attr: rmw, group: shiftGroup(opShiftCL, aByte, immNone)}
	t[0xd3] = opcode{attr: rmw, group: shiftGroup(opShiftCL, 0, immNone)}
	t[0xf6] = opcode{attr: rmw, group: unaryGroup(aByte, imm8)}
	t[0xf7] = opcode{attr: rmw, group: unaryGroup(0, immZ)}
	t[0xfe] = opcode{attr: rmw, group: &[8]opcode{
		{name: "inc", fn: opIncDec, attr: aByte | aLock | aStore, op: 0},
		{name: "dec", fn: opIncDec, attr: aByte | aLock | aStore, op: 1},
	}}
	t[0xff] = opcode{attr: rmw, group: &group5}
}

// aluGroup is group 1.
func aluGroup(a attr, k immKind) *[8]opcode {
	var g [8]opcode
	for op := range g {
		store := aLock | aStore
		if op == aluCmp {
			store = 0
		}
		g[op] = opcode{name: aluNames[op], fn: opAluEI, attr: a | store, imm: k, op: uint8(op), form: formEI, spec: specAluEI}
	}
	return &g
}

// shiftGroup is group 2.
func shiftGroup(h handler, a attr, k immKind) *[8]opcode {
	var g [8]opcode
	for op, name := range []string{"rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar"} {
		g[op] = opcode{name: name, fn: h, attr: a | aStore, imm: k, op: uint8(op), spec: specShift}
	}
	return &g
}

// unaryGroup is group 3.
func unaryGroup(a attr, k immKind) *[8]opcode {
	test := opcode{name: "test", fn: opTestI, attr: a, imm: k, op: aluTest, form: formEI, spec: specTestI}
	return &[8]opcode{test, test,
		{name: "not", fn: opNot, attr: a | aLock | aStore},
		{name: "neg", fn: opNeg, attr: a | aLock | aStore},
		{name: "mul", fn: opMul, attr: a},
		{name: "imul", fn: opIMul1, attr: a},
		{name: "div", fn: opDiv, attr: a},
		{name: "idiv", fn: opIDiv, attr: a},
	}
}

var (
	group1A  = [8]opcode{{name: "pop", fn: opPopM, attr: aD64 | aStore}}
	group11b = [8]opcode{{name: "mov", fn: opMovEI, attr: aByte | aStore, imm: imm8, spec: specMovEI}}
	group11v = [8]opcode{{name: "mov", fn: opMovEI, attr: aStore, imm: immZ, spec: specMovEI}}
	group5   = [8]opcode{
		{name: "inc", fn: opIncDec, attr: aLock | aStore, op: 0, spec: specIncDec},
		{name: "dec", fn: opIncDec, attr: aLock | aStore, op: 1, spec: specIncDec},
		{name: "call", fn: opCallM, attr: aF64 | aEnd},
		{name: "callf", fn: opCallFarM, attr: aMem | aEnd},
		{name: "jmp", fn: opJmpM, attr: aF64 | aEnd},
		{name: "jmpf", fn: opJmpFarM, attr: aMem | aEnd},
		{name: "push", fn: opPushM, attr: aD64},
		{},
	}
)

// movsxd takes ARPL's place in 64-bit mode; nop is XCHG of rAX with itself.
var (
	// A MOVSXD of 16 bits reads no more than it moves, on Intel's processors.
	movsxd16 = opcode{name: "movsxd", fn: opMovx, attr: aModRM | aMem16, op: 2 | 16}
	movsxd   = opcode{name: "movsxd", fn: opMovx, attr: aModRM | aMem32, op: 4 | 16, spec: specMovx}
	nop      = opcode{name: "nop", fn: opNop}
	pause    = opcode{name: "pause", fn: opPause, attr: aEnd}
)
