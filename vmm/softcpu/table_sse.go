package softcpu

// Opcodes whose meaning depends on the mandatory prefix: [0] none, [1] 66,
// [2] F3, [3] F2 (SDM vol. 2, tables ).

const (
	pNone = iota
	p66
	pF3
	pF2
)

type prefixTable = [4][256]opcode

var (
	mapSSE = makeSSE()
	map38  = make38()
	map3A  = make3A()
)

const (
	xmm   = aModRM | aSSE
	mmx   = aModRM | aMMX | aMem64
	xmm16 = xmm | aMem128
)

func makeSSE() (t prefixTable) {
	addSSEMoves(&t)
	addSSEFloat(&t)
	addSSEConvert(&t)
	addSSEInteger(&t)
	addSSEShuffle(&t)
	addMMXMoves(&t)
	addState(&t)
	return t
}

func addSSEMoves(t *prefixTable) {
	set := func(p int, code uint8, name string, h handler, a attr) {
		t[p][code] = opcode{name: name, fn: h, attr: xmm | a}
	}
	for p, s := range []string{"ps", "pd"} {
		set(p, 0x10, "movu"+s, opMovX, aMem128)
		set(p, 0x11, "movu"+s, opMovXStore, aMem128|aStore)
		set(p, 0x12, "movl"+s, opMovlps, aMem64)
		set(p, 0x13, "movl"+s, opMovlpsStore, aMem64|aStore|aMem)
		set(p, 0x16, "movh"+s, opMovhps, aMem64)
		set(p, 0x17, "movh"+s, opMovhpsStore, aMem64|aStore|aMem)
		set(p, 0x28, "mova"+s, opMovA, aMem128)
		set(p, 0x29, "mova"+s, opMovAStore, aMem128|aStore)
		set(p, 0x2b, "movnt"+s, opMovAStore, aMem128|aStore|aMem)
		t[p][0x50] = opcode{name: "movmsk" + s, fn: opMovmsk, attr: xmm | aReg, op: uint8(p)}
	}
	t[p66][0x12].attr |= aMem
	t[p66][0x16].attr |= aMem
	set(pF3, 0x10, "movss", opMovss, aMem32)
	set(pF3, 0x11, "movss", opMovssStore, aMem32|aStore)
	set(pF2, 0x10, "movsd", opMovsd, aMem64)
	set(pF2, 0x11, "movsd", opMovsdStore, aMem64|aStore)
	t[pF2][0x12] = opcode{name: "movddup", fn: opMovdup, attr: xmm | aMem64, op: 0}
	t[pF3][0x12] = opcode{name: "movsldup", fn: opMovdup, attr: xmm16, op: 1}
	t[pF3][0x16] = opcode{name: "movshdup", fn: opMovdup, attr: xmm16, op: 2}
	set(p66, 0x6e, "movd", opMovd, aGPR32)
	set(p66, 0x7e, "movd", opMovdStore, aGPR32|aStore)
	set(pF3, 0x7e, "movq", opMovq, aMem64)
	set(p66, 0xd6, "movq", opMovqStore, aMem64|aStore)
	set(p66, 0x6f, "movdqa", opMovA, aMem128)
	set(p66, 0x7f, "movdqa", opMovAStore, aMem128|aStore)
	set(pF3, 0x6f, "movdqu", opMovX, aMem128)
	set(pF3, 0x7f, "movdqu", opMovXStore, aMem128|aStore)
	set(pF2, 0xf0, "lddqu", opMovX, aMem128|aMem)
	set(p66, 0xe7, "movntdq", opMovAStore, aMem128|aStore|aMem)
	set(p66, 0xd7, "pmovmskb", opPmovmskb, aReg)
	t[p66][0xf7] = opcode{name: "maskmovdqu", fn: opMaskmov, attr: xmm | aReg | aString}
	t[pNone][0xc3] = opcode{name: "movnti", fn: opMovnti, attr: aModRM | aMem | aStore | aGPR32}
}

