//go:build !linux

package main

import (
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/control"
	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

func processTime() time.Duration { return 0 }

func memoryStats(g *memory.Guest) (control.MemoryStats, error) {
	return control.MemoryStats{Guest: g.Size()}, nil
}
