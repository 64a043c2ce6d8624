package softcpu

// map0F is the part of table A-3 whose opcodes mean the same with every
// prefix, or nearly so; mapSSE (table_sse.go) has the rest. The first element
// alone is in use.
var map0F = makeMap0F()

func makeMap0F() (m [1][256]opcode) {
	t := &m[0]
	addSystem(t)
	addHints(t)
	addBits(t)
	for cc := range uint8(16) {
		t[0x40+cc] = opcode{name: ccName("cmov", cc), fn: opCmov, attr: aModRM, op: cc, spec: specCmov}
		t[0x80+cc] = opcode{name: ccName("j", cc), fn: opJcc, attr: aF64 | aEnd, imm: immRelZ, op: cc, spec: specJcc}
		t[0x90+cc] = opcode{name: ccName("set", cc), fn: opSetcc, attr: aModRM | aByte | aStore, op: cc}
	}
	for i, s := range []uint8{segFS, segGS} {
		t[0xa0+8*i] = opcode{name: "push", fn: opPushSeg, attr: aD64, op: s}
		t[0xa1+8*i] = opcode{name: "pop", fn: opPopSeg, attr: aD64 | aEnd, op: s}
	}
	t[0xa2] = opcode{name: "cpuid", fn: opCpuid}
	t[0xaf] = opcode{name: "imul", fn: opIMul2, attr: aModRM}
	t[0xb0] = opcode{name: "cmpxchg", fn: opCmpxchg, attr: aModRM | aByte | aLock | aStore}
	t[0xb1] = opcode{name: "cmpxchg", fn: opCmpxchg, attr: aModRM | aLock | aStore}
	t[0xc0] = opcode{name: "xadd", fn: opXadd, attr: aModRM | aByte | aLock | aStore}
	t[0xc1] = opcode{name: "xadd", fn: opXadd, attr: aModRM | aLock | aStore}
	for i, s := range []uint8{segSS, 0, segFS, segGS} {
		if i != 1 {
			t[0xb2+i] = opcode{name: "lseg", fn: opLoadFar, attr: aModRM | aMem | aEnd, op: s}
		}
	}
	t[0xb6] = opcode{name: "movzx", fn: opMovx, attr: aModRM | aMem8, op: 1, spec: specMovx}
	t[0xb7] = opcode{name: "movzx", fn: opMovx, attr: aModRM | aMem16, op: 2, spec: specMovx}
	t[0xbe] = opcode{name: "movsx", fn: opMovx, attr: aModRM | aMem8, op: 1 | 16, spec: specMovx}
	t[0xbf] = opcode{name: "movsx", fn: opMovx, attr: aModRM | aMem16, op: 2 | 16, spec: specMovx}
	for r := range 8 {
		t[0xc8+r] = opcode{name: "bswap", fn: opBswap, attr: aOpReg}
	}
	t[0xc7] = opcode{attr: aModRM, group: &group9}
	return m
}

func addSystem(t *[256]opcode) {
	t[0x00] = opcode{attr: aModRM, group: &group6}
	t[0x01] = opcode{attr: aModRM, group: &group7}
	t[0x02] = opcode{name: "lar", fn: opLar, attr: aModRM | aProt | aMem16, op: 0}
	t[0x03] = opcode{name: "lsl", fn: opLar, attr: aModRM | aProt | aMem16, op: 1}
	t[0x05] = opcode{name: "syscall", fn: opSyscall, attr: aEnd}
	t[0x06] = opcode{name: "clts", fn: opClts, attr: aPriv | aEnd}
	t[0x07] = opcode{name: "sysret", fn: opSysret, attr: aPriv | aEnd}
	t[0x08] = opcode{name: "invd", fn: opNop, attr: aPriv}
	t[0x09] = opcode{name: "wbinvd", fn: opNop, attr: aPriv}
	t[0x0b] = opcode{name: "ud2", fn: opUD, attr: aEnd}
	t[0xb9] = opcode{name: "ud1", fn: opUD, attr: aModRM | aEnd | aNoData}
	t[0xff] = opcode{name: "ud0", fn: opUD, attr: aModRM | aEnd | aNoData}
	t[0x20] = opcode{name: "mov", fn: opMovFromCR, attr: aModRM | aPriv | aNoData}
	t[0x21] = opcode{name: "mov", fn: opMovFromDR, attr: aModRM | aPriv | aNoData}
	t[0x22] = opcode{name: "mov", fn: opMovToCR, attr: aModRM | aPriv | aEnd | aNoData}
	t[0x23] = opcode{name: "mov", fn: opMovToDR, attr: aModRM | aPriv | aEnd | aNoData}
	t[0x30] = opcode{name: "wrmsr", fn: opWrmsr, attr: aPriv | aEnd | aAlone}
	t[0x31] = opcode{name: "rdtsc", fn: opRdtsc, attr: aAlone}
	t[0x32] = opcode{name: "rdmsr", fn: opRdmsr, attr: aPriv | aAlone}
	t[0x33] = opcode{name: "rdpmc", fn: opRdpmc}
	t[0x34] = opcode{name: "sysenter", fn: opSysenter, attr: aEnd}
	t[0x35] = opcode{name: "sysexit", fn: opSysexit, attr: aEnd}
	t[0xaa] = undefined // RSM
	t[0x77] = opcode{name: "emms", fn: opEmms, attr: aMMX}
}

