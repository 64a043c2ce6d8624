package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

const quit = syscall.SIGQUIT

// editor is the standard input of an interactive shell: a line at a time, the
// terminal raw only while a line is edited, so that programs find it as usual.
type editor struct {
	t         *term.Terminal // nil where standard input is no terminal
	continued bool           // the line continues a statement
	rest      string         // what of the last line was not handed out yet
}

type stdio struct{}

// Read takes one byte: what is typed ahead of a command belongs to the command.
func (stdio) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	n, err := os.Stdin.Read(p)
	if n == 1 && p[0] == '\n' {
		p[0] = '\r' // which is Enter to the line editor
	}
	return n, err
}

// makeRaw leaves Enter's translation on: a line that is typed before its
// program has started must have an end when the program reads it.
func makeRaw() (*term.State, error) {
	old, err := term.MakeRaw(0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err == nil {
		t.Iflag |= unix.ICRNL
		err = unix.IoctlSetTermios(0, unix.TCSETS, t)
	}
	if err != nil {
		return nil, errors.Join(err, term.Restore(0, old))
	}
	return old, nil
}

func (stdio) Write(p []byte) (int, error) { return os.Stdout.Write(p) }

func newEditor() *editor {
	if !term.IsTerminal(0) {
		return &editor{}
	}
	return &editor{t: term.NewTerminal(stdio{}, "")}
}

func (e *editor) prompt() string {
	if e.continued {
		return "> "
	}
	host, _ := os.Hostname()
	dir, _ := os.Getwd()
	if home := os.Getenv("HOME"); home != "" && (dir == home || strings.HasPrefix(dir, home+"/")) {
		dir = "~" + dir[len(home):]
	}
	sign := "# "
	if os.Getuid() != 0 {
		sign = "$ "
	}
	return host + ":" + dir + sign
}

func (e *editor) Read(p []byte) (int, error) {
	if e.rest == "" {
		line, err := e.line()
		if err != nil {
			return 0, err
		}
		e.rest = line + "\n"
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func (e *editor) line() (string, error) {
	if e.t == nil {
		os.Stdout.WriteString(e.prompt())
		return readLine()
	}
	old, err := makeRaw()
	if err != nil {
		return "", err
	}
	defer term.Restore(0, old)
	if w, h, err := term.GetSize(0); err == nil && w > 0 && h > 0 {
		_ = e.t.SetSize(w, h)
	}
	e.t.SetPrompt(e.prompt())
	return e.t.ReadLine()
}

// readLine reads no further than the line's end: what follows belongs to the
// commands.
func readLine() (string, error) {
	var line []byte
	var b [1]byte
	for {
		n, err := os.Stdin.Read(b[:])
		if n == 1 && b[0] == '\n' {
			return string(line), nil
		}
		if n == 1 {
			line = append(line, b[0])
		}
		if err != nil {
			if err == io.EOF && len(line) > 0 {
				return string(line), nil
			}
			return "", err
		}
	}
}
