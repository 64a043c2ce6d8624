package main

import (
	"context"
	"errors"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/control"
)

// downOne stops a machine, if it runs, and forgets it.
func downOne(ctx context.Context, dir *control.Dir, name string, grace time.Duration) error {
	if r, err := dir.Find(name); err == nil && r.Alive() {
		if err := stopMachine(ctx, dir, name, grace); err != nil {
			return err
		}
	}
	if err := dir.Remove(name); err != nil && !errors.Is(err, control.ErrNoMachine) {
		return err
	}
	return nil
}
