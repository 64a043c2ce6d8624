package virtio

import "github.com/vitrine-vmm/vitrine/vmm/memory"

// Inspect implements Transport.
func (c *core) inspect(transport string) Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	info := Info{
		Name: c.spec.Name, ID: c.spec.ID, Transport: transport,
		Status: uint8(c.status.Load()), Offered: c.offered, Negotiated: c.driverFeatures,
		ConfigGeneration: c.generation.Load(), InterruptStatus: uint8(c.isr.Load()),
		Paused: c.paused,
	}
	if c.run != nil {
		select {
		case <-c.run.done:
		default:
			info.Serving = true
		}
	}
	if e := c.lastError.Load(); e != nil {
		info.Error = *e
	}
	for i := range c.queues {
		info.Queues = append(info.Queues, c.inspectQueue(i))
	}
	return info
}

func (c *core) inspectQueue(i int) QueueInfo {
	s := &c.queues[i]
	qi := QueueInfo{Index: i, Max: c.spec.QueueMax[i], Size: s.size, Ready: s.ready,
		Desc: s.desc, Avail: s.avail, Used: s.used, Vector: uint16(c.vectors[i].Load())}
	if s.live != nil {
		s.live.inspect(&qi)
	}
	return qi
}

// Inspect returns what there is to see of the queue.
func (q *Queue) Inspect() QueueInfo {
	qi := QueueInfo{Index: q.cfg.Index, Max: q.cfg.Size, Size: q.cfg.Size, Ready: true, Vector: noVector,
		Desc: uint64(q.cfg.Desc), Avail: uint64(q.cfg.Avail), Used: uint64(q.cfg.Used)}
	q.inspect(&qi)
	return qi
}

// inspect fills in what a queue has while it lives. Its areas were checked:
// the loads cannot fail.
func (q *Queue) inspect(qi *QueueInfo) {
	n := memory.Addr(q.cfg.Size)
	load := func(a memory.Addr) uint16 {
		v, _ := q.mem.LoadUint16(a)
		return v
	}
	qi.AvailFlags = load(q.cfg.Avail)
	qi.AvailIdx = load(q.cfg.Avail + ringIdx)
	qi.UsedFlags = load(q.cfg.Used)
	if q.eventIdx {
		qi.UsedEvent = load(q.cfg.Avail + ringHeader + availElem*n)
		qi.AvailEvent = load(q.cfg.Used + ringHeader + usedElem*n)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	qi.NextAvail, qi.UsedIdx = uint16(q.next.Load()), q.used
	qi.InFlight = qi.NextAvail - qi.UsedIdx
	qi.Pushed, qi.Kicks = q.pushed, q.kicks.Load()
	qi.Interrupts, qi.SuppressedInterrupts = q.interrupts, q.suppressed
}

// indices are the positions to continue from.
func (q *Queue) indices() (nextAvail, nextUsed uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return uint16(q.next.Load()), q.used
}
