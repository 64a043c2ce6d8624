package virtio

// Tracer is told what happens on the queues of a device. Its methods are
// called by whoever works the queue, must not block and must not keep c.
type Tracer interface {
	Popped(queue int, c *Chain)
	Pushed(queue int, c *Chain, written uint32)
	Interrupted(queue int) // an interrupt was raised for the queue; -1: a configuration change
}

// WakeTracer is a Tracer that is also told of notifications that woke a
// device. Those that come while it works are one with the last.
type WakeTracer interface {
	Woken(queue int)
}
