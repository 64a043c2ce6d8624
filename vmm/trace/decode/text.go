package decode

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/vitrine-vmm/vitrine/vmm/symbols"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// A boot is millions of instructions, each with a line: what is here appends to
// the caller's bytes and allocates nothing but what it remembers.

// names names addresses, and remembers the function it has named last: the next
// instruction is likely to be in it.
type names struct {
	table *symbols.Table
	name  string
	start uint64
	size  uint64 // of what is known to be in it
}

// find is the function that addr is in, and how far in.
func (n *names) find(addr uint64) (name string, off uint64, ok bool) {
	if off := addr - n.start; off < n.size {
		return n.name, off, n.name != ""
	}
	name, off, more, ok := n.table.Find(addr)
	if ok {
		n.name, n.start, n.size = name, addr-off, off+more
	}
	return name, off, ok
}

// append appends " <function+0x1c>", or nothing.
func (n *names) append(b []byte, addr uint64) []byte {
	name, off, ok := n.find(addr)
	if !ok {
		return b
	}
	b = append(append(b, " <"...), name...)
	if off != 0 {
		b = appendHex(append(b, '+'), off)
	}
	return append(b, '>')
}

// code is what is said of an instruction wherever it is executed again.
type code struct {
	rip      uint64
	bytes    [2]uint64
	size     uint8
	how      uint8  // mode, bits, CPL
	text     string // address to disassembly
	assembly string
}

// codes remembers instructions by their addresses. It is a table with one place
// for each hash, so it never grows.
type codes [1 << 15]*code

func (d *Decoder) code(it *trace.Item, in *trace.Instruction) *code {
	how := uint8(in.Mode)<<4 | uint8(in.Bits>>5)<<2 | in.CPL
	place := &d.codes[(it.RIP^it.Value^uint64(how)<<56)*0x9e3779b97f4a7c15>>(64-15)]
	if c := *place; c != nil && c.rip == it.RIP && c.bytes == [2]uint64{it.Value, it.Aux} && c.size == it.Size && c.how == how {
		return c
	}
	c := &code{rip: it.RIP, bytes: [2]uint64{it.Value, it.Aux}, size: it.Size, how: how,
		assembly: assembly(in.Code, int(in.Bits), it.RIP, d.symbols.Name)}
	b := d.names.append(appendHex(nil, it.RIP), it.RIP)
	b = append(append(append(b, ' '), in.Mode.String()...), '/', '0'+in.CPL, ' ', ' ')
	b = appendPadded(b, bytesText(in.Code), 20)
	b = appendPadded(append(b, "  "...), c.assembly, 28)
	c.text = string(append(b, "  "...))
	*place = c
	return c
}

// appendInstruction appends the text of an instruction's line: see Line.Text.
func (d *Decoder) appendInstruction(b []byte, it *trace.Item, in *trace.Instruction) []byte {
	start := len(b)
	b = append(b, d.code(it, in).text...)
	effects := len(b)
	next := func(b []byte) []byte {
		if len(b) > effects {
			return append(b, ", "...)
		}
		return b
	}
	for _, c := range in.Registers {
		switch {
		case c.Before == c.After || c.Index == x86.RegRFLAGS:
		case c.Index == x86.RegRIP:
			b = append(next(b), "→ "...)
			b = d.names.append(appendHex(b, c.After), c.After)
		default:
			b = append(append(next(b), x86.RegName(int(c.Index))...), ' ')
			b = appendHex(append(appendHex(b, c.Before), "→"...), c.After)
		}
	}
	if (in.Before^in.After)&x86.NamedFlags != 0 {
		b = append(next(b), "flags ["...)
		b = x86.AppendFlagNames(b, in.Before)
		b = append(b, "]→["...)
		b = append(x86.AppendFlagNames(b, in.After), ']')
	}
	if in.Faulted {
		b = append(append(next(b), "raises "...), faultName(in.Vector)...)
	}
	for len(b) > start && b[len(b)-1] == ' ' {
		b = b[:len(b)-1]
	}
	return b
}

// AppendInstruction appends what Line(it).String() is, of a KindInstruction
// item, and a line feed.
func (d *Decoder) AppendInstruction(b []byte, it *trace.Item) []byte {
	it.Instruction(&d.in)
	b = appendHead(b, it.Time, d.source(it), it.Time-d.last)
	d.last = it.Time
	b = d.appendInstruction(b, it, &d.in)
	if it.Took != 0 {
		b = appendTook(b, it.Took)
	}
	return append(b, '\n')
}

// Executed is what a profile is made of.
type Executed struct {
	Function string // "" without a name
	CPU      int
	CPL      int
	CR3      uint64 // what the instruction has set it to; 0 if it has not
}

// Executed is who executed the line's instruction.
func (l *Line) Executed() Executed {
	function, _, _ := strings.Cut(l.Symbol, "+")
	return Executed{Function: function, CPU: l.CPU, CPL: l.Instruction.CPL, CR3: l.cr3}
}

// Executed is who executed a KindInstruction item.
func (d *Decoder) Executed(it *trace.Item) Executed {
	it.Instruction(&d.in)
	d.last = it.Time
	e := Executed{CPU: int(it.CPU), CPL: int(d.in.CPL)}
	e.Function, _, _ = d.names.find(it.RIP)
	for _, c := range d.in.Registers {
		if c.Index == x86.RegCR3 {
			e.CR3 = c.After
		}
	}
	return e
}

func (d *Decoder) source(it *trace.Item) string {
	if int(it.Source) < len(d.meta.Sources) {
		return d.meta.Sources[it.Source]
	}
	return ""
}

// appendHead appends the columns that every line begins with.
func appendHead(b []byte, at time.Duration, source string, since time.Duration) []byte {
	var column [32]byte
	b = appendRight(b, strconv.AppendFloat(column[:0], at.Seconds(), 'f', 6, 64), 12)
	b = appendPadded(append(b, ' '), source, 8)
	b = appendRight(append(b, ' '), appendShort(append(column[:0], '+'), since), 9)
	return append(b, ' ', ' ')
}

func appendTook(b []byte, d time.Duration) []byte {
	return append(appendShort(append(b, ", "...), d), " in the VMM"...)
}

func appendHex(b []byte, v uint64) []byte { return strconv.AppendUint(append(b, "0x"...), v, 16) }

const blanks = "                                "

// appendPadded appends s and blanks up to width.
func appendPadded(b []byte, s string, width int) []byte {
	return append(append(b, s...), blanks[:max(0, width-utf8.RuneCountInString(s))]...)
}

// appendRight appends blanks up to width before s.
func appendRight(b, s []byte, width int) []byte {
	return append(append(b, blanks[:max(0, width-utf8.RuneCount(s))]...), s...)
}

// appendShort appends a duration with three or four digits.
func appendShort(b []byte, d time.Duration) []byte {
	switch {
	case d < time.Microsecond:
		return append(strconv.AppendInt(b, d.Nanoseconds(), 10), "ns"...)
	case d < time.Millisecond:
		return append(strconv.AppendFloat(b, float64(d)/1e3, 'f', 1, 64), "µs"...)
	case d < time.Second:
		return append(strconv.AppendFloat(b, float64(d)/1e6, 'f', 2, 64), "ms"...)
	}
	return append(strconv.AppendFloat(b, d.Seconds(), 'f', 2, 64), 's')
}
