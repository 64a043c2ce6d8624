package clinic

import (
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/vitrine-vmm/vitrine/vmm/paging"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// maxInstruction is the length of the longest instruction (SDM vol. 2, 2.3.11).
const maxInstruction = 15

// Line is one disassembled instruction.
type Line struct {
	Addr    uint64 // RIP value of the instruction
	Bytes   []byte
	Text    string
	Symbol  string // the function it is in, where known
	Current bool   // RIP is here
}

func (l Line) String() string {
	mark := "  "
	if l.Current {
		mark = "→ "
	}
	s := fmt.Sprintf("%s%#x: %-30s %s", mark, l.Addr, fmt.Sprintf("% x", l.Bytes), l.Text)
	if l.Symbol != "" {
		s += "  <" + l.Symbol + ">"
	}
	return s
}

// Disassemble returns the instructions around RIP: up to before of those that
// lead to it, and after from it on. Instructions before RIP are a guess, as
// they cannot be decoded backwards: a start from which decoding meets RIP.
func Disassemble(s *State, before, after int) []Line {
	p := &patient{State: *s, paging: paging.Of(&s.Regs, &s.Sregs)}
	const look = 6 * maxInstruction
	rip := s.Regs.RIP
	lines := p.lead(rip, before)
	code := p.fetch(p.codeLinear(rip), look)
	if len(code) == 0 {
		return append(lines, Line{Addr: rip, Text: "(not readable)", Current: true})
	}
	for i := 0; i < after && len(code) > 0; i++ {
		text, n := decode(code, p.bits(), rip)
		n = max(n, 1)
		lines = append(lines, p.line(rip, code[:n], text))
		lines[len(lines)-1].Current = i == 0
		code, rip = code[n:], rip+uint64(n)
	}
	return lines
}

func (p *patient) line(addr uint64, code []byte, text string) Line {
	l := Line{Addr: addr, Bytes: code, Text: text}
	if p.Symbol != nil {
		l.Symbol = p.Symbol(addr)
	}
	return l
}

// lead is the last n instructions of a sequence that ends at rip.
func (p *patient) lead(rip uint64, n int) []Line {
	const window = 48
	code := p.fetch(p.codeLinear(rip-window), window)
	if len(code) < window {
		return nil
	}
	for start := range code {
		var lines []Line
		off := start
		for off < window {
			text, size := decode(code[off:], p.bits(), rip-window+uint64(off))
			if size == 0 {
				break
			}
			lines = append(lines, p.line(rip-window+uint64(off), code[off:off+size], text))
			off += size
		}
		if off == window && len(lines) > 0 {
			return lines[max(0, len(lines)-n):]
		}
	}
	return nil
}

// decode disassembles the first instruction of code. n is its length, 0 where
// the bytes are none that the disassembler knows.
func decode(code []byte, bits int, pc uint64) (text string, n int) {
	// The disassembler is another's, and the bytes are the guest's.
	defer func() {
		if recover() != nil {
			text, n = "(unknown)", 0
		}
	}()
	inst, err := x86asm.Decode(code[:min(len(code), maxInstruction)], bits)
	if err != nil || inst.Op == 0 {
		return "(unknown)", 0
	}
	return strings.ToLower(x86asm.IntelSyntax(inst, pc, nil)), inst.Len
}

// bits is the width of the code that the CPU executes.
func (p *patient) bits() int {
	switch s := &p.Sregs; {
	case s.LongMode():
		return 64
	case s.CR0&x86.CR0PE != 0 && s.CS.DB != 0:
		return 32
	}
	return 16
}

// codeLinear is the linear address of an instruction pointer.
func (p *patient) codeLinear(ip uint64) uint64 {
	if p.Sregs.LongMode() {
		return ip
	}
	return uint64(uint32(p.Sregs.CS.Base + ip))
}

func (p *patient) ripLinear() uint64 { return p.codeLinear(p.Regs.RIP) }

func (p *patient) rspLinear() uint64 {
	if p.Sregs.LongMode() {
		return p.Regs.RSP
	}
	sp := p.Regs.RSP
	if p.Sregs.SS.DB == 0 {
		sp = uint64(uint16(sp))
	}
	return uint64(uint32(p.Sregs.SS.Base + sp))
}

// fetch reads up to n bytes of what the CPU would see at a linear address,
// regardless of rights.
func (p *patient) fetch(linear uint64, n int) []byte {
	var b []byte
	for len(b) < n {
		at := linear + uint64(len(b))
		w := p.paging.Walk(p.Mem, at, paging.Read)
		if w.PageSize == 0 {
			break
		}
		room := 4096 - at&4095
		part, err := p.Mem.Bytes(w.GPA, min(room, uint64(n-len(b))))
		if err != nil {
			break
		}
		b = append(b, part...)
	}
	return b
}