func addSSEFloat(t *prefixTable) {
	arith := map[uint8]struct {
		name string
		op   uint8
	}{
		0x51: {"sqrt", fpSqrt}, 0x58: {"add", fpAdd}, 0x59: {"mul", fpMul}, 0x5c: {"sub", fpSub},
		0x5d: {"min", fpMin}, 0x5e: {"div", fpDiv}, 0x5f: {"max", fpMax},
	}
	for code, o := range arith {
		t[pNone][code] = opcode{name: o.name + "ps", fn: opFPps, attr: xmm16, op: o.op}
		t[p66][code] = opcode{name: o.name + "pd", fn: opFPpd, attr: xmm16, op: o.op}
		t[pF3][code] = opcode{name: o.name + "ss", fn: opFPss, attr: xmm | aMem32, op: o.op}
		t[pF2][code] = opcode{name: o.name + "sd", fn: opFPsd, attr: xmm | aMem64, op: o.op}
	}
	logic := map[uint8]struct {
		name string
		op   uint8
	}{0x54: {"and", hPand}, 0x55: {"andn", hPandn}, 0x56: {"or", hPor}}
	for code, o := range logic {
		t[pNone][code] = opcode{name: o.name + "ps", fn: opHalves, attr: xmm16, op: o.op}
		t[p66][code] = opcode{name: o.name + "pd", fn: opHalves, attr: xmm16, op: o.op}
	}
	t[pNone][0x57] = opcode{name: "xorps", fn: opPxor, attr: xmm16}
	t[p66][0x57] = opcode{name: "xorpd", fn: opPxor, attr: xmm16}
	for k := range uint8(2) {
		s := [2]string{"ps", "pd"}[k]
		t[k][0x14] = opcode{name: "unpckl" + s, fn: opVec, attr: xmm16, op: vUnpackLD + k}
		t[k][0x15] = opcode{name: "unpckh" + s, fn: opVec, attr: xmm16, op: vUnpackHD + k}
		t[k][0xc6] = opcode{name: "shuf" + s, fn: opVec, attr: xmm16, imm: immU8, op: vShufps + k}
		t[k][0x2e] = opcode{name: "ucomis" + s[1:], fn: opComis, attr: xmm | aMem32<<k, op: 2 + k}
		t[k][0x2f] = opcode{name: "comis" + s[1:], fn: opComis, attr: xmm | aMem32<<k, op: 6 + k}
		t[p66+2*k][0x7c] = opcode{name: "hadd", fn: opHadd, attr: xmm16, op: fpAdd | (1-k)<<7}
		t[p66+2*k][0x7d] = opcode{name: "hsub", fn: opHadd, attr: xmm16, op: fpSub | (1-k)<<7}
		t[p66+2*k][0xd0] = opcode{name: "addsub", fn: opAddsub, attr: xmm16, op: 1 - k}
	}
	for p, k := range []uint8{0, 1, 2, 3} {
		t[p][0xc2] = opcode{name: "cmp" + [4]string{"ps", "pd", "ss", "sd"}[p], fn: opCmpfp, attr: xmm | elementSize(k), imm: immU8, op: k}
	}
	t[pNone][0x52] = opcode{name: "rsqrtps", fn: opApprox, attr: xmm16, op: 4}
	t[pF3][0x52] = opcode{name: "rsqrtss", fn: opApprox, attr: xmm | aMem32, op: 6}
	t[pNone][0x53] = opcode{name: "rcpps", fn: opApprox, attr: xmm16, op: 0}
	t[pF3][0x53] = opcode{name: "rcpss", fn: opApprox, attr: xmm | aMem32, op: 2}
}

// elementSize is the size of the memory operand of PS, PD, SS, SD.
func elementSize(k uint8) attr { return [4]attr{aMem128, aMem128, aMem32, aMem64}[k] }

