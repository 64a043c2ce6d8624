package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vitrine-vmm/vitrine/docs/labs"
	"github.com/vitrine-vmm/vitrine/vmm/compare"
)

// Lab 10 is about a comparison: the learner reads numbers out of it, and the
// check says which reading does not hold.

// Where an answer file has its comparison from.
const (
	recording     = "recording" // the lab's own
	measureNow    = "measure"
	recordingFile = "10-containers/recording.json"
)

// The engines that every Linux host has.
const (
	enginePlain = "process"
	engineSoft  = "vitrine-soft"
)

// answers are the lines "key: value" of an answer file.
type answers map[string]string

// answerKeys are what is asked, in the order of the exercise.
func answerKeys() []string {
	return []string{"median " + enginePlain, "median " + engineSoft, "boot", "order", "tenth " + enginePlain, "tenth " + engineSoft}
}

func parseAnswers(text []byte) (answers, []string) {
	a := make(answers)
	var broken []string
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if strings.TrimSpace(line) == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		key = strings.Join(strings.Fields(key), " ")
		switch {
		case !ok || key != "data" && !slices.Contains(answerKeys(), key):
			broken = append(broken, fmt.Sprintf("line %d: %q is no answer: want data, %s, each with a colon behind it", n, strings.TrimSpace(line), strings.Join(answerKeys(), ", ")))
		case a[key] != "":
			broken = append(broken, fmt.Sprintf("line %d: %s is answered twice", n, key))
		default:
			a[key] = strings.TrimSpace(value)
		}
	}
	return a, broken
}

// data is the comparison that an answer file is about.
func (a answers) data(ctx context.Context, o Options) (*compare.Result, error) {
	switch name := a["data"]; name {
	case recording:
		b, err := labs.Files.ReadFile(recordingFile)
		if err != nil {
			return nil, err
		}
		return compare.Read(bytes.NewReader(b))
	case measureNow:
		if o.Compare == nil {
			return nil, errors.New("this program cannot measure: give data a file that vitrine compare --json wrote")
		}
		return o.Compare(ctx)
	case "":
		return nil, errors.New("the answers do not say what they are about: data: recording, or data: FILE with what vitrine compare --json wrote")
	default:
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("data: %w: measure one with vitrine compare --json %s", err, name)
		}
		defer f.Close()
		r, err := compare.Read(f)
		if err != nil {
			return nil, fmt.Errorf("data: %s: %w", name, err)
		}
		return r, nil
	}
}

// start is an engine's time from exec to the program's first act, and work how
// long the workload cpu takes in it.
type reading struct {
	name        string
	start, work compare.Summary
	mean        float64 // of the starts
}

func readings(r *compare.Result) (all []reading) {
	for i := range r.Engines {
		e := &r.Engines[i]
		if len(e.Start) == 0 {
			continue
		}
		sum := 0.0
		for _, v := range e.Start {
			sum += v
		}
		all = append(all, reading{e.Name, compare.Summarize(e.Start), compare.Summarize(e.Work["cpu"].Own), sum / float64(len(e.Start))})
	}
	return all
}

func find(all []reading, name string) *reading {
	for i := range all {
		if all[i].name == name {
			return &all[i]
		}
	}
	return nil
}

func ms(ns float64) string { return strconv.FormatFloat(ns/1e6, 'g', 4, 64) + " ms" }

// tenth is after how many turns of the workload the start is a tenth of all.
func (r *reading) tenth() float64 { return math.Ceil(9 * r.start.Median / r.work.Median) }

// judgeCompare is lab 10's check.
func judgeCompare(ctx context.Context, text []byte, o Options) ([]string, error) {
	a, broken := parseAnswers(text)
	if len(broken) > 0 {
		return broken, nil
	}
	if a["data"] == measureNow {
		return []string{"data: a comparison that is measured anew has new numbers: keep one with vitrine compare --json mine.json, and write data: mine.json"}, nil
	}
	r, err := a.data(ctx, o)
	if err != nil {
		return nil, err
	}
	all := readings(r)
	for _, name := range []string{enginePlain, engineSoft} {
		if e := find(all, name); e == nil || e.work.N == 0 {
			return nil, fmt.Errorf("data: %s was not measured with the workload cpu: vitrine compare --only process,vitrine-soft --workload cpu --json FILE", name)
		}
	}
	for _, key := range answerKeys() {
		if v := a[key]; v == "" || v == "?" {
			return append(broken, fmt.Sprintf("%s is not answered: the table is shown by vitrine compare --from FILE, or vitrine lab run 10 with your answers", key)), nil
		}
	}
	return append(a.judgeNumbers(all), a.judgeOrder(all)...), nil
}

