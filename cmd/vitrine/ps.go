package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func psCommand() *cli.Command {
	return &cli.Command{
		Name: "ps", Usage: "list machines", OnUsageError: onUsageError,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "also those that have ended, and how"},
			&cli.BoolFlag{Name: "json", Usage: "print the records as JSON"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print the names alone"},
			stateFlag(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("vitrine inspect NAME shows one machine", "ps takes no names")
			}
			dir, err := openState(c)
			if err != nil {
				return err
			}
			// Records alone are read, and no machine is asked: one that hangs
			// is in the list like any other.
			list, err := dir.List()
			if err != nil {
				return err
			}
			if !c.Bool("all") {
				list = slices.DeleteFunc(list, func(r control.Record) bool { return !r.Alive() })
			}
			switch {
			case c.Bool("json"):
				return writeJSON(c.App.Writer, append([]control.Record{}, list...))
			case c.Bool("quiet"):
				for _, r := range list {
					fmt.Fprintln(c.App.Writer, r.Name)
				}
				return nil
			}
			return printMachines(c.App.Writer, list, time.Now())
		},
	}
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func printMachines(w io.Writer, list []control.Record, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tPID\tCPUS\tMEMORY\tAGE\tRUNS")
	for _, r := range list {
		pid := "-"
		if r.Alive() {
			pid = fmt.Sprint(r.PID)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", r.Name, stateText(&r), pid, r.CPUs, formatSize(r.Memory), ago(now.Sub(r.Created)), whatRuns(&r))
	}
	return t.Flush()
}

// stateText is a machine's state and, of one that has ended, how it ended.
func stateText(r *control.Record) string {
	switch {
	case r.State == control.StateExited && r.ExitStatus != nil:
		return fmt.Sprintf("exited (%d)", *r.ExitStatus)
	case r.State == control.StateDead:
		return "dead: " + r.Reason
	}
	return string(r.State)
}

// whatRuns is a machine's command, or its kernel.
func whatRuns(r *control.Record) string {
	text := "kernel " + r.Kernel
	if len(r.Command) > 0 {
		words := make([]string, len(r.Command))
		for i, w := range r.Command {
			words[i] = shellWord(w)
		}
		text = strings.Join(words, " ")
	}
	const widest = 40
	if short := []rune(text); len(short) > widest {
		return string(short[:widest-1]) + "…"
	}
	return text
}

// ago writes a span of time in its largest unit.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
