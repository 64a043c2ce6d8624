package serial

// pending returns the enabled interrupts that wait, as bits of IER.
func (u *UART) pending() (p uint8) {
	if u.lsr&lsrErrors != 0 {
		p |= ierLine
	}
	if u.rx.n > 0 {
		p |= ierReceived
	}
	if u.thrEmpty {
		p |= ierTHRE
	}
	if u.msr&msrChanges != 0 {
		p |= ierModem
	}
	return p & u.ier
}

// cause is the low half of IIR: the pending interrupt of the highest priority
// (table IV). Fewer characters than the trigger level are announced by the
// character timeout.
func (u *UART) cause() uint8 {
	p := u.pending()
	switch {
	case p&ierLine != 0:
		return iirLine
	case p&ierReceived != 0:
		if u.fcr&fcrEnable != 0 && u.rx.n < triggers[u.fcr>>6] {
			return iirTimeout
		}
		return iirReceived
	case p&ierTHRE != 0:
		return iirTHRE
	case p&ierModem != 0:
		return iirModem
	}
	return iirNone
}

// acknowledged says, after an access before which the interrupts in before
// were pending, whether to pulse the line: for a new cause, and for one that
// is left when another goes. The chip keeps its line up then, but the line
// here is an edge, and the driver may have taken the edge for the cause that
// is gone.
func (u *UART) acknowledged(before uint8) bool {
	now := u.pending()
	return now != 0 && now != before
}