func addSSEConvert(t *prefixTable) {
	for k := range uint8(2) {
		p := pF3 + k
		s := [2]string{"ss", "sd"}[k]
		t[p][0x2a] = opcode{name: "cvtsi2" + s, fn: opCvtsi2, attr: xmm | aGPR32, op: 2 + k}
		t[p][0x2c] = opcode{name: "cvtt" + s + "2si", fn: opCvt2si, attr: xmm | aGPR32 | elementSize(2+k), op: 6 + k}
		t[p][0x2d] = opcode{name: "cvt" + s + "2si", fn: opCvt2si, attr: xmm | aGPR32 | elementSize(2+k), op: 2 + k}
		t[k][0x2a] = opcode{name: "cvtpi2p" + s[1:], fn: opMmxCvt, attr: mmx, op: k}
		t[k][0x2c] = opcode{name: "cvttp" + s[1:] + "2pi", fn: opMmxCvt, attr: aModRM | aMMX | elementSize(3-2*k), op: 6 + k}
		t[k][0x2d] = opcode{name: "cvtp" + s[1:] + "2pi", fn: opMmxCvt, attr: aModRM | aMMX | elementSize(3-2*k), op: 2 + k}
	}
	t[pF3][0x5a] = opcode{name: "cvtss2sd", fn: opCvtss2sd, attr: xmm | aMem32}
	t[pF2][0x5a] = opcode{name: "cvtsd2ss", fn: opCvtsd2ss, attr: xmm | aMem64}
	t[pNone][0x5a] = opcode{name: "cvtps2pd", fn: opCvtps2pd, attr: xmm | aMem64}
	t[p66][0x5a] = opcode{name: "cvtpd2ps", fn: opCvtpd2ps, attr: xmm16}
	t[pNone][0x5b] = opcode{name: "cvtdq2ps", fn: opCvtdq2ps, attr: xmm16}
	t[p66][0x5b] = opcode{name: "cvtps2dq", fn: opCvtps2dq, attr: xmm16, op: 0}
	t[pF3][0x5b] = opcode{name: "cvttps2dq", fn: opCvtps2dq, attr: xmm16, op: 4}
	t[pF3][0xe6] = opcode{name: "cvtdq2pd", fn: opCvtdq2pd, attr: xmm | aMem64}
	t[pF2][0xe6] = opcode{name: "cvtpd2dq", fn: opCvtpd2dq, attr: xmm16, op: 0}
	t[p66][0xe6] = opcode{name: "cvttpd2dq", fn: opCvtpd2dq, attr: xmm16, op: 4}
}

// packed is a packed integer instruction that exists for MMX and XMM.
type packed struct {
	code uint8
	name string
	op   uint8
}

func both(t *prefixTable, list []packed, m, x handler, k immKind) {
	for _, o := range list {
		t[pNone][o.code] = opcode{name: o.name, fn: m, attr: mmx, imm: k, op: o.op}
		t[p66][o.code] = opcode{name: o.name, fn: x, attr: xmm16, imm: k, op: o.op}
	}
}

func addSSEInteger(t *prefixTable) {
	both(t, []packed{
		{0xfc, "paddb", hPaddb}, {0xfd, "paddw", hPaddw}, {0xfe, "paddd", hPaddd}, {0xd4, "paddq", hPaddq},
		{0xf8, "psubb", hPsubb}, {0xf9, "psubw", hPsubw}, {0xfa, "psubd", hPsubd}, {0xfb, "psubq", hPsubq},
		{0xec, "paddsb", hPaddsb}, {0xed, "paddsw", hPaddsw}, {0xdc, "paddusb", hPaddusb}, {0xdd, "paddusw", hPaddusw},
		{0xe8, "psubsb", hPsubsb}, {0xe9, "psubsw", hPsubsw}, {0xd8, "psubusb", hPsubusb}, {0xd9, "psubusw", hPsubusw},
		{0xdb, "pand", hPand}, {0xdf, "pandn", hPandn}, {0xeb, "por", hPor}, {0xef, "pxor", hPxor},
		{0x74, "pcmpeqb", hPcmpeqb}, {0x75, "pcmpeqw", hPcmpeqw}, {0x76, "pcmpeqd", hPcmpeqd},
		{0x64, "pcmpgtb", hPcmpgtb}, {0x65, "pcmpgtw", hPcmpgtw}, {0x66, "pcmpgtd", hPcmpgtd},
		{0xda, "pminub", hPminub}, {0xde, "pmaxub", hPmaxub}, {0xea, "pminsw", hPminsw}, {0xee, "pmaxsw", hPmaxsw},
		{0xe0, "pavgb", hPavgb}, {0xe3, "pavgw", hPavgw}, {0xd5, "pmullw", hPmullw}, {0xe5, "pmulhw", hPmulhw},
		{0xe4, "pmulhuw", hPmulhuw}, {0xf4, "pmuludq", hPmuludq}, {0xf5, "pmaddwd", hPmaddwd}, {0xf6, "psadbw", hPsadbw},
	}, opMmx, opHalves, immNone)
	t[p66][0xef].fn = opPxor
	both(t, []packed{
		{0xd1, "psrlw", pShr | 1}, {0xd2, "psrld", pShr | 2}, {0xd3, "psrlq", pShr | 3},
		{0xe1, "psraw", pSar | 1}, {0xe2, "psrad", pSar | 2},
		{0xf1, "psllw", pShl | 1}, {0xf2, "pslld", pShl | 2}, {0xf3, "psllq", pShl | 3},
	}, opMmxShift, opPShift, immNone)
	for w := range uint8(3) {
		t[pNone][0x71+w] = opcode{attr: aModRM, group: shiftImmGroup(w+1, opMmxShiftI, aMMX|aReg)}
		t[p66][0x71+w] = opcode{attr: aModRM, group: shiftImmGroup(w+1, opPShiftI, aSSE|aReg)}
	}
	t[p66][0x73].group[3] = opcode{name: "psrldq", fn: opPShiftBytes, attr: aSSE | aReg, imm: immU8, op: 0}
	t[p66][0x73].group[7] = opcode{name: "pslldq", fn: opPShiftBytes, attr: aSSE | aReg, imm: immU8, op: 1}
}

