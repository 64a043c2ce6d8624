package net

import (
	"context"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
)

// Classes and commands of the control queue (virtio 1.2 §5.1.6.5).
const (
	ctrlRX         = 0
	ctrlRXPromisc  = 0
	ctrlRXAllMulti = 1

	ctrlMAC         = 1
	ctrlMACTableSet = 0
	ctrlMACAddrSet  = 1

	ctrlAnnounce    = 3
	ctrlAnnounceAck = 0

	ctrlMQ        = 4
	ctrlMQPairSet = 0
)

// Answers to a command.
const (
	ctrlOK  = 0
	ctrlErr = 1
)

// control answers the driver's commands until ctx is done.
func (d *Device) control(ctx context.Context, q *virtio.Queue, features uint64) error {
	for ctx.Err() == nil {
		c, ok, err := q.Pop()
		if err != nil {
			return err
		}
		if !ok {
			if err := q.Wait(); err != nil {
				return err
			}
			continue
		}
		if err := d.answer(q, c, features); err != nil {
			return err
		}
	}
	return nil
}

func (d *Device) answer(q *virtio.Queue, c *virtio.Chain, features uint64) error {
	r := virtio.NewReader(c.Readable())
	ack := uint8(ctrlErr)
	if class, cmd := r.Uint8(), r.Uint8(); r.Err() == nil && d.command(class, cmd, &r, features) {
		ack = ctrlOK
	}
	w := virtio.NewWriter(c.Writable())
	w.PutUint8(ack)
	if w.Err() != nil {
		_ = q.Push(c, 0)
		return virtio.Fault(q.Index(), "5.1.6.5", "command without room for its answer")
	}
	if err := q.Push(c, 1); err != nil {
		return err
	}
	return q.Notify()
}

// command executes one command and reports whether it could. Commands of
// features that were not negotiated fail.
func (d *Device) command(class, cmd uint8, r *virtio.Cursor, features uint64) bool {
	f := *d.filter.Load()
	switch {
	case class == ctrlRX && cmd == ctrlRXPromisc && features&FeatureCtrlRX != 0:
		f.Promiscuous = r.Uint8() != 0
	case class == ctrlRX && cmd == ctrlRXAllMulti && features&FeatureCtrlRX != 0:
		f.AllMulticast = r.Uint8() != 0
	case class == ctrlMAC && cmd == ctrlMACTableSet && features&FeatureCtrlRX != 0:
		if !f.setTables(r) {
			return false
		}
	case class == ctrlMAC && cmd == ctrlMACAddrSet && features&FeatureCtrlMAC != 0:
		r.ReadFull(f.MAC[:])
		if f.check() != nil {
			return false
		}
	case class == ctrlAnnounce && cmd == ctrlAnnounceAck && features&FeatureAnnounce != 0:
		d.mu.Lock()
		d.announce = false
		d.mu.Unlock()
		return true
	case class == ctrlMQ && cmd == ctrlMQPairSet && features&FeatureMQ != 0:
		n := int(r.Uint16())
		return r.Err() == nil && d.setPairs(n)
	default:
		return false
	}
	if r.Err() != nil {
		return false
	}
	d.filter.Store(&f)
	return true
}

// setPairs has the back end spread frames over n queue pairs.
func (d *Device) setPairs(n int) bool {
	if n < 1 || n > len(d.pairs) {
		return false
	}
	if err := d.cfg.Backend.SetPairs(n); err != nil {
		d.cfg.Log.Warn("use several queues of the network", "device", d.cfg.Name, "err", err)
		return false
	}
	d.mu.Lock()
	d.active = n
	d.mu.Unlock()
	return true
}
