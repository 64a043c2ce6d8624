package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// givenFlags are the names of the flags that have been given a value. To ask
// c.IsSet for each of many flags takes a millisecond of a start: it looks for
// the flag's names with a regular expression among those of all flags.
func givenFlags(c *cli.Context) map[string]bool {
	given := make(map[string]bool)
	for _, name := range c.LocalFlagNames() {
		given[name] = true
	}
	return given
}

// optionText is the value of a flag that takes several settings, such as
// --disk: FILE,ro,id=data. A comma that belongs to a value is written twice.
type optionText struct {
	flag  string            // for messages
	text  string            // as given
	first string            // the part before the first comma
	rest  map[string]string // KEY=VALUE; a bare KEY has the value ""
}

// parseOptionText takes text apart. keys are the settings that there are, with
// "=" behind those that take a value. Where firstIsKey is set the first part
// may be one of them too.
func parseOptionText(flag, text string, keys []string, firstIsKey bool) (*optionText, error) {
	o := &optionText{flag: flag, text: text, rest: make(map[string]string)}
	parts := splitCommas(text)
	if !firstIsKey || !isSetting(parts[0], keys) {
		o.first = parts[0]
		parts = parts[1:]
	}
	for _, p := range parts {
		key, value, hasValue := strings.Cut(p, "=")
		name := key
		if hasValue {
			name += "="
		}
		if !slices.Contains(keys, name) {
			return nil, o.mistake("unknown setting "+quote(p), "known are "+listSettings(keys))
		}
		if _, twice := o.rest[key]; twice {
			return nil, o.mistake(quote(key)+" is set twice", "give it once")
		}
		if hasValue && value == "" {
			return nil, o.mistake(quote(key)+" has no value", "write "+key+"=VALUE, or leave it out")
		}
		o.rest[key] = value
	}
	return o, nil
}

func isSetting(s string, keys []string) bool {
	key, _, ok := strings.Cut(s, "=")
	return ok && slices.Contains(keys, key+"=")
}

// splitCommas cuts s at single commas; two are one that does not cut.
func splitCommas(s string) []string {
	parts := []string{""}
	last := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != ',':
			parts[last] += s[i : i+1]
		case i+1 < len(s) && s[i+1] == ',':
			parts[last] += ","
			i++
		default:
			parts = append(parts, "")
			last++
		}
	}
	return parts
}

func listSettings(keys []string) string {
	var b strings.Builder
	for i, k := range keys {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(k)
		if strings.HasSuffix(k, "=") {
			b.WriteString("…")
		}
	}
	return b.String()
}

// has says whether the bare key stands in the text.
func (o *optionText) has(key string) bool {
	_, ok := o.rest[key]
	return ok
}

// mistake is a usage error about the flag.
func (o *optionText) mistake(what, hint string) error {
	return usagef(hint, "%s %s: %s", o.flag, quote(o.text), what)
}

// usagef is a usage error with the next step for the user.
func usagef(hint, format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...), hint}
}

// quote sets off what the user typed.
func quote(s string) string { return fmt.Sprintf("%q", s) }

// oneOf checks that a flag's value is one of those that there are.
func oneOf(flag, value string, values ...string) error {
	if slices.Contains(values, value) {
		return nil
	}
	return usagef("use "+strings.Join(values[:len(values)-1], ", ")+" or "+values[len(values)-1], "%s %s: there is no such choice", flag, quote(value))
}
