package vmm_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"sync"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/rng"
	"github.com/vitrine-vmm/vitrine/vmm"
)

// counted is a source of known bytes.
type counted struct {
	mu   sync.Mutex
	next uint32
	all  []byte
}

func (c *counted) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.all) < len(p)+1 {
		c.all = append(c.all, noise(64<<10, uint64(c.next))...)
		c.next++
	}
	n := copy(p, c.all)
	c.all = c.all[n:]
	return n, nil
}

// What a guest reads from its hardware generator is what the host's source
// gave, in its order, over both transports.
func TestGuestEntropy(t *testing.T) {
	eachTransport(t, func(t *testing.T, transport vmm.Transport) {
		g := bootGuest(t, vmm.Config{Transport: transport, Devices: []virtio.Device{rng.New("known", &counted{})}})
		if got := g.must("cat", "/sys/class/misc/hw_random/rng_current"); !strings.HasPrefix(got, "virtio_rng.0") {
			t.Fatalf("the generator is %q", got)
		}
		given, err := base64.StdEncoding.DecodeString(strings.TrimSpace(g.sh("dd if=/dev/hwrng bs=64 count=1 | base64")))
		if err != nil || len(given) < 32 {
			t.Fatalf("%d bytes, %v", len(given), err)
		}
		all := noise(64<<10, 0) // a guest takes less than that to begin with
		if i := bytes.Index(all, given[:32]); i < 0 {
			t.Errorf("the guest read %x, which nobody gave it", given)
		}
	})
}
