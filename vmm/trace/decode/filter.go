package decode

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Filter says which lines are wanted. Its language, loosest first:
//
//	a or b, a and b, a b (the same as and), not a, ( a )
//	FIELD = != < <= > >= VALUE; FIELD = FROM..TO; FIELD ~ TEXT (contains)
//	WORD: a kind of event, a device, a source, or what the text contains
//
// Fields: kind, device, source, queue, what, symbol, text, mode (texts); cpu,
// port, addr, value, size, rip, cpl (numbers); took, time, since, latency
// (durations); write, read. symbol = NAME is any address in the function.
type Filter struct{ root test }

// test looks at a line.
type test func(*Line) verdict

// verdict is what a test says of a line: no, yes, or, of one that is not there
// yet, that it depends.
type verdict int8

const (
	no    verdict = -1
	maybe verdict = 0
	yes   verdict = 1
)

func verdictOf(b bool) verdict {
	if b {
		return yes
	}
	return no
}

// Match says whether the line is wanted; a nil Filter wants all.
func (f *Filter) Match(l *Line) bool { return f == nil || f.root(l) == yes }

// Where is what is known of an instruction before it is executed.
type Where struct {
	CPU    int
	RIP    uint64
	Symbol string
	Mode   x86.Mode
	CPL    int
}

// MayMatch says whether the line of an instruction there may be wanted: no
// means that it certainly is not. Without named, nobody knows the Symbol.
func (f *Filter) MayMatch(w Where, named bool) bool {
	if f == nil {
		return true
	}
	l := Line{CPU: w.CPU, Source: fmt.Sprintf("vcpu%d", w.CPU), Kind: trace.KindInstruction.String(), RIP: w.RIP, Symbol: w.Symbol,
		Instruction: &Instruction{Mode: w.Mode.String(), CPL: w.CPL}, early: true, unnamed: !named}
	return f.root(&l) != no
}

// FilterError is a mistake in a filter and where it is.
type FilterError struct {
	Text string
	At   int // bytes from Text's start
	What string
}

func (e *FilterError) Error() string {
	column := len([]rune(e.Text[:e.At]))
	return fmt.Sprintf("%s\n  %s\n  %s^", e.What, e.Text, strings.Repeat(" ", column))
}

// ParseFilter parses a filter. The error is a *FilterError.
func ParseFilter(text string) (f *Filter, err error) {
	p := &filterParser{text: text}
	p.next()
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokEnd {
		return nil, p.mistake("unexpected %q", p.tok.text)
	}
	return &Filter{root}, nil
}

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokWord
	tokOp
	tokBad
)

type token struct {
	kind tokenKind
	text string
	at   int
}

type filterParser struct {
	text  string
	pos   int
	tok   token
	depth int
}

func (p *filterParser) mistake(format string, a ...any) error {
	return &FilterError{p.text, p.tok.at, fmt.Sprintf(format, a...)}
}

const operators = "=!<>~()"

// next reads a token.
func (p *filterParser) next() {
	rest := p.text[p.pos:]
	trimmed := strings.TrimLeftFunc(rest, unicode.IsSpace)
	p.pos += len(rest) - len(trimmed)
	p.tok = token{at: p.pos}
	switch {
	case trimmed == "":
		return
	case trimmed[0] == '"':
		end := strings.IndexByte(trimmed[1:], '"')
		if end < 0 {
			p.tok.kind, p.tok.text = tokBad, trimmed
			p.pos = len(p.text)
			return
		}
		p.tok.kind, p.tok.text = tokWord, trimmed[1:1+end]
		p.pos += end + 2
		return
	case strings.IndexByte(operators, trimmed[0]) >= 0:
		n := 1
		if len(trimmed) > 1 && trimmed[1] == '=' && strings.IndexByte("!<>=", trimmed[0]) >= 0 {
			n = 2
		}
		p.tok.kind, p.tok.text = tokOp, trimmed[:n]
		p.pos += n
		return
	}
	n := strings.IndexFunc(trimmed, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(operators+`"`, r) })
	if n < 0 {
		n = len(trimmed)
	}
	p.tok.kind, p.tok.text = tokWord, trimmed[:n]
	p.pos += n
}

func (p *filterParser) word(s string) bool { return p.tok.kind == tokWord && p.tok.text == s }

func (p *filterParser) or() (test, error) {
	if p.depth++; p.depth > 100 {
		return nil, p.mistake("too deep")
	}
	defer func() { p.depth-- }()
	left, err := p.and()
	for err == nil && p.word("or") {
		p.next()
		a := left
		var b test
		b, err = p.and()
		left = func(l *Line) verdict { return max(a(l), b(l)) }
	}
	return left, err
}

func (p *filterParser) and() (test, error) {
	left, err := p.not()
	for err == nil && p.tok.kind != tokEnd && !p.word("or") && p.tok.text != ")" {
		if p.word("and") {
			p.next()
		}
		a := left
		var b test
		b, err = p.not()
		left = func(l *Line) verdict { return min(a(l), b(l)) }
	}
	return left, err
}

func (p *filterParser) not() (test, error) {
	switch {
	case p.word("not") || p.tok.kind == tokOp && p.tok.text == "!":
		if p.depth++; p.depth > 100 {
			return nil, p.mistake("too deep")
		}
		defer func() { p.depth-- }()
		p.next()
		f, err := p.not()
		return func(l *Line) verdict { return -f(l) }, err
	case p.tok.kind == tokOp && p.tok.text == "(":
		p.next()
		f, err := p.or()
		if err != nil {
			return nil, err
		}
		if p.tok.text != ")" {
			return nil, p.mistake("a parenthesis is not closed")
		}
		p.next()
		return f, nil
	case (p.word("or") || p.word("and")) && p.text[p.tok.at] != '"':
		return nil, p.mistake("something is missing before %q", p.tok.text)
	case p.tok.kind == tokWord:
		return p.term()
	case p.tok.kind == tokEnd:
		return nil, p.mistake("something is missing here")
	case p.tok.kind == tokBad:
		return nil, p.mistake("a quotation is not closed")
	}
	return nil, p.mistake("unexpected %q", p.tok.text)
}

// term is a comparison or a single word.
func (p *filterParser) term() (test, error) {
	name := p.tok
	p.next()
	op := p.tok
	if op.kind != tokOp || op.text == "(" || op.text == ")" || op.text == "!" {
		return bare(name.text), nil
	}
	p.next()
	value := p.tok
	if value.kind != tokWord {
		return nil, p.mistake("a value is missing")
	}
	f, what := compare(name.text, op.text, value.text)
	if f == nil {
		p.tok = value
		if _, known := fieldKinds[name.text]; !known {
			p.tok = name
		}
		return nil, p.mistake("%s", what)
	}
	p.next()
	return f, nil
}

func bare(word string) test {
	switch word {
	case "write":
		return func(l *Line) verdict { return verdictOf(l.Write) }
	case "read":
		return func(l *Line) verdict { return verdictOf(!l.Write && (l.Kind == "io" || l.Kind == "mmio")) }
	}
	if _, err := trace.ParseKind(word); err == nil {
		return func(l *Line) verdict { return verdictOf(l.Kind == word) }
	}
	return func(l *Line) verdict {
		switch {
		case l.Device == word || l.Source == word || strings.Contains(l.Text, word) || strings.Contains(l.Symbol, word):
			return yes
		case l.early:
			return maybe
		}
		return no
	}
}
