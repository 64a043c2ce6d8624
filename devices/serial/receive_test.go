package serial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

// guest reads what arrives until it has n characters, as Linux's handler does:
// only when the line is pulsed, then until IIR says that nothing is left.
func guest(l *line, edges <-chan struct{}, n int) []byte {
	var got []byte
	for len(got) < n {
		<-edges
		for l.get(regIIR)&iirNone == 0 {
			for l.get(regLSR)&lsrReady != 0 {
				got = append(got, l.get(regData))
			}
		}
	}
	return got
}

func TestFeedLosesNothing(t *testing.T) {
	edges := make(chan struct{}, 1)
	l := new(line)
	l.UART = New(nil, func() error {
		select {
		case edges <- struct{}{}:
		default:
		}
		return nil
	})
	want := make([]byte, 256<<10)
	for i := range want {
		want[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[i*7%31]
	}
	done := make(chan error, 1)
	go func() { done <- l.Feed(context.Background(), bytes.NewReader(want)) }()
	l.open(fcrEnable|0x80, ierReceived|ierLine)
	if got := guest(l, edges, len(want)); !bytes.Equal(got, want) {
		t.Error("what arrived is not what was sent")
	}
	expect(t, "Feed", <-done, nil)
}

func TestFeedStopsWithItsContext(t *testing.T) {
	l := newLine()
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("enough")
	cancel(reason)
	expect(t, "Feed", l.Feed(ctx, strings.NewReader("abc")), reason)
	expect(t, "Feed of a broken reader", l.Feed(context.Background(), io.MultiReader()), nil)
}

func TestStateGoesRound(t *testing.T) {
	l := newLine()
	l.open(fcrEnable|0x40, ierReceived|ierLine)
	l.set(regLCR, 3)
	l.set(regScratch, 0x77)
	l.Receive([]byte("ab"))
	l.Break()
	b, err := l.State()
	if err != nil {
		t.Fatal(err)
	}
	m := newLine()
	if err := m.SetState(b); err != nil {
		t.Fatal(err)
	}
	expect(t, "pulses", m.pulses, 1)
	expect(t, "IIR", m.get(regIIR), iirTimeout|iirFIFOs)
	expect(t, "scratch", m.get(regScratch), 0x77)
	expect(t, "RBR", m.get(regData), 'a')
	expect(t, "RBR", m.get(regData), 'b')
	expect(t, "LSR", m.get(regLSR)&lsrBreak, lsrBreak)
	expect(t, "taken", m.Receive([]byte("c")), 1)
}

func TestSetStateRefuses(t *testing.T) {
	for _, s := range []string{``, `{`, `{}`, `{"version":2}`, `{"version":1,"ier":255}`,
		`{"version":1,"fifo":"YWI=","errors":"AAA="}`, `{"version":1,"fcr":1,"fifo":"YWI=","errors":"AA=="}`,
		`{"version":1,"fcr":1,"fifo":"YQ==","errors":"/w=="}`} {
		if newLine().SetState([]byte(s)) == nil {
			t.Errorf("state %q was taken", s)
		}
	}
}

func FuzzUART(f *testing.F) {
	f.Add([]byte{0x82, 1, 0x81, 3, 0x84, 0x0b, 0xff, 'a', 0x00, 0x05, 0x02})
	f.Add([]byte{0x84, 0x10, 0x80, 'x', 0x83, 0x40, 0x05, 0x00, 0x06})
	f.Fuzz(func(t *testing.T, program []byte) {
		l := newLine()
		for len(program) > 1 {
			op, v := program[0], program[1]
			program = program[2:]
			switch {
			case op == 0xff:
				if n := l.Receive([]byte{v, v}); n < 0 || n > 2 {
					t.Fatalf("received %d of 2", n)
				}
			case op&0x80 != 0:
				l.Write(uint64(op&0x0f), []byte{v, v, v, v}[:1+op>>4&3])
			default:
				l.Read(uint64(op&0x0f), make([]byte, 1+op>>4&3))
			}
			if l.rx.n < 0 || l.rx.n > fifoDepth || l.rx.bad < 0 || l.rx.bad > l.rx.n {
				t.Fatalf("FIFO of %d with %d errors", l.rx.n, l.rx.bad)
			}
		}
		b, err := l.State()
		if err != nil {
			t.Fatal(err)
		}
		if err := newLine().SetState(b); err != nil {
			t.Fatalf("state of its own refused: %v", err)
		}
	})
}