// shiftImmGroup is groups 12 to 14.
func shiftImmGroup(w uint8, h handler, a attr) *[8]opcode {
	g := &[8]opcode{
		2: {name: "psrl", fn: h, attr: a, imm: immU8, op: pShr | w},
		6: {name: "psll", fn: h, attr: a, imm: immU8, op: pShl | w},
	}
	if w != 3 {
		g[4] = opcode{name: "psra", fn: h, attr: a, imm: immU8, op: pSar | w}
	}
	return g
}

func addSSEShuffle(t *prefixTable) {
	both(t, []packed{
		{0x60, "punpcklbw", vUnpackLB}, {0x61, "punpcklwd", vUnpackLW}, {0x62, "punpckldq", vUnpackLD},
		{0x68, "punpckhbw", vUnpackHB}, {0x69, "punpckhwd", vUnpackHW}, {0x6a, "punpckhdq", vUnpackHD},
		{0x63, "packsswb", vPackSSWB}, {0x67, "packuswb", vPackUSWB}, {0x6b, "packssdw", vPackSSDW},
	}, opMmxVec, opVec, immNone)
	for code := 0x60; code <= 0x62; code++ {
		t[pNone][code].attr = aModRM | aMMX | aMem32
	}
	t[p66][0x6c] = opcode{name: "punpcklqdq", fn: opVec, attr: xmm16, op: vUnpackLQ}
	t[p66][0x6d] = opcode{name: "punpckhqdq", fn: opVec, attr: xmm16, op: vUnpackHQ}
	t[pNone][0x70] = opcode{name: "pshufw", fn: opMmxVec, attr: mmx, imm: immU8, op: vPshufd}
	t[p66][0x70] = opcode{name: "pshufd", fn: opVec, attr: xmm16, imm: immU8, op: vPshufd}
	t[pF3][0x70] = opcode{name: "pshufhw", fn: opVec, attr: xmm16, imm: immU8, op: vPshufhw}
	t[pF2][0x70] = opcode{name: "pshuflw", fn: opVec, attr: xmm16, imm: immU8, op: vPshuflw}
	t[p66][0xc4] = opcode{name: "pinsrw", fn: opPinsr, attr: xmm | aMem16, imm: immU8, op: 2}
	t[p66][0xc5] = opcode{name: "pextrw", fn: opPextrwReg, attr: xmm | aReg, imm: immU8}
}

func addMMXMoves(t *prefixTable) {
	set := func(p int, code uint8, name string, op uint8, a attr, k immKind) {
		t[p][code] = opcode{name: name, fn: opMmxMov, attr: aModRM | aMMX | a, imm: k, op: op}
	}
	set(pNone, 0x6e, "movd", mmxFromRM, aGPR32, immNone)
	set(pNone, 0x7e, "movd", mmxToRM, aGPR32|aStore, immNone)
	set(pNone, 0x6f, "movq", mmxFromMM, aMem64, immNone)
	set(pNone, 0x7f, "movq", mmxToMM, aMem64|aStore, immNone)
	set(pNone, 0xe7, "movntq", mmxToMM, aMem64|aStore|aMem, immNone)
	set(pF2, 0xd6, "movdq2q", mmxFromXMM, aReg, immNone)
	set(pF3, 0xd6, "movq2dq", mmxToXMM, aReg, immNone)
	set(pNone, 0xd7, "pmovmskb", mmxPmovmskb, aReg, immNone)
	set(pNone, 0xc4, "pinsrw", mmxPinsrw, aMem16, immU8)
	set(pNone, 0xc5, "pextrw", mmxPextrw, aReg, immU8)
	set(pNone, 0xf7, "maskmovq", mmxMaskmov, aReg|aString, immNone)
}

