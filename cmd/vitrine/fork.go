package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm"
	"github.com/vitrine-vmm/vitrine/vmm/control"
)

func init() { launchExtras = append(launchExtras, forkExtra) }

// forked is the answer of POST /v1/action/fork.
type forked struct {
	vmm.Saved
	Dir   string `json:"dir"`   // of the snapshot, for vitrine restore --fork
	Disks bool   `json:"disks"` // the machines need what is in it as long as they live
}

// forkExtra serves snapshots for clones of the machine.
func forkExtra(m *vmm.Machine, l *launch) control.Extra {
	return control.Extra{Action: map[string]http.Handler{"fork": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := forked{Disks: slices.ContainsFunc(l.describe().Disks, func(d savedDisk) bool { return d.File != "" })}
		f.Dir = newForkFolder(l.cfg.CacheDir, f.Disks)
		var err error
		if f.Saved, err = l.save(r.Context(), m, &snapshotRequest{Dir: f.Dir, fork: true}); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(&f)
	})}}
}

// sharedMemory is a file system in memory on every Linux.
const sharedMemory = "/dev/shm"

// newForkFolder is a folder for the clones' memory: in the host's memory, or
// on the disk where disks are copied too, which may be large.
func newForkFolder(cache string, disks bool) string {
	name := fmt.Sprintf("vitrine-fork-%d-%s", os.Getuid(), rand.Text()[:12])
	if info, err := os.Stat(sharedMemory); err == nil && info.IsDir() && !disks {
		return filepath.Join(sharedMemory, name)
	}
	return filepath.Join(cache, "forks", name)
}

func forkCommand() *cli.Command {
	return &cli.Command{
		Name: "fork", ArgsUsage: "NAME", OnUsageError: onUsageError,
		Usage: "make clones of a running machine, in the background, and print their names",
		Description: "The clones share the machine's memory until they write to it. They are called NAME-1, NAME-2 …,\n" +
			"in the guest too; published ports stay the machine's own.",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "`N` clones", Value: 1},
			stateFlag(),
		},
		BashComplete: completeNames,
		Action:       forkAction,
	}
}

// maxForks bounds a slip of the finger.
const maxForks = 10_000

func forkAction(c *cli.Context) error {
	args, err := lateFlags(c)
	if err != nil {
		return err
	}
	if len(args) != 1 || control.CheckName(args[0]) != nil {
		return usagef("vitrine ps lists machines", "vitrine fork: want the name of one machine")
	}
	count := c.Int("count")
	if count < 1 || count > maxForks {
		return usagef(fmt.Sprintf("use 1 to %d", maxForks), "--count %d: not a number of clones", count)
	}
	dir, err := openState(c)
	if err != nil {
		return err
	}
	client, err := dir.Client(args[0])
	if err != nil {
		return err
	}
	names, err := freeNames(dir, args[0], count)
	if err != nil {
		return err
	}
	var f forked
	if err := client.Action(c.Context, "fork", struct{}{}, &f); err != nil {
		return err
	}
	release, err := holdFork(f.Dir)
	if err != nil {
		return err
	}
	defer release()
	if err := dir.Sweep(); err != nil { // once for all of them
		fmt.Fprintf(c.App.ErrWriter, "vitrine: remove what other machines have left: %v\n", err)
	}
	return startForks(c, dir.Path(), f.Dir, names)
}

// freeNames are n names for clones of the machine name that no machine has.
func freeNames(dir *control.Dir, name string, n int) (names []string, err error) {
	records, err := dir.List()
	if err != nil {
		return nil, err
	}
	taken := make(map[string]bool)
	for _, r := range records {
		taken[r.Name] = r.Alive()
	}
	for i := 1; len(names) < n; i++ {
		clone := fmt.Sprintf("%s-%d", name, i)
		if err := control.CheckName(clone); err != nil {
			return nil, err
		}
		if !taken[clone] {
			names = append(names, clone)
		}
	}
	return names, nil
}

// startForks starts the clones, a few at a time, and prints the names of those
// that run.
func startForks(c *cli.Context, state, snapshot string, names []string) error {
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	work := make(chan string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first error
	for range min(4, len(names)) {
		wg.Go(func() {
			for name := range work {
				_, err := detach(ctx, []string{"restore", "--fork", "--detach", "--name", name, "--state", state, snapshot}, c.App.ErrWriter)
				mu.Lock()
				if err == nil {
					fmt.Fprintln(c.App.Writer, name)
				} else if first == nil {
					first = err
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		work <- name
	}
	close(work)
	wg.Wait()
	return first
}
