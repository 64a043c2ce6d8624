package trace

import (
	"encoding/binary"

	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Instruction is one that a software CPU has executed, or that has faulted.
// Its event has the address in RIP, the bytes in Value, Aux and Size, and the
// rest in Addr; KindRegisters before it have the registers.
type Instruction struct {
	RIP           uint64
	Code          []byte
	Mode          x86.Mode
	Bits          uint8 // of code: 16, 32 or 64
	CPL           uint8
	Faulted       bool // it raised Vector, and did nothing
	Vector        uint8
	Before, After uint64 // RFLAGS
	Registers     []Change
}

// Change is a register before and after an instruction. Index is of an
// x86.File.
type Change struct {
	Index         uint8
	Before, After uint64
}

// Parts of a KindInstruction event's Addr.
const (
	instrMode    = 2 // 3 bits; below it CPL
	instrBits    = 5 // 2 bits: 16<<n
	instrFaulted = 7
	instrVector  = 8  // 8 bits
	instrBefore  = 16 // 22 bits of RFLAGS
	instrAfter   = 40 // 22 bits
	flagBits     = 1<<22 - 1

	changeSize = 17
)

// InstructionWriter puts instructions into a ring, without allocating.
type InstructionWriter struct {
	buf   [x86.RegCount * changeSize]byte
	parts [1][]byte
}

// Emit puts in into r; e has time, CPU and source.
func (w *InstructionWriter) Emit(r *Ring, e Event, in *Instruction) {
	b := w.buf[:0]
	for _, c := range in.Registers {
		b = append(b, c.Index)
		b = binary.LittleEndian.AppendUint64(b, c.Before)
		b = binary.LittleEndian.AppendUint64(b, c.After)
	}
	w.parts[0] = b
	e.Kind = KindRegisters
	emitPieces(r, e, e.ID(), w.parts[:], len(b))
	e.Kind, e.RIP, e.Size = KindInstruction, in.RIP, uint8(len(in.Code))
	var code [16]byte
	copy(code[:], in.Code)
	e.Value, e.Aux = binary.LittleEndian.Uint64(code[:]), binary.LittleEndian.Uint64(code[8:])
	e.Addr = uint64(in.CPL&3) | uint64(in.Mode&7)<<instrMode | uint64(in.Bits>>5&3)<<instrBits |
		uint64(in.Vector)<<instrVector | in.Before&flagBits<<instrBefore | in.After&flagBits<<instrAfter
	if in.Faulted {
		e.Addr |= 1 << instrFaulted
	}
	r.Emit(&e)
}

// Instruction puts the instruction of a KindInstruction item into in, whose
// slices it takes for what it has to keep.
func (it *Item) Instruction(in *Instruction) {
	code := binary.LittleEndian.AppendUint64(in.Code[:0], it.Value)
	code = binary.LittleEndian.AppendUint64(code, it.Aux)
	a := it.Addr
	*in = Instruction{
		Registers: in.Registers[:0],
		RIP:       it.RIP, Code: code[:min(int(it.Size), len(code))],
		CPL: uint8(a & 3), Mode: x86.Mode(a >> instrMode & 7), Bits: 16 << (a >> instrBits & 3),
		Faulted: a>>instrFaulted&1 != 0, Vector: uint8(a >> instrVector),
		Before: a >> instrBefore & flagBits, After: a >> instrAfter & flagBits,
	}
	if in.Bits > 64 {
		in.Bits = 64
	}
	for b := it.Data; len(b) >= changeSize; b = b[changeSize:] {
		if b[0] >= x86.RegCount {
			break // damaged
		}
		in.Registers = append(in.Registers, Change{b[0], binary.LittleEndian.Uint64(b[1:]), binary.LittleEndian.Uint64(b[9:])})
	}
}
