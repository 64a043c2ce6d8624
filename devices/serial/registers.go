package serial

func (u *UART) readRegister(r uint64) uint8 {
	u.mu.Lock()
	before := u.pending()
	v := u.read(r)
	raise := u.acknowledged(before)
	u.mu.Unlock()
	if raise {
		_ = u.irq()
	}
	return v
}

func (u *UART) read(r uint64) uint8 {
	if r != regLSR {
		u.polls = 0
	}
	switch r {
	case regData:
		if u.lcr&lcrDLAB != 0 {
			return u.dll
		}
		return u.receiverBuffer()
	case regIER:
		if u.lcr&lcrDLAB != 0 {
			return u.dlm
		}
		return u.ier
	case regIIR:
		return u.identify()
	case regLCR:
		return u.lcr
	case regMCR:
		return u.mcr
	case regLSR:
		return u.lineStatus()
	case regMSR:
		v := u.msr
		u.msr &^= msrChanges
		return v
	default:
		return u.scr
	}
}

func (u *UART) receiverBuffer() uint8 {
	if u.rx.n == 0 {
		return 0
	}
	c := u.rx.pop()
	u.lsr |= u.rx.top()
	if u.rx.n == 0 {
		u.wakeFeeder()
	}
	return c
}

func (u *UART) lineStatus() uint8 {
	v := u.lsr | lsrEmpty
	if u.rx.n > 0 {
		v |= lsrReady
	}
	if u.fcr&fcrEnable != 0 && (u.rx.bad > 0 || u.lsr&(lsrErrors&^lsrOverrun) != 0) {
		v |= lsrInFIFO
	}
	u.lsr = 0
	if u.polls < pollsToListen {
		u.polls++
		u.listen()
	}
	return v
}

// identify is a read of IIR: the pending interrupt of the highest priority.
// Reading THRE there acknowledges it (table IV).
func (u *UART) identify() uint8 {
	v := u.cause()
	if v == iirTHRE {
		u.thrEmpty = false
	}
	if u.fcr&fcrEnable != 0 {
		v |= iirFIFOs
	}
	return v
}

func (u *UART) writeRegister(r uint64, v uint8) {
	u.mu.Lock()
	if r == regData && u.lcr&lcrDLAB == 0 {
		u.mu.Unlock()
		u.transmit(v)
		return
	}
	before := u.pending()
	u.write(r, v)
	raise := u.acknowledged(before)
	// The driver may have changed IER while its interrupt line was masked
	// and the edge lost: whatever is pending is raised again.
	if r == regIER && u.pending() != 0 {
		raise = true
	}
	u.mu.Unlock()
	if raise {
		_ = u.irq()
	}
}

func (u *UART) write(r uint64, v uint8) {
	u.polls = 0
	switch r {
	case regData:
		u.dll = v
	case regIER:
		u.writeIER(v)
	case regIIR:
		u.writeFCR(v)
	case regLCR:
		u.writeLCR(v)
	case regMCR:
		u.writeMCR(v)
	case regScratch:
		u.scr = v
	} // LSR and MSR are for reading; writes are for the factory's tests
}

func (u *UART) writeIER(v uint8) {
	if u.lcr&lcrDLAB != 0 {
		u.dlm = v
		return
	}
	// Enabling the THRE interrupt with THR empty raises it at once, even if
	// it has been acknowledged before: drivers start to send this way.
	if v&ierTHRE != 0 && u.ier&ierTHRE == 0 {
		u.thrEmpty = true
	}
	u.ier = v & ierMask
	u.listen()
}

// writeFCR: without the enable bit the others are not programmed, and a change
// of it clears the FIFOs ("FIFO Control Register").
func (u *UART) writeFCR(v uint8) {
	if v&fcrEnable == 0 {
		v = 0
	}
	if v&fcrResetRX != 0 || (v^u.fcr)&fcrEnable != 0 {
		u.rx = fifo{}
		u.wakeFeeder()
	}
	u.fcr = v & fcrKept
}

// writeLCR: a break on the line is received by nobody, except in loopback.
func (u *UART) writeLCR(v uint8) {
	if v&^u.lcr&lcrBreak != 0 && u.mcr&mcrLoop != 0 {
		u.arrive(0, lsrBreak)
	}
	u.lcr = v
}

func (u *UART) writeMCR(v uint8) {
	u.mcr = v & mcrMask
	if u.mcr&mcrLoop == 0 {
		u.setInputs(msrPresent)
		u.holdOrRelease()
		return
	}
	// "Modem Control Register", bit 4: the outputs are connected to the
	// inputs, RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
	var in uint8
	for _, w := range [...]struct{ out, in uint8 }{{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOut1, msrRI}, {mcrOut2, msrDCD}} {
		if u.mcr&w.out != 0 {
			in |= w.in
		}
	}
	u.setInputs(in)
}

// setInputs sets the modem inputs and what changed of them; the ring indicator
// counts when it ends.
func (u *UART) setInputs(in uint8) {
	old := u.msr &^ msrChanges
	changes := (old ^ in) >> 4 &^ msrTERI
	if old&^in&msrRI != 0 {
		changes |= msrTERI
	}
	u.msr = u.msr&msrChanges | in | changes
}

// transmit sends a character. The lock is not held while it is written, so
// that a slow writer keeps only this CPU.
func (u *UART) transmit(c uint8) {
	u.mu.Lock()
	loop := u.mcr&mcrLoop != 0
	if loop {
		u.arrive(c, 0)
	}
	u.mu.Unlock()
	if !loop {
		u.outMu.Lock()
		u.tx[0] = c
		_, _ = u.out.Write(u.tx[:])
		u.outMu.Unlock()
	}
	u.mu.Lock()
	u.sent++
	u.polls = 0
	if u.ier&ierReceived != 0 {
		u.listens = true
		u.wakeFeeder()
	}
	// THR is empty again. On the chip the line falls and rises with every
	// character: a new edge each time, also for drivers that never read IIR.
	u.thrEmpty = true
	raise := u.pending()&(ierTHRE|ierReceived|ierLine) != 0
	u.mu.Unlock()
	if raise {
		_ = u.irq()
	}
}
