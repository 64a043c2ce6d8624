package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/snapshot"
)

func cacheCommand() *cli.Command {
	age := &cli.DurationFlag{Name: "older", Usage: "`AGE` from which on a kept machine goes", Value: 30 * 24 * time.Hour}
	return &cli.Command{
		Name: "cache", Usage: "the machines that vitrine run --warm keeps, and other files in the cache directory", OnUsageError: onUsageError,
		Subcommands: []*cli.Command{
			{Name: "ls", Usage: "list what is kept", OnUsageError: onUsageError, Action: cacheList},
			{Name: "rm", ArgsUsage: "KEY…", Usage: "remove what is kept under KEY, or all of it", OnUsageError: onUsageError,
				Flags: []cli.Flag{&cli.BoolFlag{Name: "all", Usage: "everything"}}, Action: cacheRemove},
			{Name: "prune", Usage: "remove what is of no use any more: made by another version, damaged, old, or left by forks that were killed", OnUsageError: onUsageError,
				Flags: []cli.Flag{age}, Action: cachePrune},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("use ls, rm or prune", "vitrine cache %s: there is no such command", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

// cacheEntry is a machine kept for --warm, or a file that was unpacked.
type cacheEntry struct {
	key   string
	path  string
	size  uint64 // on the disk
	made  time.Time
	what  string
	stale string // why it is of no use; "" if it may be
}

// readCache lists the cache directory: machines first.
func readCache() (entries []cacheEntry, err error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	warm, err := os.ReadDir(warmFolder(cache))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range warm {
		if !strings.HasPrefix(e.Name(), ".") {
			entries = append(entries, warmEntry(filepath.Join(warmFolder(cache), e.Name())))
		}
	}
	files, err := os.ReadDir(cache)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		entries = append(entries, cacheEntry{key: f.Name(), path: filepath.Join(cache, f.Name()), size: uint64(info.Size()), made: info.ModTime(), what: "unpacked file"})
	}
	return entries, nil
}

func warmEntry(path string) cacheEntry {
	e := cacheEntry{key: filepath.Base(path), path: path}
	if info, err := os.Stat(path); err == nil {
		e.made = info.ModTime()
	}
	s, err := snapshot.Open(path)
	if err != nil {
		e.what, e.stale = "unreadable", err.Error()
		return e
	}
	defer s.Close()
	m := &s.State.Machine
	e.size, e.made = s.Disk(), s.State.Created
	e.what = fmt.Sprintf("machine: --accel %s, %d CPUs, %s of memory", m.Accel, m.CPUs, formatSize(m.Memory))
	if s.State.Maker != version() {
		e.stale = "made by vitrine " + s.State.Maker
	}
	return e
}

func cacheList(c *cli.Context) error {
	entries, err := readCache()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tSIZE\tMADE\tWHAT")
	for _, e := range entries {
		what := e.what
		if e.stale != "" {
			what += " (" + e.stale + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.key, formatSize(e.size), e.made.Local().Format(time.DateTime), what)
	}
	return w.Flush()
}

func cacheRemove(c *cli.Context) error {
	args, err := lateFlags(c)
	if err != nil {
		return err
	}
	all := c.Bool("all")
	if all == (len(args) > 0) {
		return usagef("vitrine cache ls lists the keys", "vitrine cache rm: want keys, or --all")
	}
	entries, err := readCache()
	if err != nil {
		return err
	}
	for _, key := range args {
		if !slices.ContainsFunc(entries, func(e cacheEntry) bool { return e.key == key }) {
			return fmt.Errorf("nothing is kept under %s: vitrine cache ls lists the keys", quote(key))
		}
	}
	for _, e := range entries {
		if all || slices.Contains(args, e.key) {
			if err := os.RemoveAll(e.path); err != nil {
				return err
			}
		}
	}
	return nil
}

func cachePrune(c *cli.Context) error {
	entries, err := readCache()
	if err != nil {
		return err
	}
	for _, e := range entries {
		old := time.Since(e.made) > c.Duration("older")
		if e.what == "unpacked file" || e.stale == "" && !old {
			continue
		}
		if err := os.RemoveAll(e.path); err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "removed %s\n", e.key)
	}
	return pruneForks(c)
}

// pruneForks removes what forks have left whose machines were all killed.
func pruneForks(c *cli.Context) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	mine := fmt.Sprintf("vitrine-fork-%d-", os.Getuid())
	for _, top := range []string{sharedMemory, filepath.Join(cache, "forks")} {
		entries, err := os.ReadDir(top)
		if err != nil {
			continue
		}
		for _, e := range entries {
			dir := filepath.Join(top, e.Name())
			if !e.IsDir() || !strings.HasPrefix(strings.TrimPrefix(e.Name(), "."), mine) || forkHeld(dir) {
				continue
			}
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			fmt.Fprintf(c.App.Writer, "removed %s\n", dir)
		}
	}
	return nil
}
