package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

func init() { cli.FlagStringer = flagHelp }

// flagHelp is a flag's line in a help text, narrower than the library's: names
// with the placeholder once, a tab, the description.
func flagHelp(f cli.Flag) string {
	d, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	placeholder, usage := placeholderIn(d.GetUsage())
	var names []string
	for _, n := range f.Names() {
		dashes := "--"
		if len(n) == 1 {
			dashes = "-"
		}
		names = append(names, dashes+n)
	}
	line := strings.Join(names, ", ")
	if d.TakesValue() {
		if placeholder == "" {
			placeholder = "VALUE"
		}
		line += " " + placeholder
		if text := d.GetDefaultText(); text != "" && text != `""` {
			usage += " (default: " + strings.Trim(text, `"`) + ")"
		}
	}
	return line + "\t" + usage
}

// placeholderIn returns what stands between backquotes at the beginning of a
// usage text, and the rest.
func placeholderIn(usage string) (placeholder, rest string) {
	if t, ok := strings.CutPrefix(usage, "`"); ok {
		if placeholder, rest, ok = strings.Cut(t, "`"); ok {
			return placeholder, strings.TrimPrefix(rest, " ")
		}
	}
	return "", usage
}
