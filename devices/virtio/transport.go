package virtio

import (
	"context"
	"time"
)

// Options are what a transport needs of the machine around it, whichever
// transport it is.
type Options struct {
	// Log is told what went wrong between device and driver: at most a few
	// lines a minute, from any goroutine. nil: nobody is told.
	Log func(err error)
	// ResetTimeout bounds how long a vCPU that resets the device waits for
	// the device's requests in flight; default 5 s. After it the device
	// stays in reset until they are done.
	ResetTimeout time.Duration
	// NoIndirect and NoEventIdx withhold the ring features.
	NoIndirect, NoEventIdx bool
	// Patient is for doorbells that return only when the device waits for the
	// next ring, so that it does nothing but what it was rung for. A device
	// that begins to serve again after a pause then waits for a ring first:
	// otherwise it would see what the driver has put into a ring and not yet
	// rung for, which without the pause it would not have seen.
	Patient bool
}

// Transport is a device behind either of its transports, as the machine
// handles it.
type Transport interface {
	// Device is the device behind the transport.
	Device() Device
	// Pause ends Serve and returns when the device touches guest memory no
	// more. Register accesses still work; a Serve that they would begin
	// begins with Resume. Pausing twice is once.
	Pause(ctx context.Context) error
	// Resume begins Serve again where the driver left the device working.
	Resume() error
	// State returns a JSON document with everything that Pause left outside
	// guest memory, the device's own state (Stater) included. SetState
	// checks and takes one. Both only between Pause and Resume.
	State() ([]byte, error)
	SetState(state []byte) error
	// Inspect may be called at any time.
	Inspect() Info
	// Trace has t told of the queues' work from now on; nil ends it.
	Trace(t Tracer)
	// Close ends Serve for good and releases interrupts and doorbells.
	Close() error
}

// Info is what there is to see of a device and its transport.
type Info struct {
	Name             string
	ID               DeviceID
	Transport        string // "mmio" or "pci"
	Status           uint8
	Offered          uint64 // features
	Negotiated       uint64 // features, as the driver wrote them
	ConfigGeneration uint32
	InterruptStatus  uint8
	Serving, Paused  bool
	Error            string // the last protocol error since the reset
	Queues           []QueueInfo
}

// QueueInfo is what there is to see of one queue. What the driver keeps in
// guest memory is as it was when looked at.
type QueueInfo struct {
	Index       int
	Max, Size   uint16
	Ready       bool
	Desc        uint64 // guest physical addresses of the three areas
	Avail, Used uint64
	Vector      uint16 // MSI-X; 0xffff for none

	AvailIdx   uint16 // the driver's index
	NextAvail  uint16 // the device's place in the available ring
	UsedIdx    uint16 // the device's index
	InFlight   uint16 // popped and not pushed
	AvailFlags uint16
	UsedFlags  uint16
	UsedEvent  uint16 // the driver wants an interrupt past this index
	AvailEvent uint16 // the device wants a notification past this index

	Pushed               uint64 // chains
	Kicks                uint64 // notifications that woke the device
	Interrupts           uint64 // raised
	SuppressedInterrupts uint64 // not raised since the driver did not want them
}
