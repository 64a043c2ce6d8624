package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vitrine-vmm/vitrine/vmm/compare"
)

// labComparison is a small comparison, for lab 10: of what every Linux host
// has, and the container engines that need no daemon.
func labComparison(ctx context.Context, c *cli.Context) (*compare.Result, error) {
	cfg := compare.Config{
		Engines:   []string{"process", "namespaces", "runc", "crun", "vitrine-soft", "vitrine-warm"},
		Workloads: []string{"cpu"}, Runs: 7, Scale: []int{1}, Timeout: time.Minute, Budget: 45 * time.Second, Version: version(),
	}
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if err := machinesForComparison(&cfg); err != nil {
		return nil, err
	}
	bar := newProgress(c.App.ErrWriter)
	defer bar.done()
	cfg.Progress = bar.show
	return compare.Run(ctx, cfg)
}
