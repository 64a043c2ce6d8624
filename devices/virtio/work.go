package virtio

import (
	"context"
	"errors"
	"sync"
)

// Work runs work for each queue that the driver enabled, in a goroutine of its
// own, and returns when all have returned. The first that ends with an error
// ends the others: their context is cancelled and their doorbells ring.
func Work(ctx context.Context, qs []*Queue, work func(ctx context.Context, q *Queue) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for _, q := range qs {
		if q == nil {
			continue
		}
		wg.Go(func() {
			err := work(ctx, q)
			if err == nil {
				return
			}
			once.Do(func() { first = err })
			cancel()
			for _, other := range qs {
				if other != nil {
					other.Ring()
				}
			}
		})
	}
	wg.Wait()
	return first
}

// Loop serves one queue until ctx is done: each chain is given to handle and
// then pushed with the number of bytes that handle says it wrote; the driver is
// interrupted once for what was there together, so handle is to be quick. An
// error of handle's ends it.
func Loop(ctx context.Context, q *Queue, handle func(c *Chain) (written uint32, err error)) error {
	for ctx.Err() == nil {
		c, ok, err := q.Pop()
		if err != nil {
			return errors.Join(err, q.Notify())
		}
		if !ok {
			if err := q.Notify(); err != nil {
				return err
			}
			if err := q.Wait(); err != nil {
				return err
			}
			continue
		}
		written, err := handle(c)
		if perr := q.Push(c, written); err == nil {
			err = perr
		}
		if err != nil {
			return err
		}
	}
	return q.Notify()
}
