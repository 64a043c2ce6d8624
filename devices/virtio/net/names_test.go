package net

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

func TestEverythingHasAName(t *testing.T) {
	dev, err := New(Config{Backend: newFakeBackend(2, 0)})
	if err != nil {
		t.Fatal(err)
	}
	virtiotest.CheckNames(t, dev)
}
