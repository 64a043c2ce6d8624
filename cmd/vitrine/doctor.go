package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/doctor"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:         "doctor",
		Usage:        "say what this host can do, and what to do about the rest",
		Description:  "Exit status 0 if a guest can run under KVM.",
		OnUsageError: onUsageError,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the findings as JSON"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return &usageError{fmt.Errorf("unexpected argument %q", c.Args().First()), "vitrine doctor takes none"}
			}
			report := doctor.Examine()
			if c.Bool("json") {
				enc := json.NewEncoder(c.App.Writer)
				enc.SetIndent("", "  ")
				if err := enc.Encode(report); err != nil {
					return err
				}
			} else {
				printReport(c.App.Writer, report)
			}
			if !report.CanRun {
				return exitStatus(statusFailure)
			}
			return nil
		},
	}
}

func printReport(w io.Writer, r doctor.Report) {
	mark := map[doctor.Status]string{doctor.OK: "ok  ", doctor.Warn: "warn", doctor.Fail: "FAIL"}
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%s  %-26s %s\n", mark[c.Status], c.Name, c.Found)
		if c.Advice != "" {
			fmt.Fprintf(w, "      → %s\n", c.Advice)
		}
	}
	verdict := "A guest can run here."
	if !r.CanRun {
		verdict = "No guest can run under KVM here."
	}
	fmt.Fprintf(w, "\n%s\n", verdict)
}
