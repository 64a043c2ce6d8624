package compare

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// row is an engine in numbers, as text.
type row struct{ cells []string }

// rows are the table of a comparison: its heading, and a row for each engine.
func rows(r *Result, w *words) []row {
	head := []string{w.engine, w.runs, w.start, w.exit}
	for _, l := range r.Options.Workloads {
		head = append(head, w.workload[l])
	}
	all := []row{{append(head, w.memory, w.disk)}}
	for _, e := range r.Engines {
		c := []string{e.Title, fmt.Sprint(len(e.Start)), interval(e.Start), interval(e.Exit)}
		for _, l := range r.Options.Workloads {
			c = append(c, interval(e.Times(l)))
		}
		memory := "–"
		if len(e.Scale) > 0 {
			memory = bytesText(uint64(perInstance(e.Scale[0])))
			if d := e.Scale[0].Memory.Daemons; d > 0 {
				memory += " (+ " + bytesText(d) + ")"
			}
		}
		var disk int64
		for _, d := range e.Disk {
			disk += d.Bytes
		}
		all = append(all, row{append(c, memory, bytesText(uint64(disk)))})
	}
	return all
}

// interval is a median with its confidence interval.
func interval(x []float64) string {
	if len(x) == 0 {
		return "–"
	}
	s := Summarize(x)
	text := duration(s.Median)
	if s.N > 1 {
		text += fmt.Sprintf(" [%s–%s]", bare(s.Low, s.Median), bare(s.High, s.Median))
	}
	if s.Outliers > 0 {
		text += fmt.Sprintf(" %d*", s.Outliers)
	}
	return text
}

// unitOf is the unit that suits ns nanoseconds.
func unitOf(ns float64) (string, float64) {
	switch {
	case ns >= 1e9:
		return "s", 1e9
	case ns >= 1e6:
		return "ms", 1e6
	}
	return "µs", 1e3
}

// duration is three digits with a unit.
func duration(ns float64) string {
	unit, _ := unitOf(ns)
	return bare(ns, ns) + " " + unit
}

// bare is ns without a unit: in the one that suits like.
func bare(ns, like float64) string {
	_, div := unitOf(like)
	v := ns / div
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func bytesText(n uint64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	if n < 10<<20 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}

// WriteTable prints the comparison as text.
func WriteTable(out io.Writer, r *Result, lang string) error {
	w := wordsOf(lang)
	var b strings.Builder
	all := rows(r, w)
	widths := make([]int, len(all[0].cells))
	for _, l := range all {
		for i, c := range l.cells {
			widths[i] = max(widths[i], cellWidth(c))
		}
	}
	for _, l := range all {
		var line strings.Builder
		for i, c := range l.cells {
			line.WriteString(c + strings.Repeat(" ", widths[i]-cellWidth(c)+2))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	b.WriteString("\n" + w.note + "\n")
	for _, e := range r.Engines {
		for _, f := range e.Failures {
			fmt.Fprintf(&b, "%s: %s\n", e.Name, f)
		}
	}
	for _, x := range r.Warnings {
		fmt.Fprintf(&b, "! %s\n", x)
	}
	if len(r.Skipped) > 0 {
		fmt.Fprintf(&b, "\n%s:\n", w.skipped)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "  %-17s %s\n", s.Engine, s.Reason)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// cellWidth is the width of s on a terminal: Hangul takes two columns.
func cellWidth(s string) int {
	n := 0
	for _, r := range s {
		n++
		if unicode.Is(unicode.Hangul, r) {
			n++
		}
	}
	return n
}
