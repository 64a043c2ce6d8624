package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// inspectViews are what can be inspected of a running machine, by name. Each
// gets the arguments that follow its name.
var inspectViews = map[string]func(c *cli.Context, m *control.Client, args []string) error{}

func inspectCommand() *cli.Command {
	return &cli.Command{
		Name: "inspect", ArgsUsage: "NAME [WHAT [ARGUMENT…]]", OnUsageError: onUsageError,
		Usage:        "show a machine's record and configuration, or look into it",
		Flags:        append([]cli.Flag{stateFlag()}, inspectFlags...),
		BashComplete: completeNames,
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return usagef("vitrine ps lists them", "inspect: want the name of a machine")
			}
			dir, err := openState(c)
			if err != nil {
				return err
			}
			name, args := c.Args().First(), c.Args().Tail()
			if len(args) == 0 {
				r, err := dir.Find(name)
				if err != nil {
					return err
				}
				return writeJSON(c.App.Writer, r)
			}
			view, ok := inspectViews[args[0]]
			if !ok {
				return usagef("there is "+strings.Join(slices.Sorted(maps.Keys(inspectViews)), ", "), "inspect %s: no view %q", name, args[0])
			}
			client, err := dir.Client(name)
			if err != nil {
				return err
			}
			return view(c, client, args[1:])
		},
	}
}

// inspectFlags are flags of the views.
var inspectFlags []cli.Flag
