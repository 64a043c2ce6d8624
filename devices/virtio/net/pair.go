package net

import (
	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// batch is how many frames pass before the driver gets an interrupt for them,
// if so many are there at once.
const batch = 64

// pair is a queue pair and the port behind it. What it holds outlives a Serve:
// a frame that was received and found no buffer waits for the next.
type pair struct {
	d    *Device
	port Port

	tx      counters // from the guest; written by the transmitting goroutine
	txHdr   [HeaderLen]byte
	txFrame [][]byte
	txDone  []*virtio.Chain
	txZeros []uint32 // bytes written to each of txDone: none
	txLimit *limit

	rx      counters // to the guest; written by the receiving goroutine
	rxHdr   [HeaderLen]byte
	frame   [][]byte // received from port and not delivered yet
	rxFrame [][]byte // the same behind rxHdr
	chains  []*virtio.Chain
	written []uint32 // bytes of the frame in each of chains
	rxLimit *limit
}

func newPair(d *Device, port Port, toGuest, fromGuest *limit) *pair {
	return &pair{d: d, port: port, rxLimit: toGuest, txLimit: fromGuest, txZeros: make([]uint32, batch)}
}

// observe shows a frame to whoever watches.
func (d *Device) observe(toGuest bool, frame [][]byte) {
	if o := d.observer.Load(); o != nil {
		(*o).Frame(toGuest, frame)
	}
}
