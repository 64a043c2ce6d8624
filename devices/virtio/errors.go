package virtio

import (
	"errors"
	"fmt"
)

// ProtocolError says how a driver broke the protocol. The device cannot go on
// until it is reset (virtio 1.2 §2.1.2, DEVICE_NEEDS_RESET).
type ProtocolError struct {
	Queue   int    // the queue; -1 where it is not about one
	Section string // of virtio 1.2: what the driver did not keep
	Err     error
}

func (e *ProtocolError) Error() string {
	if e.Queue < 0 {
		return fmt.Sprintf("%v (virtio 1.2 §%s)", e.Err, e.Section)
	}
	return fmt.Sprintf("virtio queue %d: %v (virtio 1.2 §%s)", e.Queue, e.Err, e.Section)
}

// Unwrap returns what was found.
func (e *ProtocolError) Unwrap() error { return e.Err }

// errDevice marks errors of a device type's code, not of a driver.
var errDevice = errors.New("defect of the device")

func (q *Queue) fault(section, format string, args ...any) error {
	return &ProtocolError{Queue: q.cfg.Index, Section: section, Err: fmt.Errorf(format, args...)}
}

// Fault returns a *ProtocolError about queue for a device type's Serve: a
// chain that has not the shape of a request.
func Fault(queue int, section, format string, args ...any) error {
	return &ProtocolError{Queue: queue, Section: section, Err: fmt.Errorf(format, args...)}
}
