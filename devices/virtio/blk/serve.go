package blk

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Serve implements virtio.Device: one goroutine a queue takes requests to the
// back end; answers go back from wherever the back end finishes them.
func (d *Device) Serve(ctx context.Context, features uint64, qs []*virtio.Queue) error {
	if features&(FeatureFlush|FeatureConfigWCE) == 0 {
		// A driver that cannot flush gets writes that need no flush (§5.2.6.2).
		d.writeback.Store(false)
	}
	return virtio.Work(ctx, qs, d.serveQueue)
}

// worker is the work of one queue.
type worker struct {
	d    *Device
	q    *virtio.Queue
	ch   Channel
	jobs []job
	now  Prompt                // ch, if it is one: then the queue is lent out
	left *Request              // popped by whom it was lent to, and for the device
	err  atomic.Pointer[error] // of a push, from whatever goroutine
}

func (d *Device) serveQueue(ctx context.Context, q *virtio.Queue) (err error) {
	w := &worker{d: d, q: q, jobs: make([]job, q.Size())}
	if w.ch, err = d.backend.Open(ctx, q.Size(), w.done); err != nil {
		return fmt.Errorf("%s: open the disk: %w", d.opts.Name, err)
	}
	// Closing waits for what is in flight, so that everything that was
	// popped is pushed before Serve returns.
	defer func() {
		err = errors.Join(err, w.ch.Close(), w.failure(), q.Notify())
	}()
	w.now, _ = w.ch.(Prompt)
	lent := func() bool { return w.takePrompt(ctx) }
	for ctx.Err() == nil {
		if err := w.take(ctx); err != nil {
			return err
		}
		if err := w.failure(); err != nil {
			return err
		}
		if err := w.wait(lent); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) wait(lent func() bool) error {
	if w.now == nil {
		return w.q.Wait()
	}
	err := w.q.WaitLending(lent)
	if w.left != nil {
		w.ch.Submit(w.left)
		w.left = nil
	}
	if err == nil {
		err = w.failure()
	}
	return err
}

// lendBytes is how much a goroutine does that rings: a CPU of the guest, which
// stands still meanwhile. It is worth the time of some wake-ups, and less than
// the CPU waits for other CPUs anyway.
const lendBytes = 1 << 20

// takePrompt does what the driver has made available, on the goroutine that
// rings, as long as that needs no waiting. It says whether that was all.
func (w *worker) takePrompt(ctx context.Context) (all bool) {
	if w.left != nil {
		return false // another ring, before the device has woken for the last
	}
	room := int64(lendBytes)
	for room >= 0 && ctx.Err() == nil && w.failure() == nil {
		c, ok, err := w.q.Pop()
		if err != nil {
			return false // whoever pops next is told of it again
		}
		if !ok {
			return w.notified()
		}
		j := &w.jobs[c.Head()]
		status, err := w.d.parse(j, c)
		if err != nil {
			w.fail(errors.Join(err, w.q.Push(c, 0)))
			return false
		}
		// Other CPUs may go on adding: what is refused has a price too.
		if status != statusPending {
			room -= SectorSize
		} else {
			room -= max(j.req.Length, SectorSize)
			if room < 0 || !w.now.Try(&j.req) {
				w.left = &j.req
				w.notified()
				return false
			}
			status = j.req.status()
		}
		if err := w.answer(j, status); err != nil {
			w.fail(err)
			return false
		}
	}
	w.notified()
	return false
}

// notified interrupts the driver for what it has been answered, if it wants
// that, and says whether that succeeded.
func (w *worker) notified() bool {
	err := w.q.Notify()
	if err != nil {
		w.fail(err)
	}
	return err == nil
}

// status is the answer to a request that is done.
func (r *Request) status() byte {
	if r.Err != nil {
		return statusIOErr
	}
	return statusOK
}

// kickEvery is after how many requests the back end starts, if there are more:
// a long queue is worked on while it is read.
const kickEvery = 16

// take hands everything that the driver has made available to the back end.
func (w *worker) take(ctx context.Context) error {
	for n := 1; ctx.Err() == nil; n++ {
		c, ok, err := w.q.Pop()
		if err != nil || !ok {
			w.ch.Kick()
			return errors.Join(err, w.q.Notify())
		}
		if err := w.start(c); err != nil {
			w.ch.Kick()
			return err
		}
		if n%kickEvery == 0 {
			w.ch.Kick()
		}
	}
	w.ch.Kick()
	return nil
}

func (w *worker) start(c *virtio.Chain) error {
	j := &w.jobs[c.Head()]
	status, err := w.d.parse(j, c)
	if err != nil {
		return errors.Join(err, w.q.Push(c, 0))
	}
	if status == statusPending {
		w.ch.Submit(&j.req)
		return nil
	}
	return w.answer(j, status)
}

// batch is how many answers are given to the driver at once.
const batch = 32

// done is called by the back end with requests that are done.
func (w *worker) done(rs []*Request) {
	for len(rs) > 0 {
		n := min(len(rs), batch)
		if err := w.answerAll(rs[:n]); err != nil {
			w.fail(err)
			return
		}
		rs = rs[n:]
	}
	if err := w.q.Notify(); err != nil {
		w.fail(err)
	}
}

// answerAll answers at most batch requests together: one look at the lock and
// one store of the index, which the driver's CPU may be watching.
func (w *worker) answerAll(rs []*Request) error {
	var chains [batch]*virtio.Chain
	var written [batch]uint32
	var sum Stats
	for i, r := range rs {
		j := r.owner.(*job)
		status := r.status()
		sum.count(r, status)
		chains[i], written[i] = j.chain, j.finish(status)
	}
	w.d.stats.add(&sum)
	return w.q.PushAll(chains[:len(rs)], written[:len(rs)])
}

// answer answers one request.
func (w *worker) answer(j *job, status byte) error {
	var sum Stats
	sum.count(&j.req, status)
	w.d.stats.add(&sum)
	return w.q.Push(j.chain, j.finish(status))
}

func (w *worker) fail(err error) {
	w.err.CompareAndSwap(nil, &err)
	w.q.Ring()
}

func (w *worker) failure() error {
	if err := w.err.Load(); err != nil {
		return *err
	}
	return nil
}
