package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func attachCommand() *cli.Command {
	return machineCommand("attach", "NAME", "join a machine's console; Ctrl-A d leaves it",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			name, err := exactlyOne(c, names)
			if err != nil {
				return err
			}
			client, err := dir.Client(name)
			if err != nil {
				return err
			}
			r, err := dir.Find(name)
			if err != nil {
				return err
			}
			conn, err := client.Console(c.Context)
			if err != nil {
				return err
			}
			defer conn.Close()
			a := &attachment{in: c.App.Reader, out: c.App.Writer, errOut: c.App.ErrWriter, conn: conn}
			return a.run(r.Detached && len(r.Command) == 0)
		})
}

// attachment is a user at a machine's console.
type attachment struct {
	in     io.Reader
	out    io.Writer
	errOut io.Writer
	conn   io.ReadWriteCloser
}

// run returns when the user detaches or the console ends. A machine that has a
// terminal of its own, or runs a command, takes no input from others.
func (a *attachment) run(input bool) error {
	if !input {
		fmt.Fprintln(a.errOut, "vitrine: you only watch: this machine's input is elsewhere")
	}
	in := a.in
	if f, ok := asTerminal(in); ok {
		tty := newTerminal(f)
		if err := tty.MakeRaw(); err != nil {
			return err
		}
		defer tty.Close()
		in = &keys{r: in, help: a.out, detach: true}
	}
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(a.out, a.conn)
		ended <- err
	}()
	go func() {
		var to io.Writer = a.conn
		if !input {
			to = io.Discard
		}
		// The end of the input does not end the visit: a pipe's last words are
		// followed by the guest's answer.
		if _, err := io.Copy(to, in); errors.Is(err, errDetach) || errors.Is(err, errEnd) {
			ended <- nil
		}
	}()
	return <-ended
}
