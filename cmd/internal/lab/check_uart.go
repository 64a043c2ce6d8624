package lab

import (
	"fmt"
	"strings"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// Ports of lab 4, and what COM1's line is.
const (
	uartEnable  = com1 + 1
	uartModem   = com1 + 4
	uartStatus  = com1 + 5
	com1Line    = 4
	modemListen = 0x0b // DTR, RTS and OUT2
)

func checkEcho(r *Result) []string {
	in := len(r.Start.Input)
	if polls := r.accesses(uartStatus, false); polls > in {
		return []string{fmt.Sprintf("the program must sleep until the UART interrupts, and it read the line status register (port 0x3fd) %d times: it polls", polls)}
	}
	broken := r.said(r.Start.Input)
	if len(broken) == 0 && r.Halted {
		return nil
	}
	if gate := r.closedGate(in); gate != "" {
		broken = append(broken, gate)
	}
	return broken
}

// closedGate is the first thing between a byte and its handler that is not as
// it must be, "" if there is none.
func (r *Result) closedGate(in int) string {
	const line = 1 << com1Line
	modem, enable := r.lastWrite(uartModem), r.lastWrite(uartEnable)
	reads := r.accesses(com1, false)
	switch {
	case strings.ReplaceAll(r.Output, "\x00", "") == r.Start.Input:
		return "a handler must ask whether there is a byte (bit 0 of port 0x3fa is clear if there is a reason for the interrupt): this one took a byte that was not there, a zero"
	case reads == 0 && r.Output != "":
		return "the handler must read the byte from port 0x3f8: until then the UART does not interrupt for another"
	case modem&modemListen != modemListen:
		return fmt.Sprintf("the modem control register (port 0x3fc) must have DTR, RTS and OUT2, %#x: the other end sends only to a port that asks for it; it was %s", modemListen, wasWritten(modem))
	case enable&1 == 0:
		return fmt.Sprintf("the UART interrupts for received data only with bit 0 of its interrupt enable register (port 0x3f9) set; it was %s", wasWritten(enable))
	case r.Halted:
		return "the program must sleep with interrupts on until the newline has come: STI, HLT; it halted with interrupts off before"
	case r.PIC.IRQBase == 0:
		return "the PIC has no vectors until it has had its initialisation words: 0x11 to port 0x20, then three to port 0x21"
	case r.PIC.IMR&line != 0:
		return fmt.Sprintf("line 4 must be open at the PIC, and its mask (port 0x21) is %#x: bit 4 is set", r.PIC.IMR)
	case r.strayed():
		n, segment, offset := r.vector()
		return fmt.Sprintf("line 4 is vector %#x, as the PIC's vectors begin at %#x (ICW2), and the entry at %#x leads to %#x:%#x, outside of the program",
			n, r.PIC.IRQBase, 4*n, segment, offset)
	case r.PIC.ISR&line != 0 && r.State == x86.MPHalted:
		return "each interrupt ends by an EOI (0x20 to port 0x20): without it the PIC holds the next one back"
	}
	return ""
}

// lastWrite is the last value written to a port, 0 if there was none.
func (r *Result) lastWrite(port uint64) (v int) {
	for i := range r.Events {
		if e := &r.Events[i]; e.Kind == trace.KindIO && e.Addr == port && e.Write {
			v = int(e.Value)
		}
	}
	return v
}

func wasWritten(v int) string {
	if v == 0 {
		return "0 or never written"
	}
	return fmt.Sprintf("last written %#x", v)
}

// vector is where the vector of COM1's line leads.
func (r *Result) vector() (n uint32, segment, offset uint16) {
	n = uint32(r.PIC.IRQBase&^7 + com1Line)
	offset, _ = r.Mem.LoadUint16(memory.Addr(4 * n)) // below 1 KiB there is memory
	segment, _ = r.Mem.LoadUint16(memory.Addr(4*n + 2))
	return n, segment, offset
}

// strayed says whether an interrupt leads out of the program.
func (r *Result) strayed() bool {
	_, segment, offset := r.vector()
	at := uint32(segment)<<4 + uint32(offset)
	return at < loadAddr || at >= loadAddr+maxProgram
}