// judgeNumbers looks at the answers that are one number.
func (a answers) judgeNumbers(all []reading) (broken []string) {
	say := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	plain, soft := find(all, enginePlain), find(all, engineSoft)
	for _, e := range []*reading{plain, soft} {
		key := "median " + e.name
		v, err := strconv.ParseFloat(a[key], 64)
		switch {
		case err != nil:
			say("%s: %q is no number of milliseconds", key, a[key])
		case near(v, e.start.Median/1e6):
		case near(v, e.mean/1e6):
			say("%s: %g ms is the mean of the starts: one slow start draws it away; the median, which half of the starts are below, is asked for", key, v)
		default:
			say("%s: half of the %d starts took less than %s, and not %g ms", key, e.start.N, ms(e.start.Median), v)
		}
		key = "tenth " + e.name
		n, err := strconv.ParseFloat(a[key], 64)
		switch {
		case err != nil || n < 0 || n != math.Trunc(n):
			say("%s: %q is no number of turns", key, a[key])
		case !near(n, e.tenth()):
			say("%s: after %g turns of %s the start of %s is %.1f %% of all, and not just below 10 %%", key, n, ms(e.work.Median), ms(e.start.Median),
				100*e.start.Median/(e.start.Median+n*e.work.Median))
		}
	}
	v, err := strconv.ParseFloat(a["boot"], 64)
	switch want := (soft.start.Median - plain.start.Median) / 1e6; {
	case err != nil:
		say("boot: %q is no number of milliseconds", a["boot"])
	case !near(v, want):
		say("boot: what %s takes longer to start than %s is %s, and not %g ms", engineSoft, enginePlain, ms(want*1e6), v)
	}
	return broken
}

// near allows for rounding to three digits.
func near(got, want float64) bool {
	return math.Abs(got-want) <= 0.01*math.Abs(want)+0.0005
}

// judgeOrder looks at the order of the engines' starts.
func (a answers) judgeOrder(all []reading) (broken []string) {
	say := func(format string, args ...any) { broken = append(broken, fmt.Sprintf(format, args...)) }
	words := strings.Fields(strings.NewReplacer("<", " < ", "=", " = ").Replace(a["order"]))
	var before *reading
	named := make(map[string]bool)
	for i, w := range words {
		if i%2 == 1 {
			if w != "<" && w != "=" {
				say("order: %q between two engines: want < or =", w)
			}
			continue
		}
		e := find(all, w)
		if e == nil || named[w] {
			say("order: %q is not in the data, or twice in the order", w)
			return broken
		}
		named[w] = true
		if before != nil {
			if s := pairTrouble(before, e, words[i-1]); s != "" {
				say("order: %s", s)
			}
		}
		before = e
	}
	for _, e := range all {
		if !named[e.name] {
			say("order: %s is missing: an order of those that suit one's view is none", e.name)
		}
	}
	return broken
}

// pairTrouble says what is wrong with a stated order of two engines.
func pairTrouble(a, b *reading, sign string) string {
	overlap := a.start.High >= b.start.Low && b.start.High >= a.start.Low
	interval := func(e *reading) string {
		return fmt.Sprintf("%s [%s to %s]", e.name, ms(e.start.Low), ms(e.start.High))
	}
	switch {
	case sign == "<" && overlap:
		return fmt.Sprintf("the intervals of %s and %s overlap: these runs do not tell which is quicker, so write =", interval(a), interval(b))
	case a.start.Median > b.start.Median:
		return fmt.Sprintf("%s stands before %s, and its median is larger: %s against %s", a.name, b.name, ms(a.start.Median), ms(b.start.Median))
	case sign == "=" && !overlap:
		return fmt.Sprintf("the intervals of %s and %s do not overlap: the second is slower, so write <", interval(a), interval(b))
	}
	return ""
}

// runCompare shows the comparison that an answer file is about.
func runCompare(ctx context.Context, text []byte, o Options, w io.Writer) error {
	a, broken := parseAnswers(text)
	if len(broken) > 0 {
		return errors.New(strings.Join(broken, "\n"))
	}
	r, err := a.data(ctx, o)
	if err != nil {
		return err
	}
	if err := compare.WriteTable(w, r, "en"); err != nil {
		return err
	}
	all := readings(r)
	plain := find(all, enginePlain)
	if plain == nil {
		return nil
	}
	fmt.Fprintf(w, "\n%-16s %14s %20s\n", "", "start", "times a process's")
	for _, e := range all {
		fmt.Fprintf(w, "%-16s %14s %20.1f\n", e.name, ms(e.start.Median), e.start.Median/plain.start.Median)
	}
	return nil
}
