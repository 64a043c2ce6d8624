// Package virtio is the part of VIRTIO 1.2 that all devices share: split
// virtqueues, device status and feature negotiation, and the two transports,
// MMIO and PCI. The device types are packages below this one.
package virtio

import "context"

// Device is one device type behind any transport. The transport owns status,
// features, queue addresses and interrupts; the device owns its configuration
// space and the meaning of its queues.
type Device interface {
	// Spec says what the device is. It does not change while the device is
	// in use.
	Spec() Spec

	// ReadConfig and WriteConfig access the device-specific configuration
	// space (virtio 1.2 §2.5). They may be called at any time from any
	// goroutine, with any offset; bytes past the end read as zero.
	ReadConfig(off uint64, p []byte)
	WriteConfig(off uint64, p []byte)

	// Serve works the queues from DRIVER_OK until ctx is done (reset, pause
	// or shutdown) and returns when nothing of it touches guest memory any
	// more: every request that was popped has been pushed, so that a queue's
	// indices are the whole truth about what is in flight. features are the
	// negotiated ones. qs has one entry a queue of Spec, nil where the driver
	// did not enable it. Whoever cancels ctx also rings every queue's
	// doorbell. After a pause Serve is called again with the same queues.
	//
	// An error means that the driver broke the protocol: the transport sets
	// DEVICE_NEEDS_RESET and raises the configuration interrupt (§2.1.2).
	Serve(ctx context.Context, features uint64, qs []*Queue) error
}

// Spec describes a device to its transport.
type Spec struct {
	ID        DeviceID
	Features  uint64   // offered, without the transport's own (VERSION_1, RING_*)
	QueueMax  []uint16 // the largest size of each queue, a power of two
	ConfigLen uint64   // bytes of device-specific configuration space
	Name      string   // for messages: "blk0"
}

// ConfigNotifier is a Device whose configuration space changes by itself (a
// console that is resized, a balloon's new target). The transport hands it a
// function that raises the configuration-change interrupt.
type ConfigNotifier interface {
	OnConfigChange(notify func())
}

// Resetter is a Device that keeps state of the driver's outside its queues and
// drops it when the driver resets the device.
type Resetter interface {
	Reset()
}

// Stater is a Device with state to be kept in a snapshot beyond its queues and
// negotiated features. State is called while Serve is not running and returns
// a JSON document of the device's own, versioned by a field of it; SetState
// validates and takes one, before Serve is called.
type Stater interface {
	State() ([]byte, error)
	SetState(state []byte) error
}

// Doorbell is what a driver's notification rings: an ioeventfd where the
// accelerator has them, a Go channel elsewhere.
type Doorbell interface {
	// Wait blocks until the doorbell has been rung since the last Wait
	// returned. It does not allocate.
	Wait() error
	// Ring wakes the waiter. Any number of rings before a Wait are one.
	Ring()
}

// Lender is a Doorbell that can have the driver's ring do the waiter's work:
// where a guest's notification arrives on a goroutine of ours, work that does
// not wait costs less there than to wake somebody for it.
type Lender interface {
	Doorbell
	// WaitLending is Wait, but when the driver rings, work is called on the
	// goroutine that rings. The waiter sleeps on if work returns true, and
	// never runs at the same time. It does not allocate.
	WaitLending(work func() (done bool)) error
}

// DeviceID is a device type (virtio 1.2 §5).
type DeviceID uint32

// Device types.
const (
	IDNet     DeviceID = 1
	IDBlock   DeviceID = 2
	IDConsole DeviceID = 3
	IDEntropy DeviceID = 4
	IDBalloon DeviceID = 5
	ID9P      DeviceID = 9
	IDVsock   DeviceID = 19
	IDFS      DeviceID = 26
	IDPmem    DeviceID = 27
)

// Device status bits (virtio 1.2 §2.1).
const (
	StatusAcknowledge = 1
	StatusDriver      = 2
	StatusDriverOK    = 4
	StatusFeaturesOK  = 8
	StatusNeedsReset  = 64
	StatusFailed      = 128
)

// Feature bits that belong to queues and transports (virtio 1.2 §6).
const (
	FeatureIndirectDesc = 1 << 28
	FeatureEventIdx     = 1 << 29
	FeatureVersion1     = 1 << 32
)
