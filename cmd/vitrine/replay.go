package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	player "github.com/vitrine-vmm/vitrine/vmm/record"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/trace/decode"
)

func replayCommand() *cli.Command {
	return &cli.Command{
		Name: "replay", ArgsUsage: "FILE", OnUsageError: onUsageError,
		Usage: "step through a recording, forwards and back, without KVM: its devices and, of a deterministic run, its CPUs and memory",
		Description: "Without flags it takes commands: h lists them. With --list, --check or --at it does\n" +
			"that and ends. A recording can be replayed on any machine.",
		Flags: append(viewFlags(),
			&cli.BoolFlag{Name: "list", Usage: "list the events as vitrine trace does; the flags of trace apply"},
			&cli.BoolFlag{Name: "check", Usage: "play everything and compare: what was read, and how the devices ended"},
			&cli.StringFlag{Name: "at", Usage: "`WHEN` a number of events or a time such as 1.5s: print the devices' states then"},
			&cli.StringFlag{Name: "device", Usage: "`NAME` of the device whose state is printed (default: all)"},
		),
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("vitrine replay FILE", "replay takes one recording")
			}
			v, err := parseView(c)
			if err != nil {
				return err
			}
			path := c.Args().First()
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			if c.Bool("list") || v.counts || v.json || v.why || v.perfetto != "" || v.pcap != "" {
				return listRecording(c, f, v)
			}
			p, err := player.Open(f)
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			defer p.Close()
			return replay(c, p, v)
		},
	}
}

// listRecording shows a recording as vitrine trace shows a machine.
func listRecording(c *cli.Context, f io.Reader, v *view) error {
	s, err := trace.NewStreamReader(f)
	if err != nil {
		return err
	}
	sink, err := v.open(&s.Meta, c.App.Writer, nil)
	if err != nil {
		return err
	}
	return passOn(s, sink)
}

func replay(c *cli.Context, p *player.Player, v *view) error {
	s := &replaySession{p: p, out: c.App.Writer, view: v, ctx: c.Context}
	defer s.close()
	at := c.String("at")
	switch {
	case c.Bool("check"):
		return s.check()
	case at != "":
		n, err := s.parseAt(at)
		if err != nil {
			return usagef("a number of events, or a duration", "--at: %w", err)
		}
		if err := p.Go(n); err != nil {
			return err
		}
		return s.states(c.String("device"))
	}
	return s.interact(c.App.Reader)
}

func (s *replaySession) close() {
	if s.travel != nil && s.travel.t != nil {
		_ = s.travel.t.Close() // what is left is in the folder for temporary files
	}
}

// replaySession is a user who steps through a recording.
type replaySession struct {
	p     *player.Player
	out   io.Writer
	view  *view
	lines []decode.Line // of all items, made when first wanted
	// travel is the recording's machine, executed again, once it is wanted.
	travel *traveller
	ctx    context.Context
}

// line is item i in words. Selectors matter, so that all before it are decoded
// too.
func (s *replaySession) line(i int) *decode.Line {
	if s.lines == nil {
		d := decode.New(s.p.Meta, s.view.symbols)
		for i := range s.p.Items {
			s.lines = append(s.lines, d.Line(&s.p.Items[i]))
		}
	}
	return &s.lines[i]
}

// parseAt is a number of items, or the number of those before a time.
func (s *replaySession) parseAt(text string) (int, error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return n, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%s is neither a number of events nor a duration", quote(text))
	}
	n := 0
	for n < len(s.p.Items) && s.p.Items[n].Time <= d {
		n++
	}
	return n, nil
}

var errDiverged = errors.New("the devices, played again, did something else: see above")

