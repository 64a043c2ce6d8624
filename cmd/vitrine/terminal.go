package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"

	"golang.org/x/term"

	"github.com/vitrine-vmm/vitrine/vmm/agent"
)

// terminal is the user's terminal. In raw mode every key is the guest's, but
// for the few that are for vitrine.
type terminal struct {
	in *os.File

	mu    sync.Mutex
	state *term.State // before raw mode; nil outside it
	guard *guard
}

// asTerminal returns in as a file if it is a terminal.
func asTerminal(in io.Reader) (*os.File, bool) {
	f, ok := in.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if o, wrapped := out.(*outlet); wrapped {
		f, ok = o.file, o.file != nil
	}
	return ok && term.IsTerminal(int(f.Fd()))
}

func newTerminal(in *os.File) *terminal { return &terminal{in: in} }

// MakeRaw puts the terminal into raw mode. Close takes it back; should the
// process die before, the guard does.
func (t *terminal) MakeRaw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != nil {
		return nil
	}
	g := startGuard(t.in)
	state, err := term.MakeRaw(int(t.in.Fd()))
	if err != nil {
		g.dismiss()
		return fmt.Errorf("terminal: %w", err)
	}
	t.state, t.guard = state, g
	return nil
}

// Raw says whether the terminal is in raw mode.
func (t *terminal) Raw() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state != nil
}

// Close restores the terminal. It may be called at any time, and more than
// once.
func (t *terminal) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == nil {
		return
	}
	_ = term.Restore(int(t.in.Fd()), t.state)
	t.guard.dismiss()
	t.state, t.guard = nil, nil
}

// usualSize is a terminal's that does not say.
var usualSize = agent.Size{Rows: 24, Cols: 80}

// Size is the terminal's size in characters; 80×24 where it does not say.
func (t *terminal) Size() agent.Size {
	c, r, err := term.GetSize(int(t.in.Fd()))
	if err != nil || c <= 0 || r <= 0 || c > math.MaxUint16 || r > math.MaxUint16 {
		return usualSize
	}
	return agent.Size{Rows: uint16(r), Cols: uint16(c)}
}

// Keys after Ctrl-A, as in QEMU and screen.
const (
	keyEscape = 'A' & 0x1f
	keyEnd    = 'x'
	keyDetach = 'd'
	keyHelp   = 'h'
)

const (
	keyHelpText    = "\r\nCtrl-A x ends the guest · Ctrl-A Ctrl-A sends Ctrl-A · Ctrl-A h shows this\r\n"
	keyHelpVisitor = "\r\nCtrl-A d leaves the machine · Ctrl-A Ctrl-A sends Ctrl-A · Ctrl-A h shows this\r\n"
)

// errEnd and errDetach are what a read of the keys ends with when the user
// asked to end the guest or to leave it.
var (
	errEnd    = errors.New("ended by Ctrl-A x")
	errDetach = errors.New("detached by Ctrl-A d")
)

// keys filters the escape sequences out of what is typed.
type keys struct {
	r       io.Reader
	help    io.Writer
	detach  bool // the user is a visitor, who leaves the guest instead of ending it
	escaped bool
	pending error
}

func (k *keys) Read(p []byte) (int, error) {
	for {
		if k.pending != nil {
			return 0, k.pending
		}
		n, err := k.r.Read(p)
		k.pending = err
		out := p[:0]
		for i := 0; i < n; i++ {
			b := p[i]
			if !k.escaped {
				if k.escaped = b == keyEscape; !k.escaped {
					out = append(out, b)
				}
				continue
			}
			k.escaped = false
			switch {
			case b == keyEnd && !k.detach:
				k.pending = errEnd
				return len(out), nil
			case b == keyDetach && k.detach:
				k.pending = errDetach
				return len(out), nil
			case b == keyHelp && k.detach:
				_, _ = io.WriteString(k.help, keyHelpVisitor)
			case b == keyHelp:
				_, _ = io.WriteString(k.help, keyHelpText)
			case b == keyEscape:
				out = append(out, b)
				// Any other key after Ctrl-A means nothing, as in screen.
			}
		}
		if len(out) > 0 {
			return len(out), nil
		}
	}
}
