package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func logsCommand() *cli.Command {
	return machineCommand("logs", "NAME", "print what a guest wrote to its console, or what the VMM has to say",
		func(c *cli.Context, dir *control.Dir, names []string) error {
			name, err := exactlyOne(c, names)
			if err != nil {
				return err
			}
			if _, err := dir.Find(name); err != nil {
				return err
			}
			file := control.ConsoleFile
			if c.Bool("vmm") {
				file = control.LogFile
			}
			path := filepath.Join(dir.Folder(name), file)
			if err := printOldLogs(c.App.Writer, path); err != nil {
				return err
			}
			f := &follower{path: path, out: c.App.Writer}
			defer f.close()
			if !c.Bool("follow") {
				return f.step()
			}
			return f.follow(c.Context, func() bool {
				r, err := dir.Find(name)
				return err == nil && r.Alive()
			})
		},
		&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what is written, until the machine ends"},
		&cli.BoolFlag{Name: "vmm", Usage: "the VMM's log instead of the guest's console"})
}

// printOldLogs prints what a log held before it was turned over: files such as
// console-2026-01-02T03-04-05.000.log.
func printOldLogs(w io.Writer, path string) error {
	ext := filepath.Ext(path)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	prefix := strings.TrimSuffix(filepath.Base(path), ext) + "-"
	var old []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), ext) {
			old = append(old, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(old)
	for _, p := range old {
		if err := printFile(w, p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func printFile(w io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// follower prints a file as it grows, also when another takes its place.
type follower struct {
	path string
	out  io.Writer
	f    *os.File
}

// followPause is how often a follower looks.
const followPause = 100 * time.Millisecond

func (f *follower) follow(ctx context.Context, alive func() bool) error {
	for {
		last := !alive()
		if err := f.step(); err != nil || last {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPause):
		}
	}
}

// step prints what is new.
func (f *follower) step() error {
	if f.f == nil && !f.open() {
		return nil
	}
	if _, err := io.Copy(f.out, f.f); err != nil {
		return err
	}
	if !f.replaced() {
		return nil
	}
	// What was written to the old file before it was put aside.
	if _, err := io.Copy(f.out, f.f); err != nil {
		return err
	}
	f.close()
	return f.step()
}

// open says whether there is a file: a log begins with its first line.
func (f *follower) open() bool {
	file, err := os.Open(f.path)
	if err == nil {
		f.f = file
	}
	return err == nil
}

func (f *follower) replaced() bool {
	a, err := f.f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(f.path)
	return err == nil && !os.SameFile(a, b)
}

func (f *follower) close() {
	if f.f != nil {
		_ = f.f.Close()
		f.f = nil
	}
}