// check plays everything and compares.
func (s *replaySession) check() error {
	if err := s.p.Go(len(s.p.Items)); err != nil {
		return err
	}
	diff := s.p.Differences()
	for i, d := range diff {
		if i == 20 {
			fmt.Fprintf(s.out, "… and %d more\n", len(diff)-i)
			break
		}
		fmt.Fprintf(s.out, "event %d: %s; played again: %#x\n", d.Item, s.line(d.Item).Text, d.Played)
	}
	differ, err := s.p.Check()
	if err != nil {
		return err
	}
	for _, name := range differ {
		now, err := s.p.State(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s ended otherwise:\n  recorded %s\n  played   %s\n", name, s.p.End.States[name], now)
	}
	fmt.Fprintf(s.out, "%d events, %d devices: %d reads and %d devices differ\n", len(s.p.Items), len(s.p.Devices()), len(diff), len(differ))
	if len(diff)+len(differ) > 0 {
		return errDiverged
	}
	if s.p.End != nil && s.p.End.Run != nil {
		return s.executeAgain(s.ctx)
	}
	return nil
}

// states prints the state of a device, or of all.
func (s *replaySession) states(name string) error {
	names := []string{name}
	if name == "" {
		names = s.p.Devices()
	}
	for _, n := range names {
		b, err := s.p.State(n)
		if err != nil {
			return err
		}
		var indented bytes.Buffer
		if err := json.Indent(&indented, b, "  ", "  "); err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s after %d events:\n  %s\n", n, s.p.At(), indented.String())
	}
	return nil
}

const replayHelp = `n [N]       play the next event, or N of them
b [N]       go back one event, or N
g WHEN      go to an event's number, or to a time such as 1.5s
f FILTER    go to the next event that the filter wants (docs/trace.md)
l [N]       list the next N events, without playing them
s [DEVICE]  print a device's state, or all
d           list the devices
q           end
Of a recording made with --deterministic, the machine itself:
w           where it is: instruction, time, what its CPUs execute next
i [N]       execute the next instruction, or N of them
ib [N]      go back one instruction, or N
gi N        go to instruction N
x VIEW [ADDRESS] [cpu=N]
            look into it: cpu, disasm, memory, pagetable… as vitrine inspect
v DISK SECTOR
            what a disk has there, such as v vda 0
`

// interact takes commands.
func (s *replaySession) interact(in io.Reader) error {
	fmt.Fprintf(s.out, "%d events, %d devices: %s. h for help\n", len(s.p.Items), len(s.p.Devices()), strings.Join(s.p.Devices(), ", "))
	sc := bufio.NewScanner(in)
	for {
		fmt.Fprintf(s.out, "%d> ", s.p.At())
		if !sc.Scan() {
			fmt.Fprintln(s.out)
			return sc.Err()
		}
		cmd, arg, _ := strings.Cut(strings.TrimSpace(sc.Text()), " ")
		if cmd == "q" {
			return nil
		}
		if err := s.command(cmd, strings.TrimSpace(arg)); err != nil {
			fmt.Fprintf(s.out, "%v\n", err)
		}
	}
}

func (s *replaySession) command(cmd, arg string) error {
	switch cmd {
	case "n", "b", "l":
		n := 1
		if arg != "" {
			var err error
			if n, err = strconv.Atoi(arg); err != nil || n < 0 {
				return fmt.Errorf("%s is not a number of events", quote(arg))
			}
		}
		return s.step(cmd, min(n, len(s.p.Items)))
	case "g":
		n, err := s.parseAt(arg)
		if err != nil {
			return err
		}
		return s.p.Go(n)
	case "f":
		return s.find(arg)
	case "s":
		return s.states(arg)
	case "w":
		return s.where(s.ctx)
	case "i", "ib", "gi":
		return s.goInstruction(s.ctx, cmd, arg)
	case "x":
		return s.look(s.ctx, arg)
	case "v":
		return s.lookAtDisk(s.ctx, arg)
	case "d":
		fmt.Fprintln(s.out, strings.Join(s.p.Devices(), "\n"))
	case "", "h":
		fmt.Fprint(s.out, replayHelp)
	default:
		return fmt.Errorf("no command %s: h lists them", quote(cmd))
	}
	return nil
}

func (s *replaySession) step(cmd string, n int) error {
	from := s.p.At()
	if cmd == "b" {
		return s.p.Go(from - n)
	}
	for i := from; i < min(from+n, len(s.p.Items)); i++ {
		fmt.Fprintf(s.out, "%6d %s\n", i, s.line(i))
	}
	if cmd == "l" {
		return nil
	}
	return s.p.Go(from + n)
}

func (s *replaySession) find(text string) error {
	f, err := decode.ParseFilter(text)
	if err != nil {
		return err
	}
	for i := s.p.At(); i < len(s.p.Items); i++ {
		if f.Match(s.line(i)) {
			fmt.Fprintf(s.out, "%6d %s\n", i, s.line(i))
			return s.p.Go(i + 1)
		}
	}
	return errors.New("no more of them")
}
