package decode

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

type fieldKind uint8

const (
	fieldText fieldKind = iota
	fieldNumber
	fieldDuration
)

var fieldKinds = map[string]fieldKind{"kind": fieldText, "device": fieldText, "source": fieldText, "queue": fieldText, "what": fieldText,
	"symbol": fieldText, "text": fieldText, "cpu": fieldNumber, "port": fieldNumber, "addr": fieldNumber, "value": fieldNumber,
	"size": fieldNumber, "rip": fieldNumber, "cpl": fieldNumber, "mode": fieldText, "took": fieldDuration, "time": fieldDuration, "since": fieldDuration, "latency": fieldDuration}

// compare returns a comparison, or what is wrong with it.
func compare(field, op, value string) (f test, what string) {
	kind, ok := fieldKinds[field]
	switch {
	case !ok:
		return nil, fmt.Sprintf("no field %q: kind, device, source, queue, what, symbol, text, mode, cpu, port, addr, value, size, rip, cpl, took, time, since, latency", field)
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
	if a > b {
		return nil, "the range ends before it begins"
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

func compareText(field, op, value string) (test, string) {
	get := map[string]func(*Line) string{
		"kind": func(l *Line) string { return l.Kind }, "device": func(l *Line) string { return l.Device },
		"source": func(l *Line) string { return l.Source }, "queue": func(l *Line) string { return l.Queue },
		"what": func(l *Line) string { return l.What }, "symbol": func(l *Line) string { return l.Symbol }, "text": func(l *Line) string { return l.Text },
		"mode": func(l *Line) string { return l.mode() },
	}[field]
	if field == "kind" && op != "~" {
		if _, err := trace.ParseKind(value); err != nil {
			return nil, err.Error()
		}
	}
	if _, ok := x86.ParseMode(value); field == "mode" && op != "~" && !ok {
		return nil, fmt.Sprintf("no mode %q: real, vm86, protected, compat, long", value)
	}
	same := func(l *Line) bool { return get(l) == value }
	if field == "symbol" {
		same = func(l *Line) bool {
			function, _, _ := strings.Cut(l.Symbol, "+")
			return l.Symbol == value || function == value
		}
	}
	var holds func(l *Line) bool
	switch op {
	case "=", "==":
		holds = same
	case "!=":
		holds = func(l *Line) bool { return !same(l) }
	case "~":
		holds = func(l *Line) bool { return strings.Contains(get(l), value) }
	default:
		return nil, fmt.Sprintf("%s compares numbers, and %s is a text: use =, != or ~", op, field)
	}
	later := field == "what" || field == "text"
	return func(l *Line) verdict {
		if l.early && later || l.unnamed && field == "symbol" {
			return maybe
		}
		return verdictOf(holds(l))
	}, ""
}

// mode is an instruction's, "" of other lines.
func (l *Line) mode() string {
	if l.Instruction == nil {
		return ""
	}
	return l.Instruction.Mode
}

func compareNumber(field, op string, a, b uint64) (test, string) {
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
		"cpl": func(l *Line) (uint64, bool) {
			if l.Instruction == nil {
				return 0, false
			}
			return uint64(l.Instruction.CPL), true
		},
	}[field]
	var holds func(v uint64) bool
	switch op {
	case "=", "==":
		holds = func(v uint64) bool { return v >= a && v <= b }
	case "!=":
		holds = func(v uint64) bool { return v < a || v > b }
	case "<":
		holds = func(v uint64) bool { return v < a }
	case "<=":
		holds = func(v uint64) bool { return v <= a }
	case ">":
		holds = func(v uint64) bool { return v > a }
	case ">=":
		holds = func(v uint64) bool { return v >= a }
	default:
		return nil, fmt.Sprintf("no operator %q", op)
	}
	later := field == "value" || field == "size" || field == "time" || field == "since"
	return func(l *Line) verdict {
		if l.early && later {
			return maybe
		}
		v, ok := get(l)
		return verdictOf(ok && holds(v))
	}, ""
}
