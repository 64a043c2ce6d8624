package serial

import (
	"context"
	"io"
)

// Receive gives the guest as many bytes of p as the receiver has room for, in
// order, and returns how many that was: at most 16, and none while the guest
// is not ready (listen) or holds the line with RTS. Who sends more waits for
// Space and goes on.
func (u *UART) Receive(p []byte) int {
	u.mu.Lock()
	n := u.room()
	if n > len(p) {
		n = len(p)
	}
	for _, c := range p[:n] {
		u.arrive(c, 0)
	}
	if n > 0 && u.received != nil {
		u.received(p[:n])
	}
	raise := n > 0 && u.pending()&(ierReceived|ierLine) != 0
	u.mu.Unlock()
	if raise {
		_ = u.irq()
	}
	return n
}

// OnReceive has f told of all characters that arrive, in order. nil ends that. f
// must not call the UART, block or keep p.
func (u *UART) OnReceive(f func(p []byte)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.received = f
}

// Break is a break condition on the line: a null character with the break bit.
// It says whether there was room for it. Linux takes the character after it
// for a SysRq key.
func (u *UART) Break() bool {
	u.mu.Lock()
	ok := u.room() > 0
	if ok {
		u.arrive(0, lsrBreak)
	}
	raise := ok && u.pending() != 0
	u.mu.Unlock()
	if raise {
		_ = u.irq()
	}
	return ok
}

// Space has a token when Receive may take more than it did before.
func (u *UART) Space() <-chan struct{} { return u.space }

// Polled says whether the driver has turned all interrupts off.
func (u *UART) Polled() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ier == 0
}

// Sent is the number of characters that the guest has sent.
func (u *UART) Sent() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent
}

// Feed gives everything that r has to the guest, as fast as the guest takes
// it, until r ends (nil), fails, or ctx is done (its cause). A read of r that
// blocks is not interrupted: whoever cancels ctx also makes r return. Only one
// Feed at a time.
func (u *UART) Feed(ctx context.Context, r io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		if e := u.feed(ctx, buf[:n]); e != nil {
			return e
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (u *UART) feed(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := u.Receive(p)
		p = p[n:]
		if n > 0 {
			continue
		}
		select {
		case <-u.space:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// room is how many characters may arrive now.
func (u *UART) room() int {
	if u.mcr&mcrLoop != 0 || !u.listens || u.held() {
		return 0
	}
	return u.capacity() - u.rx.n
}

func (u *UART) capacity() int {
	if u.fcr&fcrEnable != 0 {
		return fifoDepth
	}
	return 1
}

// pollsToListen reads of LSR in a row, and nothing else, are made by a driver
// that waits for a character: the transmitter makes nobody wait.
const pollsToListen = 16

// listen finds out whether the guest is ready to receive. Drivers clear the
// receiver while they set the UART up, and whatever arrived before is lost;
// the other end of a real line would not have begun yet. A driver is ready
// when it has enabled the interrupt and raised RTS, or sends with the
// interrupt enabled (transmit), or polls.
func (u *UART) listen() {
	ready := u.ier&ierReceived != 0 && u.mcr&mcrRTS != 0 || u.polls >= pollsToListen
	if ready && !u.listens {
		u.listens = true
		u.wakeFeeder()
	}
}

// held says whether the guest asks the other end to wait: RTS down, after it
// was up with DTR. A guest that never raises RTS does not know of it.
func (u *UART) held() bool {
	return u.rtsSeen && u.mcr&(mcrDTR|mcrRTS) == mcrDTR
}

// holdOrRelease follows RTS and DTR after a write to MCR. With DTR down the
// port is closed.
func (u *UART) holdOrRelease() {
	switch {
	case u.mcr&mcrDTR == 0:
		u.rtsSeen, u.listens = false, false
	case u.mcr&mcrRTS != 0:
		u.rtsSeen = true
	}
	u.listen()
	if !u.held() {
		u.wakeFeeder()
	}
}

// arrive puts a character with its error into the receiver. One for which
// there is no room is lost: in the FIFO itself, without FIFO the one before
// it ("Line Status Register", bit 1).
func (u *UART) arrive(c, err uint8) {
	switch {
	case u.rx.n < u.capacity():
		u.rx.push(c, err)
	case u.capacity() == 1:
		u.lsr |= lsrOverrun
		u.rx.replace(c, err)
	default:
		u.lsr |= lsrOverrun
		return
	}
	if u.rx.n == 1 {
		u.lsr |= u.rx.top()
	}
}

// wakeFeeder leaves a token for who waits for room.
func (u *UART) wakeFeeder() {
	select {
	case u.space <- struct{}{}:
	default:
	}
}
