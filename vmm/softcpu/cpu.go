package softcpu

import (
	"sync/atomic"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/apic"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Indices into cpu.regs. The general registers have their encodings (SDM
// vol. 2, table 3-1). Behind them stand values that an address is made of, so
// that every form of address is the same sum (see cpu.ea).
const (
	rAX = iota
	rCX
	rDX
	rBX
	rSP
	rBP
	rSI
	rDI
	rR8
	rR9
	rR10
	rR11
	rR12
	rR13
	rR14
	rR15
	rZero // always 0
	rPage // RIP of the first byte of the page that the running block is in
	rSeg  // base of ES; CS, SS, DS, FS, GS follow
	// AH, CH, DH and BH as operands; these registers hold nothing.
	rHigh = 24
)

// Segment registers by encoding (SDM vol. 2, table 3-1).
const (
	segES = iota
	segCS
	segSS
	segDS
	segFS
	segGS
)

// cpu is the state of one virtual CPU. Only its own goroutine touches it,
// except for the fields of attn.
type cpu struct {
	regs [32]uint64

	// Lazy arithmetic flags, see flags.go.
	ccDst, ccA, ccB uint64
	ccKind          uint8

	cpl  uint8
	mode mode // how code is decoded now: part of a block's key
	// stop says why a handler returned false, if not for a branch.
	stop stopReason

	flags uint64 // RFLAGS; the arithmetic bits count only with ccKind == ccEager

	// What runs: rip is right whenever next is nil and no block is executing.
	rip    uint64
	cur    *block
	next   *block // the block to go on with, if already known
	linkTo int8   // which link of cur findBlock is to fill, or -1
	icount uint64 // instructions executed

	tr, tw *[tlbSize]tlbEntry // the TLBs of the current privilege: read, write
	tx     *[tlbSize]codeEntry
	exc    exception
	ipMask uint64

	seg      [6]segment
	ldt, tss segment
	gdt, idt x86.DTable

	cr0, cr2, cr3, cr4 uint64
	efer               uint64
	xcr0               uint64
	dr                 [8]uint64
	msr                msrs

	fpu fpu
	sse sse

	attn   atomic.Uint32 // reasons to leave the run loop at the next block
	irq    atomic.Bool   // the interrupt controller has something
	wake   chan struct{}
	halted bool
	alone  bool   // the next instruction gets a block of its own
	until  uint64 // leave the run loop when icount gets here

	tlb   tlb
	code  codeCache
	io    ioState
	event eventState

	apic  *apic.LAPIC
	timer *time.Timer   // has the run loop look at the local APIC's timer
	sipi  atomic.Uint32 // vector of the last start-up IPI
	due   uint64        // when the timer wants a look, in deterministic time
	turn  turnState
	// endOfTurn is icount at which others may run.
	endOfTurn uint64

	vm    *VM
	id    int
	cpuid []x86.CPUIDEntry
	debug debug
}

// segment is a segment register with its hidden part (SDM vol. 3, 3.4.3).
type segment struct {
	base  uint64
	limit uint32 // in bytes
	sel   uint16
	attr  uint16 // bits 40-47 and 52-55 of the descriptor in bits 0-7 and 12-15
}

// Bits of segment.attr (SDM vol. 3, 3.4.5).
const (
	attrAccessed   = 1 << 0
	attrWritable   = 1 << 1 // of data
	attrReadable   = 1 << 1 // of code
	attrExpandDown = 1 << 2 // of data
	attrConforming = 1 << 2 // of code
	attrCode       = 1 << 3
	attrS          = 1 << 4 // code or data, not a system segment
	attrP          = 1 << 7
	attrL          = 1 << 13
	attrDB         = 1 << 14
	attrG          = 1 << 15
)

func (s *segment) dpl() uint8   { return uint8(s.attr >> 5 & 3) }
func (s *segment) usable() bool { return s.attr&attrP != 0 }

// stopReason says why the run loop has to look before it goes on.
type stopReason uint8

const (
	stopNone  stopReason = iota
	stopFault            // cpu.exc is to be delivered; the instruction did nothing
	stopExit             // cpu.io has an access for a device
	stopOut              // leave Run with cpu.event.exit
	stopDone             // the instruction is complete, and the loop is to look at attn
	stopAgain            // the instruction did nothing and is to be looked up again
	stopAlone            // the same, and to be executed in a block of its own
)

// Bits of cpu.attn.
const (
	attnKick   = 1 << iota // return ExitInterrupted
	attnIRQ                // the interrupt controller has something
	attnNMI                // a non-maskable interrupt
	attnInit               // INIT
	attnSIPI               // start-up IPI
	attnFlush              // other goroutines wrote to pages with code: cpu.code.dirty
	attnStep               // single-step, a hook or a breakpoint: one instruction at a time
	attnTimer              // the timer may be due
	attnShadow             // the instruction after STI or MOV SS is next
	attnAlone              // one instruction is executed alone: see cpu.fits
	attnHalt               // halted or waiting for SIPI
	attnEvent              // cpu.event has changed from outside: an injected event
)

func (c *cpu) long() bool      { return c.efer&x86.EFERLMA != 0 }
func (c *cpu) code64() bool    { return c.mode&modeSize == mode64 }
func (c *cpu) protected() bool { return c.cr0&x86.CR0PE != 0 }

// vm86 says whether the CPU is in virtual-8086 mode.
func (c *cpu) vm86() bool { return c.flags&x86.FlagVM != 0 && c.protected() }

// gpr reads general register n, size bytes of it, zero-extended.
func (c *cpu) gpr(n, size uint8) uint64 {
	switch size {
	case 8:
		return c.regs[n&31]
	case 4:
		return uint64(uint32(c.regs[n&31]))
	case 2:
		return uint64(uint16(c.regs[n&31]))
	}
	if n >= rHigh {
		return c.regs[n&3] >> 8 & 0xff
	}
	return c.regs[n&31] & 0xff
}

// setGPR writes general register n. A 32-bit write clears the upper half, the
// narrower ones leave the rest alone (SDM vol. 1, 3.4.1.1).
func (c *cpu) setGPR(n, size uint8, v uint64) {
	switch size {
	case 8:
		c.regs[n&31] = v
	case 4:
		c.regs[n&31] = uint64(uint32(v))
	case 2:
		c.regs[n&31] = c.regs[n&31]&^0xffff | v&0xffff
	default:
		if n >= rHigh {
			c.regs[n&3] = c.regs[n&3]&^0xff00 | v&0xff<<8
			return
		}
		c.regs[n&31] = c.regs[n&31]&^0xff | v&0xff
	}
}

// ea is the linear address of the memory operand of in. In 64-bit code the
// bases of ES, CS, SS and DS do not count: the decoder names rZero there.
func (c *cpu) ea(in *inst) uint64 {
	return (c.regs[in.base&31]+c.regs[in.index&31]<<(in.scale&63)+in.disp)&in.amask + c.regs[in.seg&31]
}

// offset is ea without the segment base: what LEA computes.
func (c *cpu) offset(in *inst) uint64 {
	return (c.regs[in.base&31] + c.regs[in.index&31]<<(in.scale&63) + in.disp) & in.amask
}

// readRM reads the operand that ModRM.rm names, zero-extended.
func (c *cpu) readRM(in *inst) (uint64, bool) {
	if in.mem {
		return c.load(c.ea(in), in.size)
	}
	return c.gpr(in.rm, in.size), true
}

// writeRM writes the operand that ModRM.rm names.
func (c *cpu) writeRM(in *inst, v uint64) bool {
	if in.mem {
		return c.store(c.ea(in), in.size, v)
	}
	c.setGPR(in.rm, in.size, v)
	return true
}

// modifyRM reads an operand that is going to be written: a page that cannot be
// written faults here, before anything has changed.
func (c *cpu) modifyRM(in *inst) (uint64, bool) {
	if in.mem {
		return c.loadRMW(c.ea(in), in.size)
	}
	return c.gpr(in.rm, in.size), true
}

// ipAt is the instruction pointer at offset off of the running block's page.
func (c *cpu) ipAt(off uint16) uint64 { return (c.regs[rPage] + uint64(off)) & c.ipMask }

// nextIP is the instruction pointer behind in.
func (c *cpu) nextIP(in *inst) uint64 { return c.ipAt(in.next) }

// branch goes on at ip, an address that only now is known.
func (c *cpu) branch(ip uint64) bool {
	c.rip, c.next, c.linkTo = ip, nil, -1
	return false
}

// done ends the block behind in, for instructions that change what the run
// loop or the decoder depends on.
func (c *cpu) done(in *inst) bool {
	c.stop = stopDone
	return c.branch(c.nextIP(in))
}
