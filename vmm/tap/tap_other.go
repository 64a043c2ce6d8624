//go:build !linux

package tap

import (
	"errors"

	virtionet "github.com/vitrine-vmm/vitrine/devices/virtio/net"
)

// Tap is a TAP device; only Linux has them.
type Tap struct{ virtionet.Backend }

// Open fails: this system has no TAP devices.
func Open(Config) (*Tap, error) {
	return nil, errors.New("open TAP device: only Linux has them: use --net user")
}

// Name is the device's name.
func (t *Tap) Name() string { return "" }

// Close releases the device.
func (t *Tap) Close() error { return nil }
