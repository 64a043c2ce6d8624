package softcpu

// handler executes one instruction. It returns true to go on with the next one
// of the block, false to leave the block: cpu.stop, cpu.next and cpu.rip then
// say why and where to. A handler that stops with stopFault or stopExit has
// changed nothing that its own second execution would not do again.
type handler func(*cpu, *inst) bool

// inst is a decoded instruction. Which fields count depends on the handler.
type inst struct {
	fn    handler
	disp  uint64 // displacement, sign-extended
	imm   uint64 // immediate, sign-extended as the opcode wants; branches: target relative to rPage
	amask uint64 // mask of the address size
	// target is a fused jump's, as imm is an unfused one's.
	target uint64

	// The memory operand's address: indices into cpu.regs.
	base, index, scale, seg uint8

	reg, rm uint8 // registers of ModRM.reg and ModRM.rm, extended by REX
	size    uint8 // operand size in bytes
	sh      uint8 // 64 - operand size in bits
	asize   uint8 // address size in bytes
	op      uint8 // what distinguishes opcodes that share a handler
	rep     uint8 // 0xf2, 0xf3 or 0
	mem     bool  // ModRM.rm is memory

	off, next uint16 // of the instruction and of the one behind it, from the start of the page
	flags     uint16
}

// Bits of inst.flags.
const (
	flagLock    = 1 << iota
	flagStack   // the memory operand is addressed through SS
	flagREX     // a REX prefix was there
	flagREXW    // with the W bit
	flagOp16    // the operand-size prefix was there
	flagImplied // inserted by the decoder: not an instruction of the guest
)

// opcode is a row of the decoding tables.
type opcode struct {
	name string
	fn   handler
	attr attr
	imm  immKind
	op   uint8
	form form
	// spec picks a handler for the common forms of the instruction, or nil.
	spec func(*inst) handler
	// group is what ModRM.reg chooses from.
	group *[8]opcode
}

// form is the order of operands of an arithmetic opcode, for those that a
// conditional jump can be fused with.
type form uint8

const (
	formNone form = iota
	formEG        // r/m, r
	formGE        // r, r/m
	formEI        // r/m, imm
)

// attr is what the decoder has to know of an opcode.
type attr uint32

const (
	aModRM  attr = 1 << iota
	aByte        // operands of 8 bits
	aD64         // operand size is 64 bits by default in 64-bit mode
	aF64         // and cannot be changed to 16 either
	aEnd         // the block ends here: the handler never returns true
	aLock        // LOCK is allowed with a memory destination
	aNo64        // #UD in 64-bit mode
	aMem         // #UD with a register operand
	aReg         // #UD with a memory operand
	aPriv        // #GP(0) unless CPL is 0
	aStore       // the memory operand is (also) written
	aNoData      // the memory operand is not accessed: LEA, INVLPG
	aOpReg       // the low three bits of the opcode name a register (in inst.rm)
	aSSE         // needs SSE to be enabled
	aX87         // needs the x87 FPU to be enabled
	aMMX         // needs MMX to be enabled: like x87, but #UD with CR0.EM
	aMem8        // size of the memory operand, where it is not the operand size
	aMem16
	aMem32
	aMem64
	aMem128
	aGPR32  // ModRM.rm is a general register of 32 or, with REX.W, 64 bits whatever the prefixes
	aProt   // #UD in real and virtual-8086 mode
	aHold   // the block goes on for at least one more instruction
	aAlone  // a block of its own: it reads the time, or what it does is seen at once
	aString // implied memory operands: in.seg is the source's, in.rm the destination's segment base
)

// immKind is the form of what follows ModRM.
type immKind uint8

const (
	immNone  immKind = iota
	imm8             // sign-extended
	immU8            // zero-extended
	immU16           //
	immZ             // 16 or 32 bits, sign-extended
	immV             // as wide as the operand: MOV r64, imm64
	immEnter         // imm16 and imm8: imm = imm8<<16 | imm16
	immFar           // ptr16:16 or ptr16:32: imm = selector<<32 | offset
	immMoffs         // an address: becomes the memory operand
	immRel8          // branch targets
	immRelZ
)
