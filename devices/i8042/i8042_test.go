package i8042

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/bus"
)

var _ bus.Device = (*Controller)(nil)

type pc struct {
	*Controller
	resets int
}

func newPC() *pc {
	p := new(pc)
	p.Controller = New(func() { p.resets++ })
	return p
}

func (p *pc) get(off uint64) uint8 {
	b := []byte{0}
	p.Read(off, b)
	return b[0]
}

// ask sends a command with its parameters and returns the answer.
func (p *pc) ask(t *testing.T, cmd uint8, params ...uint8) uint8 {
	t.Helper()
	p.Write(Control, []byte{cmd})
	for _, v := range params {
		p.Write(Data, []byte{v})
	}
	if p.get(Control)&statusOutput == 0 {
		t.Fatalf("command %#x: no answer", cmd)
	}
	v := p.get(Data)
	if p.get(Control)&statusOutput != 0 {
		t.Fatalf("command %#x: more than one answer", cmd)
	}
	return v
}

func TestAnswersAtOnce(t *testing.T) {
	p := newPC()
	for _, c := range []struct {
		cmd    uint8
		params []uint8
		want   uint8
	}{
		{cmdSelfTest, nil, 0x55},
		{cmdTestKeyboard, nil, portMissing},
		{cmdTestAux, nil, portMissing},
		{cmdReadRAM, nil, commandByte},
		{cmdLoop, []uint8{0x5a}, 0x5a},
		{cmdLoopAux, []uint8{0x5a}, 0xff},
		{cmdReadOutput, nil, 3},
		{cmdReadInput, nil, 0x80},
		{cmdWriteAux, []uint8{0xf2}, resend},
	} {
		if got := p.ask(t, c.cmd, c.params...); got != c.want {
			t.Errorf("command %#x: %#x, want %#x", c.cmd, got, c.want)
		}
	}
	if p.resets != 0 {
		t.Error("a probe reset the machine")
	}
}

func TestKeyboardIsMissing(t *testing.T) {
	p := newPC()
	p.Write(Data, []byte{0xff})
	if got := p.get(Control); got&(statusTimeout|statusOutput) != statusTimeout|statusOutput {
		t.Errorf("status %#x: no timeout", got)
	}
	if got := p.get(Data); got != resend {
		t.Errorf("answer %#x", got)
	}
}

func TestCommandByteHoldsAndFollowsCommands(t *testing.T) {
	p := newPC()
	p.Write(Control, []byte{cmdWriteRAM})
	p.Write(Data, []byte{0x45})
	p.Write(Control, []byte{cmdDisable})
	p.Write(Control, []byte{cmdDisableAux})
	if got := p.ask(t, cmdReadRAM); got != 0x75 {
		t.Errorf("command byte %#x, want 0x75", got)
	}
	p.Write(Control, []byte{cmdEnable})
	p.Write(Control, []byte{cmdEnableAux})
	if got := p.ask(t, cmdReadRAM); got != 0x45 {
		t.Errorf("command byte %#x, want 0x45", got)
	}
}

func TestReset(t *testing.T) {
	p := newPC()
	for cmd := 0xf0; cmd <= 0xff; cmd++ {
		before := p.resets
		p.Write(Control, []byte{uint8(cmd)})
		if got, want := p.resets-before, 1-cmd&1; got != want {
			t.Errorf("command %#x: %d resets, want %d", cmd, got, want)
		}
	}
	before := p.resets
	p.Write(Control, []byte{cmdWriteOutput})
	p.Write(Data, []byte{outputA20})
	if p.resets != before+1 {
		t.Error("the output port's bit 0 does not reset")
	}
	p.Write(Data, []byte{0})
	if p.resets != before+1 {
		t.Error("data without a command resets")
	}
}

func TestOtherPortsAreNotThere(t *testing.T) {
	p := newPC()
	b := make([]byte, 8)
	p.Read(1, b)
	for i, v := range b {
		if off := i + 1; off != Control && v != 0xff {
			t.Errorf("offset %d: %#x", off, v)
		}
	}
	p.Write(1, []byte{0xfe, 0xfe, 0xfe})
	if p.resets != 0 {
		t.Error("a port between the two resets")
	}
}

func TestStateGoesRound(t *testing.T) {
	p, q := newPC(), newPC()
	p.Write(Control, []byte{cmdWriteRAM | 3})
	b, err := p.State()
	if err != nil {
		t.Fatal(err)
	}
	if err := q.SetState(b); err != nil {
		t.Fatal(err)
	}
	q.Write(Data, []byte{0x99})
	if got := q.ask(t, cmdReadRAM|3); got != 0x99 {
		t.Errorf("RAM 3: %#x", got)
	}
	for _, s := range []string{"", "{}", `{"version":7}`, `{"version":1,"status":256}`} {
		if q.SetState([]byte(s)) == nil {
			t.Errorf("state %q was taken", s)
		}
	}
}

func FuzzController(f *testing.F) {
	f.Add([]byte{0x84, 0xaa, 0x04, 0, 0x00, 0})
	f.Add([]byte{0x84, 0xd1, 0x80, 0x00})
	f.Fuzz(func(t *testing.T, program []byte) {
		p := newPC()
		for ; len(program) > 1; program = program[2:] {
			off, v := uint64(program[0]&7), program[1]
			if program[0]&0x80 != 0 {
				p.Write(off, []byte{v, v, v, v}[:1+program[0]>>4&3])
			} else {
				p.Read(off, make([]byte, 1+program[0]>>4&3))
			}
		}
		if p.get(Control)&2 != 0 {
			t.Fatal("the input buffer stays full: drivers wait for ever")
		}
	})
}
