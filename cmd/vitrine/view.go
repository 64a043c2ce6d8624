package main

import (
	"errors"
	"fmt"
	"net"

	"github.com/urfave/cli/v2"

	web "github.com/vitrine-vmm/vitrine/cmd/internal/view"
	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/symbols"
)

func viewCommand() *cli.Command {
	return machineCommand("view", "[NAME…]", "show machines live in a browser: counters, events, memory, registers, console",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			for _, n := range names {
				if _, err := dir.Find(n); err != nil {
					return err
				}
			}
			o := web.Options{Dir: dir, Names: names}
			if path := c.String("symbols"); path != "" {
				if _, err := symbolsFor(c, "", path); err != nil {
					return err
				}
			}
			o.Symbols = func(machine string) *symbols.Table {
				t, err := symbolsFor(c, machine, c.String("symbols"))
				if err != nil {
					return nil // a kernel that does not tell: addresses stay numbers
				}
				return t
			}
			s, err := web.Listen(c.String("listen"), o)
			var taken *net.OpError
			switch {
			case errors.As(err, &taken):
				return fmt.Errorf("--listen: %w: choose another address", err)
			case err != nil:
				return usagef("use --listen 127.0.0.1:0", "--listen %w", err)
			}
			first := ""
			if len(names) == 1 {
				first = names[0]
			}
			if !s.Loopback() {
				fmt.Fprintln(c.App.ErrWriter, "vitrine: other hosts can reach this address, and what passes is not encrypted: whoever reads the token can type at the consoles")
			}
			fmt.Fprintln(c.App.Writer, s.URL(first))
			fmt.Fprintln(c.App.ErrWriter, "vitrine: open this address in a browser of yours, and give it to nobody: it is a key. Ctrl-C ends the view; the machines run on.")
			sig := catchSignals(c.Context)
			defer sig.stop()
			return s.Serve(sig.first)
		},
		&cli.StringFlag{Name: "listen", Value: "127.0.0.1:0", Usage: "`HOST:PORT` to serve at; port 0 is any that is free"},
		&cli.StringFlag{Name: "symbols", Usage: "`FILE` that names the guest kernel's functions: its vmlinux or System.map (default: the kernel itself, where it does)"})
}