// addState is group 15.
func addState(t *prefixTable) {
	fence := opcode{name: "fence", fn: opNop, attr: aReg}
	one := func(mem, reg opcode) opcode { return opcode{group: &[8]opcode{mem, reg}} }
	t[pNone][0xae] = opcode{attr: aModRM, group: &[8]opcode{
		{name: "fxsave", fn: opFxsave, attr: aMem | aX87 | aStore | aMem128},
		{name: "fxrstor", fn: opFxrstor, attr: aMem | aX87 | aMem128},
		{name: "ldmxcsr", fn: opLdmxcsr, attr: aMem | aSSE | aMem32},
		{name: "stmxcsr", fn: opStmxcsr, attr: aMem | aSSE | aStore | aMem32},
		{name: "xsave", fn: opXsave, attr: aMem | aStore | aMem128},
		one(opcode{name: "xrstor", fn: opXrstor, attr: aMem128}, fence),
		one(opcode{}, fence),
		one(opcode{name: "clflush", fn: opTouch, attr: aMem8}, fence),
	}}
	t[p66][0xae] = opcode{attr: aModRM, group: &[8]opcode{
		7: {name: "clflushopt", fn: opTouch, attr: aMem | aMem8},
	}}
	var g [8]opcode
	for i, name := range []string{"rdfsbase", "rdgsbase", "wrfsbase", "wrgsbase"} {
		g[i] = opcode{name: name, fn: opFSGSBase, attr: aReg | aGPR32, op: uint8(i)}
	}
	t[pF3][0xae] = opcode{attr: aModRM, group: &g}
}

func make38() (t prefixTable) {
	both(&t, []packed{
		{0x0b, "pmulhrsw", hPmulhrsw}, {0x04, "pmaddubsw", hPmaddubsw},
		{0x08, "psignb", hPsignb}, {0x09, "psignw", hPsignw}, {0x0a, "psignd", hPsignd},
		{0x1c, "pabsb", hPabsb}, {0x1d, "pabsw", hPabsw}, {0x1e, "pabsd", hPabsd},
	}, opMmx, opHalves, immNone)
	both(&t, []packed{
		{0x00, "pshufb", vPshufb}, {0x01, "phaddw", vPhaddw}, {0x02, "phaddd", vPhaddd}, {0x03, "phaddsw", vPhaddsw},
		{0x05, "phsubw", vPhsubw}, {0x06, "phsubd", vPhsubd}, {0x07, "phsubsw", vPhsubsw},
	}, opMmxVec, opVec, immNone)
	x := &t[p66]
	for _, o := range []packed{
		{0x28, "pmuldq", hPmuldq}, {0x29, "pcmpeqq", hPcmpeqq}, {0x37, "pcmpgtq", hPcmpgtq}, {0x40, "pmulld", hPmulld},
		{0x38, "pminsb", hPminsb}, {0x39, "pminsd", hPminsd}, {0x3a, "pminuw", hPminuw}, {0x3b, "pminud", hPminud},
		{0x3c, "pmaxsb", hPmaxsb}, {0x3d, "pmaxsd", hPmaxsd}, {0x3e, "pmaxuw", hPmaxuw}, {0x3f, "pmaxud", hPmaxud},
	} {
		x[o.code] = opcode{name: o.name, fn: opHalves, attr: xmm16, op: o.op}
	}
	x[0x2b] = opcode{name: "packusdw", fn: opVec, attr: xmm16, op: vPackUSDW}
	x[0x10] = opcode{name: "pblendvb", fn: opBlendv, attr: xmm16, op: 8}
	x[0x14] = opcode{name: "blendvps", fn: opBlendv, attr: xmm16, op: 32}
	x[0x15] = opcode{name: "blendvpd", fn: opBlendv, attr: xmm16, op: 64}
	x[0x17] = opcode{name: "ptest", fn: opPtest, attr: xmm16}
	x[0x2a] = opcode{name: "movntdqa", fn: opMovA, attr: xmm16 | aMem}
	x[0x41] = opcode{name: "phminposuw", fn: opPhminpos, attr: xmm16}
	for i, w := range []uint8{0 | 1<<3, 0 | 2<<3, 0 | 3<<3, 1 | 2<<3, 1 | 3<<3, 2 | 3<<3} {
		size := [6]attr{aMem64, aMem32, aMem16, aMem64, aMem32, aMem64}[i]
		x[0x20+i] = opcode{name: "pmovsx", fn: opPmovx, attr: xmm | size, op: w | 64}
		x[0x30+i] = opcode{name: "pmovzx", fn: opPmovx, attr: xmm | size, op: w}
	}
	x[0x82] = opcode{name: "invpcid", fn: opInvpcid, attr: aModRM | aMem | aPriv | aEnd | aMem128}
	x[0xf6] = opcode{name: "adcx", fn: opAdx, attr: aModRM | aGPR32, op: 0}
	t[pF3][0xf6] = opcode{name: "adox", fn: opAdx, attr: aModRM | aGPR32, op: 1}
	for _, p := range []int{pNone, p66} {
		t[p][0xf0] = opcode{name: "movbe", fn: opMovbeGM, attr: aModRM | aMem}
		t[p][0xf1] = opcode{name: "movbe", fn: opMovbeMG, attr: aModRM | aMem | aStore}
	}
	t[pF2][0xf0] = opcode{name: "crc32", fn: opCRC32, attr: aModRM | aMem8, op: 1}
	t[pF2][0xf1] = opcode{name: "crc32", fn: opCRC32, attr: aModRM}
	return t
}

