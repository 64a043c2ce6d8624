// Package clinic explains in words why a virtual CPU could not go on: a triple
// fault, a state that the processor refuses to enter, an instruction that
// nobody can execute. It looks at registers and guest memory and changes
// neither. What it reads is the guest's, and may say anything.
//
// SDM is Intel's Software Developer's Manual.
package clinic

import (
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// State is what the clinic examines.
type State struct {
	Regs  x86.Regs
	Sregs x86.Sregs
	Mem   *memory.Guest
	// Symbol names the function that an address is in, or returns "". It
	// may be nil.
	Symbol func(addr uint64) string
	// Events is what happened last, oldest first, a line each; it may be nil.
	Events []string
}

// Report is a diagnosis.
type Report struct {
	Summary string   // one sentence
	Chain   []string // what led to what, in order
	Notes   []string // what else is wrong
	CPU     []string // mode and registers
	Walks   []string // page walks of the addresses that matter, several lines each
	Code    []Line   // around RIP
	Events  []string
}

// String is the report for a terminal: the summary on the first line, and then
// what it rests on.
func (r Report) String() string {
	var b strings.Builder
	b.WriteString(r.Summary)
	for i, c := range r.Chain {
		fmt.Fprintf(&b, "\n  %d. %s", i+1, c)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "\n  - %s", n)
	}
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%s:", title)
		for _, l := range lines {
			b.WriteString("\n  " + strings.ReplaceAll(l, "\n", "\n  "))
		}
	}
	section("cpu", r.CPU)
	section("page walks", r.Walks)
	code := make([]string, len(r.Code))
	for i, l := range r.Code {
		code[i] = l.String()
	}
	section("code", code)
	section("last events", r.Events)
	return b.String()
}

// patient is a State under examination.
type patient struct {
	State
	paging paging.CPU
	report Report
}

func examine(s State) *patient {
	p := &patient{State: s, paging: paging.Of(&s.Regs, &s.Sregs)}
	p.report.CPU = p.describeCPU()
	p.report.Code = Disassemble(&p.State, linesBefore, linesAfter)
	p.report.Events = s.Events
	if n := len(s.Events); n > maxEvents {
		p.report.Events = s.Events[n-maxEvents:]
	}
	p.walk("RIP", p.ripLinear(), paging.Fetch)
	p.walk("RSP", p.rspLinear(), paging.Write)
	return p
}

const (
	linesBefore = 4
	linesAfter  = 6
	maxEvents   = 20
)

func (p *patient) note(format string, a ...any) {
	p.report.Notes = append(p.report.Notes, fmt.Sprintf(format, a...))
}

func (p *patient) link(format string, a ...any) {
	p.report.Chain = append(p.report.Chain, fmt.Sprintf(format, a...))
}

// walk adds the page walk of an address to the report, where there is paging.
func (p *patient) walk(name string, linear uint64, a paging.Access) {
	if p.paging.Mode() == paging.None {
		return
	}
	w := p.paging.Walk(p.Mem, linear, a)
	p.report.Walks = append(p.report.Walks, name+" "+w.String())
}

// Instruction explains an instruction that the emulator of the host lacks and
// the VMM cannot complete either. code is its bytes as far as they are known.
func Instruction(s State, code []byte) Report {
	p := examine(s)
	if len(code) == 0 {
		code = p.fetch(p.ripLinear(), maxInstruction)
	}
	text, n := decode(code, p.bits(), s.Regs.RIP)
	if n > 0 {
		code = code[:n]
	}
	p.report.Summary = fmt.Sprintf("the host's emulator cannot execute % x (%s) in %s at CPL %d, and the VMM cannot complete it",
		code, text, p.modeName(), s.Sregs.CPL())
	if why := vectorFamily(code, p.bits()); why != "" {
		p.note("%s", why)
	}
	p.note("a host whose KVM runs guest kernels on the processor executes it; here --accel soft may")
	return p.report
}

// vectorFamily names the instruction set of a vector instruction, by its
// prefix.
func vectorFamily(code []byte, bits int) string {
	for i, b := range code {
		switch {
		case b == 0x62 && bits == 64:
			return "it is EVEX-coded (AVX-512)"
		case (b == 0xc4 || b == 0xc5) && (bits == 64 || i+1 < len(code) && code[i+1] >= 0xc0):
			return "it is VEX-coded (AVX or BMI)"
		case b == 0x66 || b == 0xf2 || b == 0xf3 || b&0xf0 == 0x40 && bits == 64:
			continue
		case b == 0x0f && i > 0:
			return "it may be an SSE instruction: the guest kernel does vector arithmetic itself"
		}
		return ""
	}
	return ""
}

// InternalError explains an error of the host's KVM that is not about an
// instruction.
func InternalError(s State, x *x86.Exit) Report {
	p := examine(s)
	word := func(n int) uint64 {
		if n < len(x.Internal) {
			return x.Internal[n]
		}
		return 0
	}
	switch x.SubError {
	case x86.InternalErrorSimulEx:
		p.report.Summary = "KVM: two exceptions at the same time that it could not merge"
	case x86.InternalErrorDeliveryEv:
		p.report.Summary = fmt.Sprintf("KVM: an exit (reason %#x) while %s was being delivered",
			word(1), exceptionName(uint8(word(0))))
		p.checkDelivery(uint8(word(0)))
	case x86.InternalErrorUnexpectedReason:
		p.report.Summary = fmt.Sprintf("KVM: an exit with a reason that it does not handle: %#x", word(0))
	default:
		p.report.Summary = fmt.Sprintf("KVM: internal error %d, data %#x", x.SubError, x.Internal)
	}
	return p.report
}
