package softcpu

import (
	"sync"
	"time"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

var _ virtio.Lender = (*bell)(nil)

// bell is a doorbell: a store by the guest that wakes a device without leaving
// the run loop.
type bell struct {
	pio   bool
	addr  uint64
	width int
	match *uint64
	rung  chan struct{}

	// While the waiter sleeps, a CPU that rings may work for it: to wake
	// another thread costs more than most of what it is woken for, and the
	// guest's next instructions mostly wait for that anyway.
	virtio.Lending

	// With deterministic time the CPU that rings waits until the device waits
	// for the next ring, so that what the device does, and its interrupt, fall
	// between two instructions that the guest alone determines.
	det     bool
	mu      sync.Mutex
	waiting bool
	free    bool // does other things than work what it is rung for: not waited for
	back    chan struct{}
}

// bellPatience is how long a deterministic CPU waits for a device. One that
// takes longer waits for something from outside the machine.
const bellPatience = 5 * time.Second

// Doorbell returns a doorbell that the guest rings by writing to addr: width
// bytes (0: any) whose value is match, where match is not nil.
func (vm *VM) Doorbell(pio bool, addr uint64, width int, match *uint64) (d virtio.Doorbell, ok bool, err error) {
	b := &bell{pio: pio, addr: addr, width: width, rung: make(chan struct{}, 1),
		det: vm.opts.Deterministic, back: make(chan struct{}, 1)}
	if match != nil {
		m := *match
		b.match = &m
	}
	vm.mu.Lock()
	defer vm.mu.Unlock()
	var all []*bell
	if old := vm.bells.Load(); old != nil {
		all = append(all, *old...)
	}
	all = append(all, b)
	vm.bells.Store(&all)
	return b, true, nil
}

// Wait blocks until the doorbell has been rung since the last Wait.
func (b *bell) Wait() error {
	if !b.det {
		<-b.rung
		return nil
	}
	b.mu.Lock()
	b.waiting = true
	select {
	case b.back <- struct{}{}:
	default:
	}
	b.mu.Unlock()
	<-b.rung
	b.mu.Lock()
	b.waiting = false
	b.mu.Unlock()
	return nil
}

// WaitLending implements virtio.Lender. With deterministic time it is Wait: the
// CPU waits for the device then, so nothing is to be spared.
func (b *bell) WaitLending(work func() (done bool)) error {
	if b.det {
		return b.Wait()
	}
	b.Lend(work)
	<-b.rung
	b.Lend(nil)
	return nil
}

// Ring wakes the waiter.
func (b *bell) Ring() {
	select {
	case b.rung <- struct{}{}:
	default:
	}
}

// guestRing is a ring by the guest.
func (b *bell) guestRing() {
	if !b.det {
		if !b.Worked() {
			b.Ring()
		}
		return
	}
	if !b.settled() {
		b.Ring()
		return
	}
	b.mu.Lock()
	select {
	case <-b.back:
	default:
	}
	b.waiting = false
	b.Ring()
	b.mu.Unlock()
	b.AwaitReady()
}

// AwaitReady waits until the device waits for a ring.
func (b *bell) AwaitReady() { b.settled() }

// settled is AwaitReady, and says whether the device does wait.
func (b *bell) settled() bool {
	late := time.NewTimer(bellPatience)
	defer late.Stop()
	for {
		b.mu.Lock()
		waiting, free := b.waiting, b.free
		b.mu.Unlock()
		if waiting || free {
			return waiting
		}
		select {
		case <-b.back:
		case <-late.C:
			b.mu.Lock()
			b.free = true
			b.mu.Unlock()
		}
	}
}

// ring rings the doorbell that a store is for, and says whether there is one.
func (vm *VM) ring(pio bool, addr uint64, size uint8, v uint64) bool {
	all := vm.bells.Load()
	if all == nil {
		return false
	}
	for _, b := range *all {
		if b.addr == addr && b.pio == pio && (b.width == 0 || b.width == int(size)) && (b.match == nil || *b.match == v) {
			b.guestRing()
			return true
		}
	}
	return false
}
