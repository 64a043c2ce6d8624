// Package serial is a 16550A UART, after National Semiconductor's PC16550D data
// sheet (June 1995); sections named in comments are its.
//
// The line has no speed: what is sent is out, and what is received is there,
// at once. The transmitter is therefore always empty, and a character timeout
// follows at once on the last character that was received.
package serial

import (
	"io"
	"sync"
)

// Size is the number of the UART's registers, each a byte wide.
const Size = 8

// Registers ("Registers", table II). With DLAB set, 0 and 1 are the divisor.
const (
	regData    = 0 // RBR on reading, THR on writing; DLL with DLAB
	regIER     = 1 // DLM with DLAB
	regIIR     = 2 // FCR on writing
	regLCR     = 3
	regMCR     = 4
	regLSR     = 5
	regMSR     = 6
	regScratch = 7
)

// Interrupt Enable Register.
const (
	ierReceived = 1 << 0
	ierTHRE     = 1 << 1
	ierLine     = 1 << 2
	ierModem    = 1 << 3
	ierMask     = 0x0f
)

// Interrupt Identification Register (table IV).
const (
	iirModem    = 0x00
	iirNone     = 0x01
	iirTHRE     = 0x02
	iirReceived = 0x04
	iirLine     = 0x06
	iirTimeout  = 0x0c
	iirFIFOs    = 0xc0
)

// FIFO Control Register.
const (
	fcrEnable  = 1 << 0
	fcrResetRX = 1 << 1
	fcrKept    = 0xc9 // enable, DMA mode and trigger level stay; the resets clear themselves
)

const (
	lcrBreak = 1 << 6
	lcrDLAB  = 1 << 7
)

// Modem Control Register.
const (
	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOut1 = 1 << 2
	mcrOut2 = 1 << 3
	mcrLoop = 1 << 4
	mcrMask = 0x1f
)

// Line Status Register.
const (
	lsrReady   = 1 << 0
	lsrOverrun = 1 << 1
	lsrBreak   = 1 << 4
	lsrErrors  = 0x1e
	lsrEmpty   = 1<<5 | 1<<6 // THRE and TEMT: the transmitter never has anything left
	lsrInFIFO  = 1 << 7
)

// Modem Status Register: inputs in the high half, their changes in the low.
const (
	msrTERI    = 1 << 2
	msrChanges = 0x0f
	msrCTS     = 1 << 4
	msrDSR     = 1 << 5
	msrRI      = 1 << 6
	msrDCD     = 1 << 7
	// The other end of the line is a program that is always there.
	msrPresent = msrCTS | msrDSR | msrDCD
)

const fifoDepth = 16

// triggers are the receiver's trigger levels, by FCR bits 7-6.
var triggers = [4]int{1, 4, 8, 14}

// UART is a 16550A. Its methods may be called from any goroutine.
type UART struct {
	irq func() error

	mu       sync.Mutex
	received func(p []byte) // who wants to know what arrives; nil: nobody

	ier uint8
	fcr uint8
	lcr uint8
	mcr uint8
	lsr uint8 // error bits only
	msr uint8
	scr uint8
	dll uint8
	dlm uint8

	thrEmpty bool // the THRE interrupt is pending: set by an emptied THR, cleared by reading it from IIR
	rx       fifo
	space    chan struct{} // holds a token when a feeder may find room again
	rtsSeen  bool          // RTS has been raised since DTR was
	listens  bool          // the guest is ready to receive: see listen
	polls    uint8         // reads of LSR in a row
	sent     uint64

	outMu sync.Mutex // orders writes to out; never taken inside mu
	out   io.Writer
	tx    [1]byte
}

// New returns a UART after a reset. What the guest sends is written to out,
// byte by byte, on the guest's time; an error of out's is ignored, as a UART
// cannot know whether anybody listens. nil means nobody does. irq pulses the
// interrupt line; nil: there is none.
func New(out io.Writer, irq func() error) *UART {
	if out == nil {
		out = io.Discard
	}
	if irq == nil {
		irq = func() error { return nil }
	}
	u := &UART{out: out, irq: irq, space: make(chan struct{}, 1)}
	u.reset()
	return u
}

// reset sets the registers as MR does (table I); 9600 baud in the divisor,
// which a reset leaves alone.
func (u *UART) reset() {
	u.ier, u.fcr, u.lcr, u.mcr, u.lsr, u.scr = 0, 0, 0, 0, 0, 0
	u.msr = msrPresent
	u.dll, u.dlm = 12, 0
	u.thrEmpty, u.rtsSeen, u.listens, u.polls = false, false, false, 0
	u.rx = fifo{}
}

// Read is a guest's read of len(p) registers from off on. Past the last
// register there is nothing: all ones.
func (u *UART) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = 0xff
		if r := off + uint64(i); off < Size && r < Size {
			p[i] = u.readRegister(r)
		}
	}
}

// Write is a guest's write to len(p) registers from off on.
func (u *UART) Write(off uint64, p []byte) {
	for i, v := range p {
		if r := off + uint64(i); off < Size && r < Size {
			u.writeRegister(r, v)
		}
	}
}
