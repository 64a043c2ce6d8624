package virtiotest

import (
	"strings"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// CheckNames: every byte of the device's configuration space, every queue and
// every feature that it offers has a name in traces.
func CheckNames(t testing.TB, dev virtio.Device) {
	t.Helper()
	const mmioConfig = 0x100 // virtio 1.2 §4.2.2
	spec := dev.Spec()
	d := virtio.Decoder{ID: spec.ID}
	for off := range spec.ConfigLen {
		if name, _ := d.Access(mmioConfig+off, 1, false, 0); !strings.HasPrefix(name, "config.") {
			t.Errorf("%s: byte %d of the configuration space is called %q", spec.Name, off, name)
		}
	}
	for i := range spec.QueueMax {
		if name := virtio.QueueName(spec.ID, i, len(spec.QueueMax)); name == "" {
			t.Errorf("%s: queue %d has no name", spec.Name, i)
		}
	}
	for bit := range 64 {
		if spec.Features>>bit&1 != 0 {
			if names := virtio.FeatureNames(spec.ID, 1<<bit); len(names) != 1 || strings.Contains(names[0], "bit") {
				t.Errorf("%s: feature %d is called %q", spec.Name, bit, names)
			}
		}
	}
}
