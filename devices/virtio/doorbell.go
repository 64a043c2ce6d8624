package virtio

import "sync"

// bell is a doorbell inside the process, where the accelerator has none.
type bell chan struct{}

// NewDoorbell returns a doorbell that is a Go channel.
func NewDoorbell() Doorbell { return make(bell, 1) }

func (b bell) Wait() error {
	<-b
	return nil
}

func (b bell) Ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// Lending is how a Lender keeps what was lent: exclusion between the waiter and
// whoever works for it.
type Lending struct {
	mu   sync.Mutex // held while work runs
	work func() (done bool)
}

// Lend lends work out, or with nil ends that: work then runs no more.
func (l *Lending) Lend(work func() (done bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.work = work
}

// Worked does the work that is lent, if there is any. It says whether nothing
// is left to wake the waiter for.
func (l *Lending) Worked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.work != nil && l.work()
}
