package blk_test

import (
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

// waitFor polls for what has no event of its own.
func waitFor(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(virtiotest.Timeout); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not in time", what)
		}
	}
}
