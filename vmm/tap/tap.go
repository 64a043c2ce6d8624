// Package tap connects a guest's network device to a TAP device of the host's
// kernel (Linux Documentation/networking/tuntap.rst), which a bridge or the
// host's routing connects further. Frames keep their virtio header: the kernel
// segments and checksums only what leaves the host.
package tap

// Config describes a TAP device.
type Config struct {
	Name   string // an existing or a new device; "vitrine%d" with a free number if empty
	Bridge string // the bridge to attach the device to; none if empty
	Queues int    // queue pairs, at most 256; 1 if 0, or if an existing device has one
	MTU    int    // set on the device if not 0
}

// maxQueues is the kernel's limit (MAX_TAP_QUEUES).
const maxQueues = 256
