package decode

import (
	"encoding/hex"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Instruction is an executed instruction in words.
type Instruction struct {
	Bytes       string     `json:"bytes"`
	Assembly    string     `json:"assembly"`
	Mode        string     `json:"mode"`
	Bits        int        `json:"bits"`
	CPL         int        `json:"cpl"`
	FlagsBefore []string   `json:"flagsBefore"`
	FlagsAfter  []string   `json:"flagsAfter"`
	Registers   []Register `json:"registers,omitempty"`
	Fault       string     `json:"fault,omitempty"` // the exception that it raised
}

// Register is a register before and after an instruction.
type Register struct {
	Name   string `json:"name"`
	Before uint64 `json:"before"`
	After  uint64 `json:"after"`
}

// instructionLine is an executed instruction.
func (d *Decoder) instructionLine(l *Line, it *trace.Item) {
	in := new(trace.Instruction)
	it.Instruction(in)
	w := &Instruction{
		Bytes: hex.EncodeToString(in.Code), Assembly: d.code(it, in).assembly,
		Mode: in.Mode.String(), Bits: int(in.Bits), CPL: int(in.CPL),
		FlagsBefore: x86.FlagNames(in.Before), FlagsAfter: x86.FlagNames(in.After),
	}
	l.Instruction, l.What, l.Data, l.Addr, l.Value = w, w.Assembly, in.Code, 0, 0
	for _, c := range in.Registers {
		if c.Index == x86.RegCR3 {
			l.cr3 = c.After
		}
		w.Registers = append(w.Registers, Register{x86.RegName(int(c.Index)), c.Before, c.After})
	}
	if in.Faulted {
		w.Fault = faultName(in.Vector)
	}
	d.text = d.appendInstruction(d.text[:0], it, in)
	l.Text = string(d.text)
}

func faultName(vector uint8) string {
	if int(vector) < len(exceptionNames) && exceptionNames[vector] != "" {
		return exceptionNames[vector]
	}
	return fmt.Sprintf("vector %#x", vector)
}

// Table is all registers that the line has, before and after, four a row.
func (w *Instruction) Table() string {
	var b strings.Builder
	for i, r := range w.Registers {
		cell := fmt.Sprintf("%s=%#x", r.Name, r.Before)
		if r.Before != r.After {
			cell += fmt.Sprintf("→%#x", r.After)
		}
		if i%4 == 0 {
			b.WriteString("              ")
		}
		if i%4 == 3 || i == len(w.Registers)-1 {
			b.WriteString(cell + "\n")
		} else {
			fmt.Fprintf(&b, "%-28s ", cell)
		}
	}
	return b.String()
}

// decodeOne decodes the first instruction of code.
func decodeOne(code []byte, bits int) (inst x86asm.Inst, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	inst, err := x86asm.Decode(code, bits)
	return inst, err == nil && inst.Op != 0
}

// assembly is the first instruction of code; name names what it jumps to.
func assembly(code []byte, bits int, pc uint64, name func(uint64) string) (text string) {
	inst, ok := decodeOne(code, bits)
	if !ok {
		return newer(code)
	}
	defer func() { // the disassembler is another's, and the bytes are the guest's
		if recover() != nil {
			text = "an instruction"
		}
	}()
	return strings.ToLower(x86asm.IntelSyntax(inst, pc, func(a uint64) (string, uint64) {
		s := name(a)
		if s == "" || strings.Contains(s, "+") {
			return "", 0
		}
		return s, a
	}))
}
