package serial

import (
	"fmt"
	"strings"
)

// Decoder names accesses to a UART, for traces. It follows DLAB, which decides
// what the first two registers are.
type Decoder struct{ lcr uint8 }

type bitName struct {
	bit  uint8
	name string
}

var (
	ierNames = []bitName{{ierReceived, "received data"}, {ierTHRE, "THR empty"}, {ierLine, "line status"}, {ierModem, "modem status"}}
	lsrNames = []bitName{{lsrReady, "DR"}, {lsrOverrun, "OE"}, {1 << 2, "PE"}, {1 << 3, "FE"}, {lsrBreak, "BI"}, {1 << 5, "THRE"}, {1 << 6, "TEMT"}, {lsrInFIFO, "FIFO error"}}
	msrNames = []bitName{{1 << 0, "DCTS"}, {1 << 1, "DDSR"}, {msrTERI, "TERI"}, {1 << 3, "DDCD"}, {msrCTS, "CTS"}, {msrDSR, "DSR"}, {msrRI, "RI"}, {msrDCD, "DCD"}}
	mcrNames = []bitName{{mcrDTR, "DTR"}, {mcrRTS, "RTS"}, {mcrOut1, "OUT1"}, {mcrOut2, "OUT2"}, {mcrLoop, "loopback"}}
	iirNames = map[uint8]string{iirModem: "modem status", iirNone: "no interrupt", iirTHRE: "THR empty", iirReceived: "received data",
		iirLine: "line status", iirTimeout: "character timeout"}
)

func bits(v uint8, names []bitName) string {
	var set []string
	for _, n := range names {
		if v&n.bit != 0 {
			set = append(set, n.name)
		}
	}
	if len(set) == 0 {
		return "none"
	}
	return strings.Join(set, " ")
}

// Access names the register at off, and says what the value means ("" where
// there is nothing to say).
func (d *Decoder) Access(off uint64, _ uint8, write bool, value uint64) (register, meaning string) {
	v := uint8(value)
	divisor := d.lcr&lcrDLAB != 0
	switch {
	case off == regData && divisor:
		return "DLL", ""
	case off == regIER && divisor:
		return "DLM", ""
	case off == regData && write:
		return "THR", fmt.Sprintf("%q", rune(v))
	case off == regData:
		return "RBR", fmt.Sprintf("%q", rune(v))
	case off == regIER:
		return "IER", bits(v, ierNames)
	case off == regIIR && write:
		return "FCR", fifoText(v)
	case off == regIIR:
		return "IIR", iirNames[v&0x0f]
	case off == regLCR:
		if write {
			d.lcr = v
		}
		return "LCR", lineText(v)
	case off == regMCR:
		return "MCR", bits(v, mcrNames)
	case off == regLSR:
		return "LSR", bits(v, lsrNames)
	case off == regMSR:
		return "MSR", bits(v, msrNames)
	case off == regScratch:
		return "SCR", ""
	}
	return "", ""
}

func fifoText(v uint8) string {
	if v&fcrEnable == 0 {
		return "FIFOs off"
	}
	s := fmt.Sprintf("FIFOs on, trigger at %d", triggers[v>>6])
	if v&fcrResetRX != 0 {
		s += ", reset receiver"
	}
	if v&(1<<2) != 0 {
		s += ", reset transmitter"
	}
	return s
}

// lineText is a line format as it is usually written: 8N1.
func lineText(v uint8) string {
	parity := "N"
	if v&(1<<3) != 0 {
		parity = [...]string{"O", "E", "M", "S"}[v>>4&3]
	}
	s := fmt.Sprintf("%d%s%d", 5+v&3, parity, 1+v>>2&1)
	if v&lcrDLAB != 0 {
		s += " DLAB"
	}
	if v&lcrBreak != 0 {
		s += " break"
	}
	return s
}
