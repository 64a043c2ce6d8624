// Command sh is the default guest's shell: mvdan.cc/sh with line editing, and
// the commonest commands in the shell's own process, because starting a
// program is dear where guest kernels are emulated.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

// options are what the command line asked for.
type options struct {
	set         []string // -e, -x, -u, … as interp.Params takes them
	command     string
	hasCommand  bool
	interactive bool
	script      string
	params      []string
}

func parse(args []string) (o options, err error) {
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		word := args[0]
		args = args[1:]
		if word == "--" {
			break
		}
		for _, c := range word[1:] {
			switch c {
			case 'c':
				o.hasCommand = true
			case 'i':
				o.interactive = true
			case 'l', 's':
			default:
				o.set = append(o.set, word[:1]+string(c))
			}
		}
	}
	if o.hasCommand {
		if len(args) == 0 {
			return o, errors.New("-c needs a command")
		}
		o.command, args = args[0], args[1:]
		if len(args) > 0 {
			args = args[1:] // the name, $0
		}
	} else if len(args) > 0 {
		o.script, args = args[0], args[1:]
	}
	o.params = args
	return o, nil
}

func run(args []string) int {
	o, err := parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sh:", err)
		return 2
	}
	interactive := !o.hasCommand && o.script == "" && (o.interactive || term.IsTerminal(0))
	params := append(append(o.set, "--"), o.params...)
	r, err := interp.New(interp.StdIO(os.Stdin, os.Stdout, os.Stderr), interp.Params(params...),
		interp.ExecHandlers(shortOptions, inProcess(interactive)))
	if err != nil {
		fmt.Fprintln(os.Stderr, "sh:", err)
		return 2
	}
	switch {
	case o.hasCommand:
		err = runReader(r, strings.NewReader(o.command), "sh")
	case o.script != "":
		f, openErr := os.Open(o.script)
		if openErr != nil {
			fmt.Fprintln(os.Stderr, "sh:", openErr)
			return 127
		}
		defer f.Close()
		err = runReader(r, f, o.script)
	case interactive:
		err = interact(r)
	default:
		err = runStream(r, os.Stdin)
	}
	return status(err)
}

// status turns what a run returned into an exit status, and says what was
// wrong where that was not a program's own status.
func status(err error) int {
	if err == nil {
		return 0
	}
	if s, ok := interp.IsExitStatus(err); ok {
		return int(s)
	}
	fmt.Fprintln(os.Stderr, "sh:", err)
	return 2
}

func runReader(r *interp.Runner, in io.Reader, name string) error {
	prog, err := syntax.NewParser().Parse(in, name)
	if err != nil {
		return err
	}
	return r.Run(context.Background(), prog)
}

// oneByte hands out one byte a read, so that the parser never takes input that
// a command it is about to run should read.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	return o.r.Read(p)
}

// runStream runs a script from standard input statement by statement.
func runStream(r *interp.Runner, in io.Reader) error {
	var last error
	err := syntax.NewParser().Interactive(oneByte{in}, func(stmts []*syntax.Stmt) bool {
		for _, s := range stmts {
			last = r.Run(context.Background(), s)
			if r.Exited() {
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return last
}

// interact reads lines with editing and history until end of file or exit.
func interact(r *interp.Runner) error {
	signal.Notify(make(chan os.Signal, 1), os.Interrupt, quit)
	in := newEditor()
	var last error
	parser := syntax.NewParser()
	for {
		err := parser.Interactive(in, func(stmts []*syntax.Stmt) bool {
			in.continued = parser.Incomplete()
			if in.continued {
				return true
			}
			for _, s := range stmts {
				last = r.Run(context.Background(), s)
				if r.Exited() {
					return false
				}
				if _, ok := interp.IsExitStatus(last); last != nil && !ok {
					fmt.Fprintln(os.Stderr, "sh:", last)
				}
			}
			return true
		})
		in.continued = false
		if err == nil || r.Exited() {
			return last
		}
		fmt.Fprintln(os.Stderr, "sh:", err)
		parser = syntax.NewParser()
	}
}
