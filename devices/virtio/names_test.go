package virtio

import (
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	if got := []string{IDBlock.String(), IDEntropy.String(), DeviceID(99).String()}; !slices.Equal(got, []string{"block", "entropy", "device type 99"}) {
		t.Errorf("device types %q", got)
	}
	if got := StatusNames(0xf | 16 | 64); !slices.Equal(got, []string{"ACKNOWLEDGE", "DRIVER", "FEATURES_OK", "DRIVER_OK", "DEVICE_NEEDS_RESET", "bit 4"}) {
		t.Errorf("status %q", got)
	}
	for id, want := range map[DeviceID][]string{
		IDConsole: {"SIZE", "EVENT_IDX", "VERSION_1", "bit 5"},
		IDBlock:   {"RO", "EVENT_IDX", "VERSION_1", "bit 0"},
		IDEntropy: {"EVENT_IDX", "VERSION_1", "bit 0", "bit 5"},
	} {
		if got := FeatureNames(id, FeatureVersion1|FeatureEventIdx|1|1<<5); !slices.Equal(got, want) {
			t.Errorf("features of %v: %q, want %q", id, got, want)
		}
	}
}
