package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/agent"
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
			if configured(&r, "tty") && r.Detached && len(r.Command) > 0 {
				a.resize = func(s agent.Size) { tellSize(c.Context, client, s) }
			}
			return a.run(inputElsewhere(&r))
		})
}

// inputElsewhere says why those who attach to a machine cannot type, or "".
func inputElsewhere(r *control.Record) string {
	switch {
	case !r.Detached:
		return "this machine's input is where it was started"
	case configured(r, "console"):
		return "--console has this machine's serial port"
	case len(r.Command) > 0 && !configured(r, "interactive") && !configured(r, "tty"):
		return "this machine's command has no standard input: start it with --interactive or --tty"
	}
	return ""
}

// attachment is a user at a machine's console.
type attachment struct {
	in     io.Reader
	out    io.Writer
	errOut io.Writer
	conn   io.ReadWriteCloser
	resize func(agent.Size) // tells the guest the size of this terminal; nil where that has none
}

// run returns when the user detaches or the console ends. watch, if not "",
// says why the user cannot type.
func (a *attachment) run(watch string) error {
	if watch != "" {
		fmt.Fprintln(a.errOut, "vitrine: you only watch: "+watch)
	}
	in := a.in
	if f, ok := asTerminal(in); ok {
		tty := newTerminal(f)
		if err := tty.MakeRaw(); err != nil {
			return err
		}
		defer tty.Close()
		in = &keys{r: in, help: a.out, detach: true}
		if a.resize != nil {
			stop := a.followSize(tty)
			defer stop()
		}
	}
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(a.out, a.conn)
		ended <- err
	}()
	go func() {
		var to io.Writer = a.conn
		if watch != "" {
			to = io.Discard
		}
		// The end of the input does not end the visit: a pipe's last words are
		// followed by the guest's answer.
		if _, err := io.Copy(to, in); errors.Is(err, errDetach) {
			ended <- nil
		}
	}()
	return <-ended
}

// followSize tells the guest the terminal's size, now and when it changes.
func (a *attachment) followSize(tty *terminal) (stop func()) {
	sizes, end := watchSize(tty)
	done := make(chan struct{})
	go func() {
		a.resize(tty.Size())
		for {
			select {
			case s := <-sizes:
				a.resize(s)
			case <-done:
				return
			}
		}
	}()
	return func() { end(); close(done) }
}

// consoleSize is the body of POST /v1/action/resize.
type consoleSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// tellSize is a courtesy: a machine that does not take it goes on all the same.
func tellSize(ctx context.Context, m *control.Client, s agent.Size) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = m.Action(ctx, "resize", consoleSize{s.Rows, s.Cols}, nil)
}

func init() { launchExtras = append(launchExtras, resizeExtra) }

// resizeExtra is the terminal's size of a command that has one in the
// background.
func resizeExtra(_ *vmm.Machine, l *launch) control.Extra {
	s, ok := l.session.(*agentSession)
	if !ok || s.size == nil {
		return control.Extra{}
	}
	resize := func(w http.ResponseWriter, r *http.Request) {
		var size consoleSize
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&size)
		if err != nil || size.Rows == 0 || size.Cols == 0 {
			http.Error(w, "want {\"rows\": N, \"cols\": N}", http.StatusBadRequest)
			return
		}
		s.resize(agent.Size{Rows: size.Rows, Cols: size.Cols})
		_ = json.NewEncoder(w).Encode(size)
	}
	return control.Extra{Action: map[string]http.Handler{"resize": http.HandlerFunc(resize)}}
}
