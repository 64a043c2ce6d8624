package serial

import (
	"bytes"
	"errors"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

var _ bus.Device = (*UART)(nil)

// line is a UART with what it sent and how often it pulled its interrupt line.
type line struct {
	*UART
	out    bytes.Buffer
	pulses int
}

func newLine() *line {
	l := new(line)
	l.UART = New(&l.out, func() error { l.pulses++; return nil })
	return l
}

func (l *line) get(r uint64) uint8 {
	p := []byte{0}
	l.Read(r, p)
	return p[0]
}

func (l *line) set(r uint64, v uint8) { l.Write(r, []byte{v}) }

// open does what a driver does to receive: FIFOs on, interrupt on, RTS up.
func (l *line) open(fcr, ier uint8) {
	l.set(regIIR, fcr)
	l.set(regIER, ier)
	l.set(regMCR, mcrDTR|mcrRTS|mcrOut2)
	l.pulses = 0
}

func expect[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %#v, want %#v", what, got, want)
	}
}

func TestResetValues(t *testing.T) {
	l := newLine()
	for r, want := range []uint8{0, 0, iirNone, 0, 0, lsrEmpty, msrPresent, 0} {
		if got := l.get(uint64(r)); got != want {
			t.Errorf("register %d: %#x, want %#x", r, got, want)
		}
	}
}

func TestScratchHoldsEveryValue(t *testing.T) {
	l := newLine()
	for v := range 256 {
		l.set(regScratch, uint8(v))
		expect(t, "scratch", l.get(regScratch), uint8(v))
	}
}

func TestDivisorLatchHidesDataAndIER(t *testing.T) {
	l := newLine()
	l.set(regIER, ierLine)
	l.set(regLCR, lcrDLAB|3)
	l.set(regData, 0x34)
	l.set(regIER, 0x12)
	expect(t, "DLL", l.get(regData), 0x34)
	expect(t, "DLM", l.get(regIER), 0x12)
	expect(t, "sent", l.out.Len(), 0)
	l.set(regLCR, 3)
	expect(t, "IER", l.get(regIER), ierLine)
	expect(t, "LCR", l.get(regLCR), 3)
}

func TestReservedBitsReadAsZero(t *testing.T) {
	l := newLine()
	l.set(regIER, 0xff)
	l.set(regMCR, 0xff)
	expect(t, "IER", l.get(regIER), 0x0f)
	expect(t, "MCR", l.get(regMCR), 0x1f)
}

func TestSendsInOrderAndIsAlwaysReady(t *testing.T) {
	l := newLine()
	for _, c := range []byte("hello") {
		expect(t, "LSR", l.get(regLSR), lsrEmpty)
		l.set(regData, c)
	}
	expect(t, "sent", l.out.String(), "hello")
}

func TestTHREInterrupt(t *testing.T) {
	l := newLine()
	l.set(regIER, ierTHRE)
	expect(t, "pulses on enabling", l.pulses, 1)
	expect(t, "IIR", l.get(regIIR), iirTHRE)
	expect(t, "IIR after it was read", l.get(regIIR), iirNone)
	l.set(regData, 'x')
	expect(t, "pulses after sending", l.pulses, 2)
	expect(t, "IIR", l.get(regIIR), iirTHRE)
	// Linux's serial8250_THRE_test: off and on again must raise it again.
	l.set(regIER, 0)
	expect(t, "IIR while off", l.get(regIIR), iirNone)
	l.set(regIER, ierTHRE)
	expect(t, "pulses", l.pulses, 3)
	expect(t, "IIR after enabling again", l.get(regIIR), iirTHRE)
}

func TestTHREInterruptForADriverThatNeverReadsIIR(t *testing.T) {
	l := newLine()
	l.set(regIER, ierTHRE)
	l.pulses = 0
	for range 5 {
		l.set(regData, 'x')
	}
	expect(t, "pulses", l.pulses, 5)
}

func TestReceiveWithoutFIFO(t *testing.T) {
	l := newLine()
	l.open(0, ierReceived)
	expect(t, "taken", l.Receive([]byte("ab")), 1)
	expect(t, "pulses", l.pulses, 1)
	expect(t, "IIR", l.get(regIIR), iirReceived)
	expect(t, "LSR", l.get(regLSR), lsrEmpty|lsrReady)
	expect(t, "taken while full", l.Receive([]byte("b")), 0)
	expect(t, "RBR", l.get(regData), 'a')
	expect(t, "IIR after reading", l.get(regIIR), iirNone)
	expect(t, "LSR after reading", l.get(regLSR), lsrEmpty)
}

func TestTriggerLevelsAndCharacterTimeout(t *testing.T) {
	for i, level := range triggers {
		l := newLine()
		l.open(fcrEnable|uint8(i)<<6, ierReceived)
		expect(t, "taken", l.Receive(make([]byte, level)), level)
		expect(t, "IIR at the level", l.get(regIIR), iirReceived|iirFIFOs)
		l.get(regData)
		if level > 1 {
			expect(t, "IIR below the level", l.get(regIIR), iirTimeout|iirFIFOs)
		}
		for range level - 1 {
			l.get(regData)
		}
		expect(t, "IIR when empty", l.get(regIIR), iirNone|iirFIFOs)
	}
}

