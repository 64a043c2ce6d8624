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
	in := it.Instruction()
	w := &Instruction{
		Bytes: hex.EncodeToString(in.Code), Assembly: assembly(in.Code, int(in.Bits), it.RIP, d.symbols.Name),
		Mode: in.Mode.String(), Bits: int(in.Bits), CPL: int(in.CPL),
		FlagsBefore: x86.FlagNames(in.Before), FlagsAfter: x86.FlagNames(in.After),
	}
	l.Instruction, l.What, l.Data, l.Addr, l.Value = w, w.Assembly, in.Code, 0, 0
	for _, c := range in.Registers {
		w.Registers = append(w.Registers, Register{x86.RegName(int(c.Index)), c.Before, c.After})
	}
	if in.Faulted {
		w.Fault = fmt.Sprintf("vector %#x", in.Vector)
		if int(in.Vector) < len(exceptionNames) && exceptionNames[in.Vector] != "" {
			w.Fault = exceptionNames[in.Vector]
		}
	}
	where := fmt.Sprintf("%#x", it.RIP)
	if s := d.symbols.Name(it.RIP); s != "" {
		where += " <" + s + ">"
	}
	l.Text = fmt.Sprintf("%s %s/%d  %-20s  %-28s  %s", where, w.Mode, w.CPL, bytesText(in.Code), w.Assembly, w.effect(d.symbols.Name))
	l.Text = strings.TrimRight(l.Text, " ")
}

// effect is what the instruction changed.
func (w *Instruction) effect(name func(uint64) string) string {
	var parts []string
	for _, r := range w.Registers {
		switch {
		case r.Before == r.After:
		case r.Name == "rip":
			to := fmt.Sprintf("→ %#x", r.After)
			if s := name(r.After); s != "" {
				to += " <" + s + ">"
			}
			parts = append(parts, to)
		case r.Name != "rflags":
			parts = append(parts, fmt.Sprintf("%s %#x→%#x", r.Name, r.Before, r.After))
		}
	}
	before, after := strings.Join(w.FlagsBefore, " "), strings.Join(w.FlagsAfter, " ")
	if before != after {
		parts = append(parts, fmt.Sprintf("flags [%s]→[%s]", before, after))
	}
	if w.Fault != "" {
		parts = append(parts, "raises "+w.Fault)
	}
	return strings.Join(parts, ", ")
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
