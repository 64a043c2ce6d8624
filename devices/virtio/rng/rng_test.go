package rng

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

// counting gives bytes that can be told apart.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n++
		p[i] = c.n
	}
	return len(p), nil
}

func TestFillsBuffers(t *testing.T) {
	for _, pci := range []bool{false, true} {
		d := virtiotest.New(t, New("rng0", &counting{}), virtiotest.Config{PCI: pci})
		d.Start(0)
		if got := d.Rings[0].Do(t, nil, 3, 5); !bytes.Equal(got, []byte{1, 2, 3, 4, 5, 6, 7, 8}) {
			t.Errorf("got %v", got)
		}
	}
}

func TestRequestsAreBounded(t *testing.T) {
	d := virtiotest.New(t, New("rng0", &counting{}), virtiotest.Config{})
	d.Start(0)
	if got := d.Rings[0].Do(t, nil, 1000, 1<<20); len(got) != maxChunk {
		t.Errorf("%d bytes for one request, want %d", len(got), maxChunk)
	}
	if got := d.Rings[0].Do(t, nil, 0); len(got) != 0 {
		t.Errorf("%d bytes for an empty request", len(got))
	}
}

func TestHostEntropyByDefault(t *testing.T) {
	d := virtiotest.New(t, New("rng0", nil), virtiotest.Config{})
	d.Start(0)
	a, b := d.Rings[0].Do(t, nil, 32), d.Rings[0].Do(t, nil, 32)
	if len(a) != 32 || bytes.Equal(a, b) || bytes.Equal(a, bytes.Repeat([]byte{0xa5}, 32)) {
		t.Errorf("twice %x, %x", a, b)
	}
}

func TestErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		source io.Reader
		out    [][]byte
	}{
		"readable buffer": {&counting{}, [][]byte{{1}}},
		"source fails":    {iotest.ErrReader(errors.New("broken")), nil},
		"source ends":     {bytes.NewReader([]byte{1}), nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := virtiotest.New(t, New("rng0", tt.source), virtiotest.Config{})
			d.Start(0)
			d.Rings[0].Add(tt.out, 8)
			d.Rings[0].Kick()
			for end := time.Now().Add(virtiotest.Timeout); !d.NeedsReset(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the device went on")
				}
			}
		})
	}
}

func FuzzRNG(f *testing.F) {
	virtiotest.Fuzz(f, func(testing.TB) virtio.Device { return New("rng0", &counting{}) })
}
