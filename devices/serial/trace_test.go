package serial

import "testing"

// Every register has a name, both ways, with DLAB and without.
func TestEveryRegisterDecodes(t *testing.T) {
	want := map[bool][2][Size]string{
		false: {{"RBR", "IER", "IIR", "LCR", "MCR", "LSR", "MSR", "SCR"}, {"THR", "IER", "FCR", "LCR", "MCR", "LSR", "MSR", "SCR"}},
		true:  {{"DLL", "DLM", "IIR", "LCR", "MCR", "LSR", "MSR", "SCR"}, {"DLL", "DLM", "FCR", "LCR", "MCR", "LSR", "MSR", "SCR"}},
	}
	for dlab, names := range want {
		for w, row := range names {
			for off, name := range row {
				var d Decoder
				if dlab {
					d.Access(regLCR, 1, true, lcrDLAB)
				}
				if got, _ := d.Access(uint64(off), 1, w == 1, 0x83); got != name {
					t.Errorf("register %d, write %v, DLAB %v: %q, want %q", off, w == 1, dlab, got, name)
				}
			}
		}
	}
}

func TestMeanings(t *testing.T) {
	for _, c := range []struct {
		off   uint64
		write bool
		value uint64
		want  string
	}{
		{regData, true, 'H', "'H'"}, {regData, true, '\n', `'\n'`}, {regLCR, true, 0x03, "8N1"}, {regLCR, true, 0x9b, "8E1 DLAB"},
		{regLSR, false, 0x61, "DR THRE TEMT"}, {regIIR, false, 0xc1, "no interrupt"}, {regIIR, true, 0x87, "FIFOs on, trigger at 8, reset receiver, reset transmitter"},
		{regIER, true, 0, "none"}, {regMCR, true, 0x0b, "DTR RTS OUT2"},
	} {
		var d Decoder
		if _, got := d.Access(c.off, 1, c.write, c.value); got != c.want {
			t.Errorf("%d %#x: %q, want %q", c.off, c.value, got, c.want)
		}
	}
}
