package virtiotest

import "github.com/vitrine-vmm/vitrine/devices/virtio"

// lender is a doorbell at which the driver works for the device (virtio.Lender).
type lender struct {
	virtio.Doorbell
	virtio.Lending
}

// NewLender returns a doorbell that lends, and what the driver rings it with.
func NewLender() (bell virtio.Lender, ring func()) {
	l := &lender{Doorbell: virtio.NewDoorbell()}
	return l, func() {
		if !l.Worked() {
			l.Ring()
		}
	}
}

// WaitLending implements virtio.Lender.
func (l *lender) WaitLending(work func() (done bool)) error {
	l.Lend(work)
	defer l.Lend(nil)
	return l.Wait()
}

// newBell returns a doorbell as cfg wants it, and what a driver rings it with.
func (cfg *Config) newBell() (virtio.Doorbell, func()) {
	if cfg.Lends {
		return NewLender()
	}
	b := virtio.NewDoorbell()
	return b, b.Ring
}
