package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// parseInstructions looks at what is said of single instructions.
func (v *view) parseInstructions(c *cli.Context) error {
	v.instructions, v.registers = c.Bool("instructions"), c.Bool("registers")
	switch {
	case v.registers && !v.instructions:
		return usagef("add --instructions", "--registers: of which instructions?")
	case !v.instructions || c.NArg() > 0:
		return nil
	case c.String("accel") == string(vmm.AccelKVM):
		return usagef("use --accel soft", "--instructions: the processor does not stop at each instruction of a guest under KVM; the software CPU does")
	}
	return c.Set("accel", string(vmm.AccelSoft))
}

// instructionTrace is what the view wants of instructions; nil for nothing.
func (v *view) instructionTrace() *vmm.InstructionTrace {
	if !v.instructions {
		return nil
	}
	return &vmm.InstructionTrace{All: v.registers, Want: wantedBy(v.filter, func() *symbols.Table { return v.symbols }, true)}
}

// wantedBy asks a filter before an instruction is executed, so that those that
// nobody wants cost little. table is asked for when the machine runs.
func wantedBy(f *decode.Filter, table func() *symbols.Table, named bool) func(int, uint64, x86.Mode, uint8) bool {
	if f == nil {
		return nil
	}
	return func(cpu int, rip uint64, m x86.Mode, cpl uint8) bool {
		return f.MayMatch(decode.Where{CPU: cpu, RIP: rip, Symbol: table().Name(rip), Mode: m, CPL: int(cpl)}, named)
	}
}

// query asks a running machine for what the view needs.
func (v *view) query(c *cli.Context) url.Values {
	q := url.Values{"snap": {strconv.Itoa(v.snap())}}
	if v.instructions {
		q.Set("instructions", "changes")
		q.Set("filter", c.String("filter"))
	}
	if v.registers {
		q.Set("instructions", "all")
	}
	return q
}

// askedInstructions is query on the machine's side, where there are no symbols.
func askedInstructions(q url.Values) (*vmm.InstructionTrace, error) {
	if !q.Has("instructions") {
		return nil, nil
	}
	w := &vmm.InstructionTrace{All: q.Get("instructions") == "all"}
	if text := q.Get("filter"); text != "" {
		f, err := decode.ParseFilter(text)
		if err != nil {
			return nil, fmt.Errorf("filter: %w", err)
		}
		w.Want = wantedBy(f, func() *symbols.Table { return nil }, false)
	}
	return w, nil
}
