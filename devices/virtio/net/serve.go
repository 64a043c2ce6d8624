package net

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Serve implements virtio.Device: two goroutines for each queue pair, one for
// the control queue.
func (d *Device) Serve(ctx context.Context, features uint64, qs []*virtio.Queue) error {
	features = settle(features)
	if err := d.begin(features); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	woken := make(chan struct{})
	context.AfterFunc(ctx, func() {
		d.wake(qs)
		close(woken)
	})

	var wg sync.WaitGroup
	var once sync.Once
	var first error
	start := func(f func(context.Context, *virtio.Queue, uint64) error, q *virtio.Queue) {
		if q == nil {
			return
		}
		wg.Go(func() {
			if err := f(ctx, q, features); err != nil {
				once.Do(func() { first = err })
				cancel()
			}
		})
	}
	ctrl := d.ctrlQueue(features)
	for i, p := range d.pairs {
		if queuesPerPair*i >= ctrl {
			break
		}
		start(p.receive, qs[queuesPerPair*i])
		start(p.transmit, qs[queuesPerPair*i+1])
	}
	if features&FeatureCtrlVQ != 0 {
		start(d.control, qs[ctrl])
	}
	<-woken // so that nothing rings a doorbell after Serve
	wg.Wait()
	return first
}

// begin tells the back end what the driver has chosen, and has a restored guest
// announced.
func (d *Device) begin(features uint64) error {
	if extra := features & Offloads &^ d.cfg.Backend.Offloads(); extra != 0 { // after a restore
		return fmt.Errorf("network device %s: the guest uses offloads %#x that this network lacks: give it one like the one it was started with",
			d.cfg.Name, extra)
	}
	if err := d.cfg.Backend.SetOffloads(features & Offloads); err != nil {
		return fmt.Errorf("network device %s: %w", d.cfg.Name, err)
	}
	d.mu.Lock()
	n := d.active
	tell := d.restored && features&FeatureAnnounce != 0 && switched(d.cfg.Backend)
	d.announce = d.announce || tell
	d.restored = false
	d.mu.Unlock()
	if err := d.cfg.Backend.SetPairs(n); err != nil {
		return fmt.Errorf("network device %s: %w", d.cfg.Name, err)
	}
	if tell {
		d.configChanged()
	}
	return nil
}

func switched(b Backend) bool {
	s, ok := b.(Switched)
	return !ok || s.Switched()
}

// wake makes every goroutine of Serve look at its context.
func (d *Device) wake(qs []*virtio.Queue) {
	for _, q := range qs {
		if q != nil {
			q.Ring()
		}
	}
	for _, p := range d.pairs {
		p.port.Wake()
	}
}

// lost is for a back end that carries nothing any more: the guest sees its
// cable pulled out.
func (d *Device) lost(err error) {
	if !d.down.Swap(true) {
		d.cfg.Log.Warn("the guest's network is gone", "device", d.cfg.Name, "err", err)
		d.configChanged()
	}
}

// Reset implements virtio.Resetter.
func (d *Device) Reset() {
	d.resetFilter()
	d.mu.Lock()
	d.active, d.announce, d.restored = 1, false, false
	d.mu.Unlock()
	for _, p := range d.pairs {
		p.frame = nil
	}
}

const stateVersion = 1

// deviceState is what a snapshot keeps of a device.
type deviceState struct {
	Version int
	Filter  filter
	Pairs   int // that the driver uses
	Down    bool
}

// State implements virtio.Stater.
func (d *Device) State() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return json.Marshal(deviceState{Version: stateVersion, Filter: *d.filter.Load(), Pairs: d.active, Down: d.down.Load()})
}

// SetState implements virtio.Stater. The guest keeps the MAC address that it
// had, and is asked to announce itself where it is now (virtio 1.2 §5.1.6.5.4).
func (d *Device) SetState(state []byte) error {
	var s deviceState
	err := json.Unmarshal(state, &s)
	switch {
	case err != nil:
	case s.Version != stateVersion:
		err = fmt.Errorf("state of version %d, want %d", s.Version, stateVersion)
	case s.Pairs < 1 || s.Pairs > len(d.pairs):
		err = fmt.Errorf("%d queue pairs in use, and the network has %d", s.Pairs, len(d.pairs))
	default:
		err = s.Filter.check()
	}
	if err != nil {
		return fmt.Errorf("restore network device %s: %w", d.cfg.Name, err)
	}
	d.filter.Store(&s.Filter)
	d.down.Store(s.Down)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.active, d.restored = s.Pairs, true
	return nil
}
