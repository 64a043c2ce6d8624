package virtio

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// begin starts Serve where the driver is ready and nothing speaks against it.
// mu is held.
func (c *core) begin() {
	status := c.status.Load()
	if c.run != nil || c.paused || c.closed || status&StatusDriverOK == 0 || status&StatusNeedsReset != 0 {
		return
	}
	qs := make([]*Queue, len(c.queues))
	for i := range c.queues {
		qs[i] = c.queues[i].live
	}
	c.stopped.Store(false)
	ctx, cancel := context.WithCancel(context.Background())
	c.run = &run{cancel: cancel, done: make(chan struct{})}
	go c.serve(ctx, c.run, c.driverFeatures, qs)
}

// serve is one life of the device. It does not take mu: whoever waits for its
// end holds it.
func (c *core) serve(ctx context.Context, r *run, features uint64, qs []*Queue) {
	defer close(r.done)
	err := c.dev.Serve(ctx, features, qs)
	for _, q := range qs {
		if q != nil {
			err = errors.Join(err, q.Notify())
		}
	}
	if err != nil {
		c.fail(err)
	}
}

// stopServe asks Serve to return and wakes it wherever it waits.
func (c *core) stopServe() {
	c.stopped.Store(true)
	c.run.cancel()
	for i := range c.queues {
		if q := c.queues[i].live; q != nil {
			q.Ring()
		}
	}
}

// end ends Serve and says whether it returned in time.
func (c *core) end() bool {
	if c.run == nil {
		return true
	}
	c.stopServe()
	t := time.NewTimer(c.opts.ResetTimeout)
	defer t.Stop()
	select {
	case <-c.run.done:
		c.run = nil
		return true
	case <-t.C:
		return false
	}
}

// reset is a driver's reset (§2.4). The device has finished with guest memory
// when it returns. Where that takes too long the status stays other than 0,
// which is how a driver sees that the reset is not done (§2.1.2).
func (c *core) reset() {
	if c.lingers {
		return
	}
	if !c.end() {
		c.linger()
		return
	}
	c.clear()
}

// clear brings everything to its state after power-on.
func (c *core) clear() {
	c.deviceSel, c.driverSel, c.queueSel, c.driverFeatures = 0, 0, 0, 0
	c.configVector.Store(noVector)
	for i := range c.queues {
		s := &c.queues[i]
		c.vectors[i].Store(noVector)
		*s = queueState{size: c.spec.QueueMax[i], bell: s.bell, irq: s.irq}
	}
	if r, ok := c.dev.(Resetter); ok {
		r.Reset()
	}
	c.isr.Store(0)
	c.lastError.Store(nil)
	c.status.Store(0)
}

// linger takes the rings from a Serve that does not return, and completes the
// reset when it does.
func (c *core) linger() {
	c.lingers = true
	c.status.Store(StatusNeedsReset)
	for i := range c.queues {
		if q := c.queues[i].live; q != nil {
			q.revoke()
		}
	}
	c.report(fmt.Errorf("requests in flight after %v: the reset waits for them", c.opts.ResetTimeout))
	go func(r *run) {
		<-r.done
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.run == r {
			c.lingered()
		}
	}(c.run)
}

// lingered completes a reset whose Serve has returned at last.
func (c *core) lingered() {
	c.run, c.lingers = nil, false
	c.clear()
}

// Pause implements Transport. It waits without mu, so that the device can be
// looked at meanwhile.
func (c *core) Pause(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = true
	r := c.run
	if r == nil {
		return nil
	}
	c.stopServe()
	c.mu.Unlock()
	err := r.wait(ctx)
	c.mu.Lock()
	if err != nil {
		return fmt.Errorf("virtio device %s: pause: requests in flight: %w", c.spec.Name, err)
	}
	if c.run == r {
		if c.lingers {
			c.lingered()
		}
		c.run = nil
	}
	return nil
}

// wait returns nil when Serve has returned.
func (r *run) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Resume implements Transport.
func (c *core) Resume() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.paused {
		return nil
	}
	if !c.lingers && !c.end() { // a pause that was given up
		return fmt.Errorf("virtio device %s: resume: requests in flight since the pause", c.spec.Name)
	}
	c.paused = false
	c.begin()
	return nil
}

// close ends Serve for good.
func (c *core) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if !c.end() {
		return fmt.Errorf("virtio device %s: close: requests in flight after %v", c.spec.Name, c.opts.ResetTimeout)
	}
	return nil
}
