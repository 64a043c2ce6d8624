package blk

import (
	"context"
	"fmt"
	"sync"
)

// Store is a disk whose operations block. Inline and Pool make a Backend of
// it. Its methods may be called from any number of goroutines at once; off and
// lengths are inside the disk.
type Store interface {
	Info() Info
	ReadVec(vec [][]byte, off int64) error
	WriteVec(vec [][]byte, off int64, durable bool) error
	Flush() error
	Discard(off, n int64) error
	WriteZeroes(off, n int64, unmap, durable bool) error
	Close() error
}

// NonWaiting is a Store that can be asked not to wait.
type NonWaiting interface {
	Store
	// ReadNow is ReadVec if that needs no waiting for the medium, and says
	// whether it was. If not, part of vec may be read.
	ReadNow(vec [][]byte, off int64) (done bool)
}

// Execute does one request on a store and sets its Err. A request outside the
// disk, or one that would change a read-only disk, is refused here.
func Execute(s Store, r *Request) {
	info := s.Info()
	execute(s, &info, r)
}

func execute(s Store, info *Info, r *Request) {
	if r.Err = r.check(info); r.Err != nil {
		return
	}
	switch r.Op {
	case OpRead:
		r.Err = s.ReadVec(r.Vec, r.Offset)
	case OpWrite:
		r.Err = s.WriteVec(r.Vec, r.Offset, r.Durable)
	case OpFlush:
		r.Err = s.Flush()
	case OpDiscard:
		r.Err = s.Discard(r.Offset, r.Length)
	case OpWriteZeroes:
		r.Err = s.WriteZeroes(r.Offset, r.Length, r.Unmap, r.Durable)
	}
}

// check says whether r is possible on a disk described by info.
func (r *Request) check(info *Info) error {
	if r.Op > OpWriteZeroes {
		return fmt.Errorf("disk: no such request: %s", r.Op)
	}
	if r.Op == OpFlush {
		return nil
	}
	if r.Offset < 0 || r.Length < 0 || r.Offset > info.Size || r.Length > info.Size-r.Offset {
		return fmt.Errorf("disk: %s of %d bytes at %d: the disk ends at %d", r.Op, r.Length, r.Offset, info.Size)
	}
	if r.Op != OpRead && info.ReadOnly {
		return fmt.Errorf("disk: %s: it is read-only", r.Op)
	}
	return nil
}

// Check reports whether r lies inside the disk and is allowed on it; back ends
// other than Inline and Pool call it for every request.
func (r *Request) Check(info *Info) error { return r.check(info) }

// Inline returns a back end that does every request where it is submitted: for
// stores that never wait, such as memory.
func Inline(s Store) Backend { return inline{s} }

type inline struct{ s Store }

func (b inline) Info() Info   { return b.s.Info() }
func (b inline) Close() error { return b.s.Close() }
func (b inline) Store() Store { return b.s }

func (b inline) Open(_ context.Context, depth int, done func([]*Request)) (Channel, error) {
	c := &inlineChannel{s: b.s, info: b.s.Info(), done: done, finished: make([]*Request, 0, max(1, min(depth, inlineBatch)))}
	c.now, _ = b.s.(NonWaiting)
	return c, nil
}

// inlineBatch is how many requests are reported together: few, so that their
// submitter goes on with the answers while the next are done.
const inlineBatch = 8

type inlineChannel struct {
	s        Store
	info     Info
	now      NonWaiting // s, if it is one
	done     func([]*Request)
	finished []*Request
}

// Try implements Prompt.
func (c *inlineChannel) Try(r *Request) bool { return tryRead(c.now, &c.info, r) }

// tryRead does r if it is a read that s can do without waiting.
func tryRead(s NonWaiting, info *Info, r *Request) (done bool) {
	return s != nil && r.Op == OpRead && r.check(info) == nil && s.ReadNow(r.Vec, r.Offset)
}

func (c *inlineChannel) Submit(r *Request) {
	execute(c.s, &c.info, r)
	c.finished = append(c.finished, r)
	if len(c.finished) == cap(c.finished) {
		c.Kick()
	}
}

func (c *inlineChannel) Kick() {
	if len(c.finished) > 0 {
		c.done(c.finished)
		c.finished = c.finished[:0]
	}
}

func (c *inlineChannel) Close() error {
	c.Kick()
	return nil
}

// Pool returns a back end that does requests on up to workers goroutines for
// each channel. They are started when first needed.
func Pool(s Store, workers int) Backend { return pool{s, max(workers, 1)} }

type pool struct {
	s       Store
	workers int
}

func (b pool) Info() Info   { return b.s.Info() }
func (b pool) Close() error { return b.s.Close() }
func (b pool) Store() Store { return b.s }

func (b pool) Open(_ context.Context, depth int, done func([]*Request)) (Channel, error) {
	c := &poolChannel{s: b.s, info: b.s.Info(), done: done, limit: b.workers, work: make(chan *Request, max(depth, 1))}
	c.now, _ = b.s.(NonWaiting)
	return c, nil
}

// poolChannel hands requests to its workers.
type poolChannel struct {
	s       Store
	info    Info
	now     NonWaiting // s, if it is one
	done    func([]*Request)
	work    chan *Request
	limit   int
	workers int
	wg      sync.WaitGroup
}

// Try implements Prompt.
func (c *poolChannel) Try(r *Request) bool { return tryRead(c.now, &c.info, r) }

func (c *poolChannel) Submit(r *Request) {
	// One more worker for each request that finds others waiting: a disk
	// used at depth 1 keeps a single one.
	if c.workers < c.limit && (c.workers == 0 || len(c.work) > 0) {
		c.workers++
		c.wg.Go(c.serve)
	}
	c.work <- r
}

func (c *poolChannel) Kick() {}

func (c *poolChannel) serve() {
	var one [1]*Request
	for r := range c.work {
		execute(c.s, &c.info, r)
		one[0] = r
		c.done(one[:])
	}
}

func (c *poolChannel) Close() error {
	close(c.work)
	c.wg.Wait()
	return nil
}