func TestFIFOIsSixteenDeep(t *testing.T) {
	l := newLine()
	l.open(fcrEnable, 0)
	l.set(regIER, ierReceived)
	in := []byte("0123456789abcdefXYZ")
	expect(t, "taken", l.Receive(in), 16)
	for _, c := range in[:16] {
		expect(t, "RBR", l.get(regData), c)
	}
	expect(t, "taken", l.Receive(in[16:]), 3)
	expect(t, "RBR", l.get(regData), 'X')
}

func TestFIFOControl(t *testing.T) {
	l := newLine()
	l.open(fcrEnable, ierReceived)
	l.Receive([]byte("abc"))
	l.set(regIIR, fcrEnable|fcrResetRX)
	expect(t, "LSR after the receiver's reset", l.get(regLSR), lsrEmpty)
	expect(t, "IIR", l.get(regIIR), iirNone|iirFIFOs)
	l.Receive([]byte("abc"))
	l.set(regIIR, 0xc0) // without the enable bit nothing else counts
	expect(t, "LSR after FIFOs off", l.get(regLSR), lsrEmpty)
	expect(t, "IIR", l.get(regIIR), iirNone)
	expect(t, "taken", l.Receive([]byte("abc")), 1)
}

func TestPriorities(t *testing.T) {
	l := newLine()
	l.set(regIIR, fcrEnable)
	l.set(regIER, 0x0f)
	l.set(regMCR, mcrLoop)
	l.set(regData, 'a')
	l.set(regLCR, lcrBreak)
	l.get(regData) // the break is next
	expect(t, "first", l.get(regIIR)&15, iirLine)
	l.get(regLSR)
	expect(t, "second", l.get(regIIR)&15, iirReceived)
	l.get(regData)
	expect(t, "third", l.get(regIIR)&15, iirTHRE)
	expect(t, "fourth", l.get(regIIR)&15, iirModem)
	l.get(regMSR)
	expect(t, "last", l.get(regIIR)&15, iirNone)
}

// An edge-triggered line must get a new edge for what is left when one cause
// goes: the driver may come once an edge, and only for one cause.
func TestEdgeForTheCauseThatIsLeft(t *testing.T) {
	l := newLine()
	l.open(fcrEnable, ierReceived|ierTHRE)
	l.Receive([]byte("a"))
	l.pulses = 0
	l.get(regData) // acknowledges received data; THRE waits
	expect(t, "pulses", l.pulses, 1)
	expect(t, "IIR", l.get(regIIR), iirTHRE|iirFIFOs)
	expect(t, "pulses when nothing is left", l.pulses, 1)
}

func TestEnablingRaisesWhatWaits(t *testing.T) {
	l := newLine()
	l.open(fcrEnable, ierReceived)
	l.set(regIER, 0)
	l.Receive([]byte("a"))
	expect(t, "pulses while off", l.pulses, 0)
	l.set(regIER, ierReceived)
	expect(t, "pulses", l.pulses, 1)
	l.set(regIER, ierReceived) // the first edge may have met a masked pin
	expect(t, "pulses", l.pulses, 2)
}

func TestLoopback(t *testing.T) {
	l := newLine()
	l.set(regIIR, fcrEnable)
	l.set(regIER, ierReceived)
	l.set(regMCR, mcrLoop)
	l.set(regData, 'q')
	expect(t, "sent", l.out.Len(), 0)
	expect(t, "LSR", l.get(regLSR), lsrEmpty|lsrReady)
	expect(t, "IIR", l.get(regIIR), iirReceived|iirFIFOs)
	expect(t, "RBR", l.get(regData), 'q')
	expect(t, "taken from outside", l.Receive([]byte("a")), 0)
}

func TestLoopbackConnectsModemLines(t *testing.T) {
	l := newLine()
	for out, in := range map[uint8]uint8{mcrDTR: msrDSR, mcrRTS: msrCTS, mcrOut1: msrRI, mcrOut2: msrDCD} {
		l.set(regMCR, mcrLoop|out)
		expect(t, "MSR", l.get(regMSR)&0xf0, in)
	}
	l.set(regMCR, mcrLoop|mcrOut1)
	l.get(regMSR)
	l.set(regMCR, mcrLoop)
	expect(t, "MSR when the ring ends", l.get(regMSR), msrTERI)
	l.set(regMCR, mcrLoop|mcrOut1)
	expect(t, "MSR when it begins", l.get(regMSR), msrRI)
	l.set(regMCR, 0)
	expect(t, "MSR afterwards", l.get(regMSR)&0xf0, msrPresent)
}

