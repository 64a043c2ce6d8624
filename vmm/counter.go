package vmm

import "sync/atomic"

// counter has one writer and any number of readers, so that counting is a
// plain load and store and never a locked instruction.
type counter struct{ v atomic.Uint64 }

func (c *counter) add()         { c.v.Store(c.v.Load() + 1) }
func (c *counter) load() uint64 { return c.v.Load() }
