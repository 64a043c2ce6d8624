package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/agent"
)

func cpCommand() *cli.Command {
	return &cli.Command{
		Name: "cp", ArgsUsage: "NAME:PATH PATH, or PATH NAME:PATH", OnUsageError: onUsageError,
		Usage:       "copy files and folders between the host and a running machine with the embedded guest",
		Description: "Into a folder that exists a copy goes by its own name; else it gets the name given. Folders are copied whole. \"-\" is standard input or output.",
		Flags:       []cli.Flag{stateFlag()},
		BashComplete: func(c *cli.Context) {
			for _, n := range suggestions(c) {
				fmt.Fprintln(c.App.Writer, n+":")
			}
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usagef("vitrine cp NAME:PATH PATH, or vitrine cp PATH NAME:PATH", "cp: want two paths")
			}
			from, to := splitPlace(c.Args().Get(0)), splitPlace(c.Args().Get(1))
			if (from.machine == "") == (to.machine == "") {
				return usagef("vitrine cp NAME:PATH PATH, or vitrine cp PATH NAME:PATH", "cp: one of the paths must be in a machine")
			}
			client, err := agentOf(c, from.machine+to.machine)
			if err != nil {
				return err
			}
			cp := &copier{agent: client, errOut: c.App.ErrWriter}
			switch {
			case from.machine != "" && to.path == "-":
				_, err = client.Get(c.Context, from.path, c.App.Writer)
			case from.machine != "":
				err = cp.fromGuest(c.Context, from.path, to.path)
			case from.path == "-":
				err = client.Put(c.Context, to.path, c.App.Reader, agent.PutOptions{Mode: 0o644})
			default:
				err = cp.toGuest(c.Context, from.path, to.path)
			}
			if err == nil && cp.skipped > 0 {
				return exitStatus(statusFailure)
			}
			return err
		},
	}
}

// place is a path, in a machine or, with machine "", here.
type place struct{ machine, path string }

// splitPlace reads NAME:PATH. A path here that has a colon is written with a
// slash before it.
func splitPlace(s string) place {
	name, p, ok := strings.Cut(s, ":")
	if !ok || name == "" || strings.ContainsAny(name, `/\`) {
		return place{path: s}
	}
	if p == "" {
		p = "/root"
	}
	return place{name, p}
}

// copier copies trees. What is neither a file, nor a folder, nor a symbolic
// link is left out, with a message.
type copier struct {
	agent   *agent.Client
	errOut  io.Writer
	skipped int
	listed  int // bytes of names that are held
}

func (cp *copier) skip(name, why string) {
	cp.skipped++
	if strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
		name = strconv.Quote(name) // a guest's names may be orders to a terminal
	}
	fmt.Fprintf(cp.errOut, "vitrine: %s: left out: %s\n", name, why)
}

// toGuest copies what is at from on the host to the path to in the guest.
func (cp *copier) toGuest(ctx context.Context, from, to string) error {
	if info, err := cp.agent.Stat(ctx, to, true); err == nil && info.Mode.IsDir() {
		abs, err := filepath.Abs(from)
		if err != nil {
			return err
		}
		to = path.Join(to, filepath.Base(abs))
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// What the user names is followed if it is a link; what lies below is not.
	if real, err := filepath.EvalSymlinks(from); err == nil {
		from = real
	}
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		return cp.putOne(ctx, p, path.Join(to, filepath.ToSlash(rel)), d)
	})
}

func (cp *copier) putOne(ctx context.Context, from, to string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	o := agent.PutOptions{Mode: info.Mode(), ModTime: info.ModTime()}
	switch {
	case info.IsDir():
		return cp.agent.Mkdir(ctx, to, o)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return cp.agent.Symlink(ctx, target, to, o)
	case !info.Mode().IsRegular():
		cp.skip(from, "neither a file nor a folder")
		return nil
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return cp.agent.Put(ctx, to, f, o)
}

// fromGuest copies what is at from in the guest to the path to on the host.
// Each folder is written through an os.Root of its own: whatever names and
// links the guest comes up with, nothing outside is touched.
func (cp *copier) fromGuest(ctx context.Context, from, to string) error {
	info, err := cp.agent.Stat(ctx, from, true)
	if err != nil {
		return err
	}
	dir, name := filepath.Split(filepath.Clean(to))
	if s, err := os.Stat(to); err == nil && s.IsDir() {
		dir, name = to, path.Base(path.Clean(from))
	}
	if dir == "" {
		dir = "."
	}
	if !filepath.IsLocal(name) || name == "." {
		return fmt.Errorf("%s has no name of its own: give the copy one", from)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return cp.getTree(ctx, root, from, name, info, 0)
}

// A guest may make up a tree that has no end: what is followed of it, below its
// top, and what is held at once of the listings of its folders, names and all.
// A million entries have room.
const (
	deepest    = 512
	maxListed  = 256 << 20
	entryBytes = 128 // of an entry without its strings
)

func (cp *copier) getTree(ctx context.Context, root *os.Root, from, to string, info agent.File, depth int) error {
	switch {
	case depth > deepest:
		return fmt.Errorf("%s: more than %d folders deep", from, deepest)
	case info.Mode.IsRegular():
		return cp.getFile(ctx, root, from, to, info)
	case info.Mode&fs.ModeSymlink != 0:
		if err := root.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return root.Symlink(info.Target, to)
	case !info.Mode.IsDir():
		cp.skip(from, "neither a file nor a folder")
		return nil
	}
	below, err := makeFolder(root, to)
	if err != nil {
		return err
	}
	defer below.Close()
	before := cp.listed
	defer func() { cp.listed = before }()
	entries, err := cp.list(ctx, from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !fs.ValidPath(e.Name) || strings.ContainsAny(e.Name, `/\`) || e.Name == "." {
			cp.skip(path.Join(from, quote(e.Name)), "not a name")
			continue
		}
		if err := cp.getTree(ctx, below, path.Join(from, e.Name), e.Name, e, depth+1); err != nil {
			return err
		}
	}
	return errors.Join(root.Chmod(to, info.Mode.Perm()), root.Chtimes(to, info.ModTime, info.ModTime))
}

// list reads a folder of the guest's.
func (cp *copier) list(ctx context.Context, folder string) (entries []agent.File, err error) {
	err = cp.agent.List(ctx, folder, func(f agent.File) error {
		if cp.listed += entryBytes + len(f.Name) + len(f.Target); cp.listed > maxListed {
			return fmt.Errorf("%s: more than %d entries, too many at once", folder, len(entries))
		}
		entries = append(entries, f)
		return nil
	})
	return entries, err
}

// makeFolder makes the folder name in root if it is not there. A link in its
// place is not followed: the guest may have sent it before.
func makeFolder(root *os.Root, name string) (*os.Root, error) {
	if info, err := root.Lstat(name); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if err := root.Remove(name); err != nil {
			return nil, err
		}
	}
	if err := root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return root.OpenRoot(name)
}

// getFile writes a file under a name of its own and renames it when all of it
// is there.
func (cp *copier) getFile(ctx context.Context, root *os.Root, from, to string, info agent.File) error {
	tmp := to + ".vitrine-part"
	if err := root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = cp.agent.Get(ctx, from, f)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = errors.Join(root.Chmod(tmp, info.Mode.Perm()), root.Chtimes(tmp, info.ModTime, info.ModTime), root.Rename(tmp, to))
	}
	if err != nil {
		_ = root.Remove(tmp)
	}
	return err
}
