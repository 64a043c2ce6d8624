package vsock

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

func TestEverythingHasAName(t *testing.T) { virtiotest.CheckNames(t, mustNew(t, Config{})) }
