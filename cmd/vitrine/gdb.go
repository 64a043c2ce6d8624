package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/gdb"
)

// debugOptions are the flags of run for whoever looks for a mistake in a guest.
type debugOptions struct {
	gdb  string // where a debugger may connect; "" for none
	core string // the file for a core when a CPU gives up; "" for none
}

func debugFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "gdb", Usage: "`ADDRESS` where the machine waits for GDB before its first instruction: :PORT of this host, or the path of a socket"},
		&cli.StringFlag{Name: "on-crash", Usage: "`WHAT` to do when a CPU gives up or the kernel panics: core[=FILE] writes one for gdb and crash (default: the report alone)"},
	}
}

// defaultCore is the file that --on-crash core writes.
const defaultCore = "vitrine.core"

func (o *debugOptions) parseDebug(c *cli.Context) error {
	o.gdb = c.String("gdb")
	if c.IsSet("gdb") && o.gdb == "" {
		return usagef("use --gdb :1234", "--gdb: the address is empty")
	}
	what, file, hasFile := strings.Cut(c.String("on-crash"), "=")
	switch {
	case !c.IsSet("on-crash"):
	case what != "core" || hasFile && file == "":
		return usagef("use --on-crash core or --on-crash core=FILE", "--on-crash %s: there is no such choice", quote(c.String("on-crash")))
	case hasFile:
		o.core = file
	default:
		o.core = defaultCore
	}
	return nil
}

// listenGDB listens at an address of --gdb's: only this host's own programs may
// connect, for a debugger can do anything with the guest.
func listenGDB(address string) (net.Listener, error) {
	if strings.ContainsRune(address, '/') || !strings.ContainsRune(address, ':') {
		if info, err := os.Lstat(address); err == nil && info.Mode()&os.ModeSocket != 0 {
			_ = os.Remove(address) // of a run before
		}
		l, err := net.Listen("unix", address)
		if err != nil {
			return nil, fmt.Errorf("--gdb: %w", err)
		}
		return l, os.Chmod(address, 0o600)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, usagef("use --gdb :1234", "--gdb %s: %w", quote(address), err)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("--gdb: %w: choose another port", err)
	}
	return l, nil
}

// tellDebugger is how long a debugger may take to hear that the machine has
// ended.
const tellDebugger = 200 * time.Millisecond

// debugged is a watcher: the machine waits for a debugger.
func debugged(r *runner, m *vmm.Machine) (finish func(error) error, err error) {
	l, err := listenGDB(r.opt.gdb)
	if err != nil {
		return nil, err
	}
	d := m.Debugger()
	if err := m.Pause(context.Background()); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	r.errOut.say("the machine waits for a debugger: gdb -ex 'target remote %s' VMLINUX", l.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- gdb.Serve(ctx, l, d) }()
	return func(end error) error {
		d.Ended(end)
		select {
		case err := <-served:
			cancel()
			return err
		case <-time.After(tellDebugger):
		}
		cancel()
		return <-served
	}, nil
}
