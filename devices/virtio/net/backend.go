package net

import "errors"

// MaxFrame is the largest frame that passes between device and back end: a
// header, an Ethernet header and the largest IP packet (virtio 1.2 §5.1.6.3.1).
const MaxFrame = HeaderLen + 14 + 65535

// Offloads are the feature bits (virtio 1.2 §5.1.3) that depend on what a back
// end can do with a frame.
const Offloads = FeatureCsum | FeatureGuestCsum |
	FeatureGuestTSO4 | FeatureGuestTSO6 | FeatureGuestECN |
	FeatureHostTSO4 | FeatureHostTSO6 | FeatureHostECN

// ErrClosed is returned by a Port whose network is gone for good. The guest
// then sees a link without traffic.
var ErrClosed = errors.New("network back end is closed")

// Backend is the network that a device is plugged into: a TAP device, a
// user-mode network, a socket.
type Backend interface {
	// Offloads says which of the Offloads the back end can do: those named
	// HOST and CSUM on frames that the guest sends, those named GUEST on
	// frames for it. It does not change.
	Offloads() uint64

	// SetOffloads tells the back end which of them the driver took; frames
	// for the guest must need no others. It is called while no Port is in
	// use.
	SetOffloads(offloads uint64) error

	// SetPairs tells how many of the Ports, from the first, the driver uses.
	// Frames for the guest arrive at those. It is called at any time.
	SetPairs(n int) error

	// Ports are the back end's sides of the device's queue pairs, at least
	// one.
	Ports() []Port
}

// Switched is a Backend that says whether anything on its network remembers where
// the guest is. Where nothing does, a restored guest is spared announcing itself;
// a Backend that does not say is taken to have switches.
type Switched interface {
	Switched() bool
}

// Port is one flow of frames in each direction. A frame begins with a Header
// of HeaderLen bytes. Send and Flush are called from one goroutine, Recv and
// Wait from another.
type Port interface {
	// Send takes one frame, given in pieces that are only valid during the
	// call, and which the guest may change meanwhile. The first piece holds
	// at least the Header, which the device has checked. It may wait for
	// room until Wake is called, and drops what the network does not take;
	// an error is for a network that takes nothing any more.
	Send(frame [][]byte) error

	// Flush sends what Send has kept back. It is called after the last of
	// several frames.
	Flush() error

	// Recv returns the next frame for the guest in pieces that are valid
	// until the next call, or none if there is none now. The Header's
	// NumBuffers is the device's to fill in.
	Recv() ([][]byte, error)

	// Wait blocks until Recv may have a frame or Wake was called.
	Wait() error

	// Wake makes the present or the next Send and Wait return.
	Wake()
}