func make3A() (t prefixTable) {
	x := &t[p66]
	both(&t, []packed{{0x0f, "palignr", vPalignr}}, opMmxVec, opVec, immU8)
	for _, o := range []packed{{0x0c, "blendps", vBlendps}, {0x0d, "blendpd", vBlendpd}, {0x0e, "pblendw", vPblendw}} {
		x[o.code] = opcode{name: o.name, fn: opVec, attr: xmm16, imm: immU8, op: o.op}
	}
	for k := range uint8(4) {
		x[0x08+k] = opcode{name: "round" + [4]string{"ps", "pd", "ss", "sd"}[k], fn: opRound, attr: xmm | elementSize(k), imm: immU8, op: k}
	}
	x[0x14] = opcode{name: "pextrb", fn: opPextr, attr: xmm | aMem8 | aStore, imm: immU8, op: 1}
	x[0x15] = opcode{name: "pextrw", fn: opPextr, attr: xmm | aMem16 | aStore, imm: immU8, op: 2}
	x[0x16] = opcode{name: "pextrd", fn: opPextr, attr: xmm | aGPR32 | aStore, imm: immU8}
	x[0x17] = opcode{name: "extractps", fn: opPextr, attr: xmm | aMem32 | aStore, imm: immU8, op: 4}
	x[0x20] = opcode{name: "pinsrb", fn: opPinsr, attr: xmm | aMem8, imm: immU8, op: 1}
	x[0x21] = opcode{name: "insertps", fn: opInsertps, attr: xmm | aMem32, imm: immU8}
	x[0x22] = opcode{name: "pinsrd", fn: opPinsr, attr: xmm | aGPR32, imm: immU8}
	x[0x40] = opcode{name: "dpps", fn: opDot, attr: xmm16, imm: immU8, op: 0}
	x[0x41] = opcode{name: "dppd", fn: opDot, attr: xmm16, imm: immU8, op: 1}
	x[0x42] = opcode{name: "mpsadbw", fn: opMpsadbw, attr: xmm16, imm: immU8}
	for i, name := range []string{"pcmpestrm", "pcmpestri", "pcmpistrm", "pcmpistri"} {
		x[0x60+i] = opcode{name: name, fn: opPcmpstr, attr: xmm | aMem128, imm: immU8, op: uint8(i)}
	}
	return t
}
