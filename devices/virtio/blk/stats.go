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

// count counts one request.
func (s *Stats) count(r *Request, status byte) {
	switch {
	case status != statusOK:
		s.Errors++
	case r.Op == OpFlush:
		s.Flushes++
	case r.Op == OpWrite:
		s.Writes++
		s.WrittenBytes += uint64(r.Length)
	case r.Op != OpRead:
		s.Discards++
	case r.Length > 0: // not a serial number, which looks like an empty read
		s.Reads++
		s.ReadBytes += uint64(r.Length)
	}
}

// add adds what has changed: most requests touch two of the counters.
func (c *counters) add(s *Stats) {
	for _, p := range [...]struct {
		to *atomic.Uint64
		n  uint64
	}{
		{&c.reads, s.Reads}, {&c.writes, s.Writes}, {&c.flushes, s.Flushes}, {&c.discards, s.Discards},
		{&c.readBytes, s.ReadBytes}, {&c.writtenBytes, s.WrittenBytes}, {&c.errors, s.Errors},
	} {
		if p.n > 0 {
			p.to.Add(p.n)
		}
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