func TestModemStatusInterrupt(t *testing.T) {
	l := newLine()
	l.set(regIER, ierModem)
	l.set(regMCR, mcrLoop)
	expect(t, "pulses", l.pulses, 1)
	expect(t, "IIR", l.get(regIIR), iirModem)
	expect(t, "MSR changes", l.get(regMSR)&msrChanges, 0x0b)
	expect(t, "IIR after MSR was read", l.get(regIIR), iirNone)
	expect(t, "MSR changes read again", l.get(regMSR)&msrChanges, 0)
}

func TestBreakArrivesInItsPlace(t *testing.T) {
	l := newLine()
	l.open(fcrEnable, ierReceived|ierLine)
	l.Receive([]byte("a"))
	expect(t, "break taken", l.Break(), true)
	expect(t, "LSR with the break behind a character", l.get(regLSR), lsrEmpty|lsrReady|lsrInFIFO)
	expect(t, "RBR", l.get(regData), 'a')
	expect(t, "IIR", l.get(regIIR), iirLine|iirFIFOs)
	expect(t, "LSR", l.get(regLSR), lsrEmpty|lsrReady|lsrInFIFO|lsrBreak)
	expect(t, "LSR read again", l.get(regLSR), lsrEmpty|lsrReady)
	expect(t, "RBR", l.get(regData), 0)
}

func TestOverrunInLoopback(t *testing.T) {
	l := newLine()
	l.set(regMCR, mcrLoop)
	l.set(regData, 'a')
	l.set(regData, 'b')
	expect(t, "LSR", l.get(regLSR), lsrEmpty|lsrReady|lsrOverrun)
	expect(t, "RBR without FIFO: the last", l.get(regData), 'b')
	l.set(regIIR, fcrEnable)
	for i := range 17 {
		l.set(regData, uint8(i))
	}
	expect(t, "LSR", l.get(regLSR), lsrEmpty|lsrReady|lsrOverrun)
	for i := range 16 {
		expect(t, "RBR with FIFO: the first sixteen", l.get(regData), uint8(i))
	}
	expect(t, "LSR", l.get(regLSR), lsrEmpty)
}

func TestNothingIsReceivedBeforeTheDriverIsReady(t *testing.T) {
	l := newLine()
	expect(t, "taken after reset", l.Receive([]byte("a")), 0)
	l.set(regIIR, fcrEnable) // as Linux's startup does it
	l.set(regIER, ierReceived|ierLine)
	expect(t, "taken before RTS", l.Receive([]byte("a")), 0)
	l.set(regMCR, mcrDTR|mcrRTS|mcrOut2)
	expect(t, "taken", l.Receive([]byte("a")), 1)
	l.set(regMCR, mcrDTR|mcrOut2)
	expect(t, "taken while RTS is down", l.Receive([]byte("b")), 0)
	l.set(regMCR, mcrDTR|mcrRTS|mcrOut2)
	expect(t, "taken again", l.Receive([]byte("b")), 1)
	l.set(regMCR, 0)
	expect(t, "taken when closed", l.Receive([]byte("c")), 0)
}

func TestPollingDriverIsReady(t *testing.T) {
	l := newLine()
	for range pollsToListen {
		expect(t, "taken", l.Receive([]byte("a")), 0)
		l.get(regLSR)
	}
	expect(t, "taken once it polls", l.Receive([]byte("a")), 1)
}

func TestInterruptDriverWithoutRTSIsReadyOnceItSends(t *testing.T) {
	l := newLine()
	l.set(regIER, ierReceived)
	expect(t, "taken", l.Receive([]byte("a")), 0)
	l.set(regData, '$')
	expect(t, "taken", l.Receive([]byte("a")), 1)
}

func TestWideAccessesTouchOneRegisterAByte(t *testing.T) {
	l := newLine()
	l.Write(regScratch-1, []byte{0xaa, 0x5a})
	expect(t, "scratch", l.get(regScratch), 0x5a)
	p := []byte{0, 0, 0, 0}
	l.Read(regMSR, p)
	expect(t, "MSR, SCR and nothing", string(p), string([]byte{msrPresent, 0x5a, 0xff, 0xff}))
	l.Read(^uint64(0), p)
	expect(t, "far off", string(p), "\xff\xff\xff\xff")
	l.Write(^uint64(0), []byte{1, 2, 3, 4})
	expect(t, "sent", l.out.Len(), 0)
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestWriterErrorDoesNotStopTheGuest(t *testing.T) {
	u := New(brokenWriter{}, func() error { return errors.New("no line") })
	u.Write(regIER, []byte{ierTHRE})
	u.Write(regData, []byte{'x'})
	p := []byte{0}
	u.Read(regIIR, p)
	expect(t, "IIR", p[0], iirTHRE)
}

func BenchmarkSend(b *testing.B) {
	u := New(nil, nil)
	p := []byte{'x'}
	b.ReportAllocs()
	for b.Loop() {
		u.Write(regData, p)
	}
}
