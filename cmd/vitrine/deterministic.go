package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
)

// A deterministic run has nothing that speaks to the guest when it likes: no
// network, no agent. A command is typed at the embedded guest's serial port,
// by a machine that types when the guest reads (vmm.Config.Deterministic), and
// what it writes is found between two marks.

// parseDeterministic refuses what brings something from outside into the guest.
func (o *runOptions) parseDeterministic(c *cli.Context) error {
	o.deterministic = c.Bool("deterministic")
	if !o.deterministic {
		return nil
	}
	const why = "--deterministic: %s brings into the guest what is another each time"
	switch {
	case o.accel == string(vmm.AccelKVM):
		return usagef("leave out --accel", "--deterministic: only the software CPU counts its instructions")
	case o.notify == vmm.NotifyExit:
		return usagef("leave out --notify", "--deterministic: CPUs wait for devices at their doorbells, which --notify exit takes away")
	case c.IsSet("net") && len(o.nets) > 0:
		return usagef("use --net none, or leave it out", why, "--net")
	case len(o.publish) > 0:
		return usagef("leave it out", why, "--publish")
	case o.detach:
		return usagef("leave one out", why, "what is typed at a --detach machine")
	case o.gdb != "":
		return usagef("leave one out", why, "a debugger")
	case o.warm:
		return usagef("leave one out", why, "a machine that is --warm")
	case o.vsock != "" || len(o.shares) > 0 || o.balloon:
		return usagef("leave it out; a --disk can be there", why, "--vsock, --share or --balloon")
	case o.command == nil && isTerminalInput(c.App.Reader):
		return usagef("give it a file as standard input, or a command after --", why, "a person at a terminal")
	}
	for _, d := range o.disks {
		if d.Format == "qcow2" || d.IOPS != 0 || d.BPS != 0 {
			return usagef("use a raw file without limits", why, "the time that --disk "+d.Path+" takes")
		}
	}
	o.accel, o.nets = string(vmm.AccelSoft), nil
	return nil
}

func isTerminalInput(r io.Reader) bool {
	_, ok := asTerminal(r)
	return ok
}

// fixedRandom is the entropy device's source: the same bits each time.
func fixedRandom() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{'v', 'i', 't', 'r', 'i', 'n', 'e'}) }

// Marks around a command's output on the console. The line that is typed has
// them in pieces, so that its echo is none.
const (
	beginMark = "\x1dvitrine-begin\r\n"
	endMark   = "\x1dvitrine-end "
)

// recordedLine is what is typed to run a command.
func recordedLine(command []string) string {
	words := make([]string, len(command))
	for i, w := range command {
		words[i] = shellWord(w)
	}
	return `printf '\035vitrine-%s\n' begin; ( ` + strings.Join(words, " ") + ` ); printf '\035vitrine-%s %d\n' end $?; exit` + "\n"
}

// openRecorded gives the embedded guest's console its input: the command, or
// all of standard input.
func (l *launch) openRecorded(o *runOptions, r *runner) error {
	if o.command == nil {
		b, err := io.ReadAll(r.in.attach())
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		l.cfg.Console = vmm.Serial{In: bytes.NewReader(append(b, "\nexit\n"...)), Out: r.heard(r.out)}
		l.session = unattended{}
		return nil
	}
	line := recordedLine(o.command)
	if len(line) > 4000 {
		return usagef("put it into a file on a --disk", "--deterministic: a command of %d characters is longer than a terminal's line", len(line))
	}
	s := &recordedSession{out: r.out}
	l.cfg.Console = vmm.Serial{In: strings.NewReader(line), Out: r.heard(s)}
	if o.console != "" && o.console != "none" && o.console != "stdio" {
		f, err := os.OpenFile(o.console, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("--console: %w: choose a file that you may write to", err)
		}
		l.onClose(f.Close)
		l.cfg.Console.Out = r.heard(io.MultiWriter(s, f))
	}
	l.session = s
	return nil
}

// recordedSession passes on what the command writes, and its exit status.
type recordedSession struct {
	out io.Writer

	mu     sync.Mutex
	held   []byte // not yet known to be output
	begun  bool
	status []byte // behind the end mark
	over   bool
}

// Write takes what the guest's console says.
func (s *recordedSession) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range p {
		if err := s.take(b); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (s *recordedSession) take(b byte) error {
	switch {
	case s.over:
	case s.status != nil && b == '\n':
		s.over = true
	case s.status != nil:
		if len(s.status) < 8 {
			s.status = append(s.status, b)
		}
	default:
		return s.look(b)
	}
	return nil
}

// look looks for the mark that comes next, and passes on what is none.
func (s *recordedSession) look(b byte) error {
	mark := beginMark
	if s.begun {
		mark = endMark
	}
	s.held = append(s.held, b)
	if string(s.held) == mark {
		s.held = s.held[:0]
		if s.begun {
			s.status = make([]byte, 0, 8)
		}
		s.begun = true
		return nil
	}
	if strings.HasPrefix(mark, string(s.held)) {
		return nil
	}
	return s.pass()
}

// pass gives what is held to the user: the guest's terminal has put a carriage
// return before each line feed.
func (s *recordedSession) pass() error {
	held := s.held
	s.held = nil
	if !s.begun {
		return nil
	}
	if n := len(held); n > 0 && (held[n-1] == '\r' || held[n-1] == endMark[0] && n > 1) {
		s.held = append(s.held, held[n-1])
		held = held[:n-1]
	}
	held = bytes.ReplaceAll(held, []byte("\r\n"), []byte("\n"))
	_, err := s.out.Write(held)
	return err
}

// serve implements session: the guest turns itself off when the command has
// ended.
func (s *recordedSession) serve(ctx context.Context, _ *vmm.Machine) error {
	<-ctx.Done()
	return nil
}

func (s *recordedSession) turnOff(context.Context) bool { return false }

var errNoCommandEnd = errors.New("the guest ended before its command did")

// result is what the command ended with, after the guest has.
func (s *recordedSession) result() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := strconv.Atoi(strings.TrimSpace(string(s.status)))
	switch {
	case !s.over || err != nil:
		return errNoCommandEnd
	case n != 0:
		return exitStatus(n)
	}
	return nil
}
