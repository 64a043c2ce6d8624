package blk

import "sync/atomic"

// Stats counts what a device has done since it was made.
type Stats struct {
	Reads, Writes, Flushes, Discards uint64 // requests; write-zeroes count as discards
	ReadBytes, WrittenBytes          uint64
	Errors                           uint64 // requests that failed
}

type counters struct {
	reads, writes, flushes, discards, readBytes, writtenBytes, errors atomic.Uint64
}

func (c *counters) count(r *Request, status byte) {
	switch {
	case status != statusOK:
		c.errors.Add(1)
	case r.Op == OpFlush:
		c.flushes.Add(1)
	case r.Op == OpWrite:
		c.writes.Add(1)
		c.writtenBytes.Add(uint64(r.Length))
	case r.Op != OpRead:
		c.discards.Add(1)
	case r.Length > 0: // not a serial number, which looks like an empty read
		c.reads.Add(1)
		c.readBytes.Add(uint64(r.Length))
	}
}

// Stats returns the counters; it may be called at any time.
func (d *Device) Stats() Stats {
	c := &d.stats
	return Stats{
		Reads: c.reads.Load(), Writes: c.writes.Load(), Flushes: c.flushes.Load(), Discards: c.discards.Load(),
		ReadBytes: c.readBytes.Load(), WrittenBytes: c.writtenBytes.Load(), Errors: c.errors.Load(),
	}
}
