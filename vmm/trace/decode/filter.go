package decode

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// Filter says which lines are wanted. Its language, loosest first:
//
//	a or b, a and b, a b (the same as and), not a, ( a )
//	FIELD = != < <= > >= VALUE; FIELD = FROM..TO; FIELD ~ TEXT (contains)
//	WORD: a kind of event, a device, a source, or what the text contains
//
// Fields: kind, device, source, queue, what, symbol, text (texts); cpu, port,
// addr, value, size, rip (numbers); took, time, since, latency (durations);
// write, read.
type Filter struct{ root func(*Line) bool }

// Match says whether the line is wanted; a nil Filter wants all.
func (f *Filter) Match(l *Line) bool { return f == nil || f.root(l) }

// FilterError is a mistake in a filter and where it is.
type FilterError struct {
	Text string
	At   int // bytes from Text's start
	What string
}

func (e *FilterError) Error() string {
	column := len([]rune(e.Text[:e.At]))
	return fmt.Sprintf("filter: %s\n  %s\n  %s^", e.What, e.Text, strings.Repeat(" ", column))
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

func (p *filterParser) or() (func(*Line) bool, error) {
	if p.depth++; p.depth > 100 {
		return nil, p.mistake("too deep")
	}
	defer func() { p.depth-- }()
	left, err := p.and()
	for err == nil && p.word("or") {
		p.next()
		a := left
		var b func(*Line) bool
		b, err = p.and()
		left = func(l *Line) bool { return a(l) || b(l) }
	}
	return left, err
}

func (p *filterParser) and() (func(*Line) bool, error) {
	left, err := p.not()
	for err == nil && p.tok.kind != tokEnd && !p.word("or") && p.tok.text != ")" {
		if p.word("and") {
			p.next()
		}
		a := left
		var b func(*Line) bool
		b, err = p.not()
		left = func(l *Line) bool { return a(l) && b(l) }
	}
	return left, err
}

func (p *filterParser) not() (func(*Line) bool, error) {
	switch {
	case p.word("not") || p.tok.kind == tokOp && p.tok.text == "!":
		if p.depth++; p.depth > 100 {
			return nil, p.mistake("too deep")
		}
		defer func() { p.depth-- }()
		p.next()
		f, err := p.not()
		return func(l *Line) bool { return !f(l) }, err
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
func (p *filterParser) term() (func(*Line) bool, error) {
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

func bare(word string) func(*Line) bool {
	switch word {
	case "write":
		return func(l *Line) bool { return l.Write }
	case "read":
		return func(l *Line) bool { return !l.Write && (l.Kind == "io" || l.Kind == "mmio") }
	}
	if _, err := trace.ParseKind(word); err == nil {
		return func(l *Line) bool { return l.Kind == word }
	}
	return func(l *Line) bool {
		return l.Device == word || l.Source == word || strings.Contains(l.Text, word) || strings.Contains(l.Symbol, word)
	}
}

type fieldKind uint8

const (
	fieldText fieldKind = iota
	fieldNumber
	fieldDuration
)

var fieldKinds = map[string]fieldKind{"kind": fieldText, "device": fieldText, "source": fieldText, "queue": fieldText, "what": fieldText,
	"symbol": fieldText, "text": fieldText, "cpu": fieldNumber, "port": fieldNumber, "addr": fieldNumber, "value": fieldNumber,
	"size": fieldNumber, "rip": fieldNumber, "took": fieldDuration, "time": fieldDuration, "since": fieldDuration, "latency": fieldDuration}

// compare returns a comparison, or what is wrong with it.
func compare(field, op, value string) (f func(*Line) bool, what string) {
	kind, ok := fieldKinds[field]
	switch {
	case !ok:
		return nil, fmt.Sprintf("no field %q: kind, device, source, queue, what, symbol, text, cpu, port, addr, value, size, rip, took, time, since, latency", field)
	case kind == fieldText:
		return compareText(field, op, value)
	case op == "~":
		return nil, fmt.Sprintf("~ looks in texts, and %s is a number", field)
	}
	parse := parseNumber
	if kind == fieldDuration {
		parse = parseTime
	}
	low, high, ranged := strings.Cut(value, "..")
	a, err := parse(low)
	b := a
	if err == nil && ranged {
		b, err = parse(high)
	}
	if err != nil {
		return nil, err.Error()
	}
	if ranged && op != "=" && op != "==" && op != "!=" {
		return nil, "a range goes with = or !="
	}
	return compareNumber(field, op, a, b)
}

func parseNumber(s string) (uint64, error) {
	if len(s) == 1 && !unicode.IsDigit(rune(s[0])) {
		return uint64(s[0]), nil // a character
	}
	v, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return v, nil
}

func parseTime(s string) (uint64, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration such as 10us, 1.5ms or 2s", s)
	}
	return uint64(d), nil
}

func compareText(field, op, value string) (func(*Line) bool, string) {
	get := map[string]func(*Line) string{
		"kind": func(l *Line) string { return l.Kind }, "device": func(l *Line) string { return l.Device },
		"source": func(l *Line) string { return l.Source }, "queue": func(l *Line) string { return l.Queue },
		"what": func(l *Line) string { return l.What }, "symbol": func(l *Line) string { return l.Symbol }, "text": func(l *Line) string { return l.Text },
	}[field]
	if field == "kind" && op != "~" {
		if _, err := trace.ParseKind(value); err != nil {
			return nil, err.Error()
		}
	}
	switch op {
	case "=", "==":
		return func(l *Line) bool { return get(l) == value }, ""
	case "!=":
		return func(l *Line) bool { return get(l) != value }, ""
	case "~":
		return func(l *Line) bool { return strings.Contains(get(l), value) }, ""
	}
	return nil, fmt.Sprintf("%s compares numbers, and %s is a text: use =, != or ~", op, field)
}

func compareNumber(field, op string, a, b uint64) (func(*Line) bool, string) {
	get := map[string]func(*Line) (uint64, bool){
		"cpu":   func(l *Line) (uint64, bool) { return uint64(l.CPU), l.CPU >= 0 },
		"port":  func(l *Line) (uint64, bool) { return l.Addr, l.Kind == "io" },
		"addr":  func(l *Line) (uint64, bool) { return l.Addr, l.Kind == "mmio" || l.Kind == "io" },
		"value": func(l *Line) (uint64, bool) { return l.Value, true },
		"size":  func(l *Line) (uint64, bool) { return uint64(l.Size), true },
		"rip":   func(l *Line) (uint64, bool) { return l.RIP, l.RIP != 0 },
		"took":  func(l *Line) (uint64, bool) { return uint64(l.Took), true },
		"time":  func(l *Line) (uint64, bool) { return uint64(l.Time), true },
		"since": func(l *Line) (uint64, bool) { return uint64(l.Since), true }, "latency": func(l *Line) (uint64, bool) { return uint64(l.Latency), l.Latency != 0 },
	}[field]
	var test func(v uint64) bool
	switch op {
	case "=", "==":
		test = func(v uint64) bool { return v >= a && v <= b }
	case "!=":
		test = func(v uint64) bool { return v < a || v > b }
	case "<":
		test = func(v uint64) bool { return v < a }
	case "<=":
		test = func(v uint64) bool { return v <= a }
	case ">":
		test = func(v uint64) bool { return v > a }
	case ">=":
		test = func(v uint64) bool { return v >= a }
	default:
		return nil, fmt.Sprintf("no operator %q", op)
	}
	return func(l *Line) bool { v, ok := get(l); return ok && test(v) }, ""
}