// addHints: prefetches and the NOPs that later instructions are to be on old
// processors (ENDBR, BND).
func addHints(t *[256]opcode) {
	for code := 0x18; code <= 0x1f; code++ {
		t[code] = opcode{name: "nop", fn: opNop, attr: aModRM | aNoData}
	}
	t[0x0d] = opcode{name: "prefetch", fn: opNop, attr: aModRM | aNoData}
	t[0x0e] = undefined
}

func addBits(t *[256]opcode) {
	for i, name := range []string{"bt", "bts", "btr", "btc"} {
		a := aModRM | aNoData
		if i != btTest {
			a |= aLock | aStore
		}
		t[0xa3+8*i] = opcode{name: name, fn: opBt, attr: a, op: uint8(i)}
		group8[4+i] = opcode{name: name, fn: opBtI, attr: a, imm: immU8, op: uint8(i)}
	}
	t[0xba] = opcode{attr: aModRM, group: &group8}
	t[0xa4] = opcode{name: "shld", fn: opShldImm, attr: aModRM | aStore, imm: immU8, op: 0}
	t[0xa5] = opcode{name: "shld", fn: opShldCL, attr: aModRM | aStore, op: 0}
	t[0xac] = opcode{name: "shrd", fn: opShldImm, attr: aModRM | aStore, imm: immU8, op: 1}
	t[0xad] = opcode{name: "shrd", fn: opShldCL, attr: aModRM | aStore, op: 1}
}

// countBits are the opcodes whose meaning changes with F3: BSF and BSR against
// TZCNT and LZCNT; POPCNT alone has no other.
var (
	bsf    = opcode{name: "bsf", fn: opBsf, attr: aModRM, op: 0}
	bsr    = opcode{name: "bsr", fn: opBsf, attr: aModRM, op: 1}
	tzcnt  = opcode{name: "tzcnt", fn: opCountZeros, attr: aModRM, op: 0}
	lzcnt  = opcode{name: "lzcnt", fn: opCountZeros, attr: aModRM, op: 1}
	popcnt = opcode{name: "popcnt", fn: opPopcnt, attr: aModRM}
)

var (
	group6 = [8]opcode{
		{name: "sldt", fn: opStoreSel, attr: aProt | aStore | aMem16, op: 0},
		{name: "str", fn: opStoreSel, attr: aProt | aStore | aMem16, op: 1},
		{name: "lldt", fn: opLoadSel, attr: aProt | aMem16, op: 0},
		{name: "ltr", fn: opLoadSel, attr: aProt | aMem16, op: 1},
		{name: "verr", fn: opVerify, attr: aProt | aMem16, op: 0},
		{name: "verw", fn: opVerify, attr: aProt | aMem16, op: 1},
		{}, {},
	}
	group7 = [8]opcode{
		{group: split(opcode{name: "sgdt", fn: opStoreTable, attr: aStore | aMem16, op: 0}, &[8]opcode{})},
		{group: split(opcode{name: "sidt", fn: opStoreTable, attr: aStore | aMem16, op: 1}, &[8]opcode{
			2: {name: "clac", fn: opAC, op: 0},
			3: {name: "stac", fn: opAC, op: 1},
		})},
		{group: split(opcode{name: "lgdt", fn: opLoadTable, attr: aPriv | aMem16, op: 0}, &[8]opcode{
			0: {name: "xgetbv", fn: opXgetbv},
			1: {name: "xsetbv", fn: opXsetbv, attr: aEnd},
		})},
		{group: split(opcode{name: "lidt", fn: opLoadTable, attr: aPriv | aMem16, op: 1}, &[8]opcode{})},
		{name: "smsw", fn: opSmsw, attr: aStore | aMem16},
		{},
		{name: "lmsw", fn: opLmsw, attr: aEnd | aMem16},
		{group: split(opcode{name: "invlpg", fn: opInvlpg, attr: aEnd | aNoData}, &[8]opcode{
			0: {name: "swapgs", fn: opSwapgs},
			1: {name: "rdtscp", fn: opRdtsc, attr: aAlone, op: 1},
		})},
	}
	group8 [8]opcode
	group9 = [8]opcode{
		1: {name: "cmpxchg8b", fn: opCmpxchgPair, attr: aMem | aLock | aStore | aMem64},
		6: {name: "rdrand", fn: opRdrand, attr: aReg},
		7: {name: "rdseed", fn: opRdseed, attr: aReg},
	}
)

// split is a group row whose memory form is mem and whose register forms are
// chosen by ModRM.rm.
func split(mem opcode, regs *[8]opcode) *[8]opcode {
	return &[8]opcode{mem, {group: regs}}
}
