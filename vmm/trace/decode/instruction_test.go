package decode

import (
	"strings"
	"testing"
	"time"

	"github.com/vitrine-vmm/vitrine/vmm/symbols"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
	"github.com/vitrine-vmm/vitrine/vmm/x86"
)

// lineOf puts an instruction through a ring, as a machine does, and decodes it.
func lineOf(t testing.TB, table *symbols.Table, in trace.Instruction) Line {
	t.Helper()
	r := trace.NewRing(256)
	var w trace.InstructionWriter
	w.Emit(r, trace.Event{Time: 1000}, &in)
	rd, pieces, d := r.NewReaderAll(), trace.NewAssembler(), New(&trace.Meta{Sources: []string{"vcpu0"}}, table)
	for {
		e, ok := rd.Next()
		if !ok {
			t.Fatal("no instruction came out of the ring")
		}
		if it, ok := pieces.Add(e); ok {
			return d.Line(&it)
		}
	}
}

func TestInstructionLines(t *testing.T) {
	table, err := symbols.Read(strings.NewReader("0000000000401000 T fill\n0000000000402000 T spill\n"))
	if err != nil {
		t.Fatal(err)
	}
	call := trace.Instruction{RIP: 0x401010, Code: []byte{0xe8, 0xeb, 0x0f, 0, 0}, Mode: x86.ModeLong, Bits: 64, CPL: 3,
		Before: x86.FlagIF | x86.FlagZF | 2, After: x86.FlagIF | x86.FlagCF | 2,
		Registers: []trace.Change{{Index: 4, Before: 0x7000, After: 0x6ff8}, {Index: x86.RegRIP, Before: 0x401010, After: 0x402000}, {Index: 3, Before: 5, After: 5}}}
	l := lineOf(t, table, call)
	const want = "0x401010 <fill+0x10> long/3  e8 eb 0f 00 00        call spill                    rsp 0x7000→0x6ff8, → 0x402000 <spill>, flags [ZF IF]→[CF IF]"
	if l.Text != want {
		t.Errorf("\n%s\nwant\n%s", l.Text, want)
	}
	if s := l.String(); strings.Count(s, "0x401010") != 1 || !strings.Contains(s, "vcpu0") {
		t.Errorf("the line %q has its address more than once, or no source", s)
	}
	if s := l.Instruction.Table(); !strings.Contains(s, "rsp=0x7000→0x6ff8") || !strings.Contains(s, "rbx=0x5\n") {
		t.Errorf("the table of registers is %q", s)
	}
	real := trace.Instruction{RIP: 0x7c00, Code: []byte{0xb8, 0x34, 0x12}, Mode: x86.ModeReal, Bits: 16, Faulted: true, Vector: 13}
	if l := lineOf(t, nil, real); l.What != "mov ax, 0x1234" || l.Instruction.Mode != "real" || !strings.HasSuffix(l.Text, "raises #GP general protection") {
		t.Errorf("16-bit code is %q", l.Text)
	}
}

// TestFiltersOfInstructions: what a filter says before an instruction is
// executed agrees with what it says of its line.
func TestFiltersOfInstructions(t *testing.T) {
	table, err := symbols.Read(strings.NewReader("0000000000401000 T fill\n0000000000402000 T spill\n"))
	if err != nil {
		t.Fatal(err)
	}
	at := Where{RIP: 0x401010, Symbol: "fill+0x10", Mode: x86.ModeLong, CPL: 3}
	l := lineOf(t, table, trace.Instruction{RIP: at.RIP, Code: []byte{0x48, 0xff, 0xc3}, Mode: at.Mode, Bits: 64, CPL: 3})
	for text, want := range map[string]struct{ match, may, unnamed bool }{
		"instruction":                        {true, true, true},
		"not instruction":                    {false, false, false},
		"io":                                 {false, false, false},
		"rip=0x401000..0x401fff":             {true, true, true},
		"rip=0x402000..0x402fff":             {false, false, false},
		"not rip<0x401010":                   {true, true, true},
		"symbol=fill":                        {true, true, true},
		"symbol=fill+0x10":                   {true, true, true},
		"symbol=spill":                       {false, false, true},
		"symbol!=fill":                       {false, false, true},
		"symbol~ill":                         {true, true, true},
		"mode=long cpl=3":                    {true, true, true},
		"mode=real":                          {false, false, false},
		"mode!=real":                         {true, true, true},
		"cpl<3":                              {false, false, false},
		"cpu=1":                              {false, false, false},
		"vcpu0":                              {true, true, true},
		"inc":                                {true, true, true},
		"mov":                                {false, true, true},
		"not mov":                            {true, true, true},
		"what~inc and cpl=0":                 {false, false, false},
		"text~jmp or cpl=3":                  {true, true, true},
		"time>1h cpl=3":                      {false, true, true},
		"port=0x10 or symbol=spill":          {false, false, true},
		"not (symbol=spill or rip=0x401010)": {false, false, false},
	} {
		f, err := ParseFilter(text)
		if err != nil {
			t.Fatal(err)
		}
		if m := f.Match(&l); m != want.match {
			t.Errorf("%s matches: %v", text, m)
		}
		if m := f.MayMatch(at, true); m != want.may {
			t.Errorf("%s may match: %v", text, m)
		}
		if m := f.MayMatch(at, false); m != want.unnamed {
			t.Errorf("%s may match without symbols: %v", text, m)
		}
	}
	for text, want := range map[string]string{"mode=loong": "no mode", "cpl~3": "is a number"} {
		if _, err := ParseFilter(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzInstruction: an event from a damaged recording is no worse than wrong.
func FuzzInstruction(f *testing.F) {
	f.Add(uint64(0x1234), uint64(0xc3ff48), uint8(3), []byte{3, 1, 2})
	f.Fuzz(func(t *testing.T, addr, code uint64, size uint8, data []byte) {
		it := trace.Item{Event: trace.Event{Kind: trace.KindInstruction, Addr: addr, Value: code, Size: size}, Data: data}
		l := New(&trace.Meta{}, nil).Line(&it)
		if l.Instruction == nil || l.String() == "" || l.Instruction.Table() == "" && len(l.Instruction.Registers) > 0 {
			t.Errorf("%+v became %+v", it, l)
		}
	})
}

// instructionItems are instructions as a trace has them: with and without
// symbols, of all modes, with every kind of effect, and twice each.
func instructionItems() []trace.Item {
	r := trace.NewRing(1 << 10)
	var w trace.InstructionWriter
	at := time.Duration(0)
	for range 2 {
		for i, in := range []trace.Instruction{
			{RIP: 0x401010, Code: []byte{0xe8, 0xeb, 0x0f, 0, 0}, Mode: x86.ModeLong, Bits: 64, CPL: 3, Before: x86.FlagIF | x86.FlagZF, After: x86.FlagCF,
				Registers: []trace.Change{{Index: 4, Before: 0x7000, After: 0x6ff8}, {Index: x86.RegRIP, Before: 0x401010, After: 0x402000}, {Index: 3, Before: 5, After: 5}}},
			{RIP: 0x402000, Code: []byte{0xc3}, Mode: x86.ModeLong, Bits: 64, Registers: []trace.Change{{Index: x86.RegRIP, Before: 0x402000, After: 0x401015}}},
			{RIP: 0x7c00, Code: []byte{0xb8, 0x34, 0x12}, Mode: x86.ModeReal, Bits: 16, Faulted: true, Vector: 13},
			{RIP: 0x7c00, Code: []byte{0xb8, 0x34, 0x12, 0, 0}, Mode: x86.ModeProtected, Bits: 32, Faulted: true, Vector: 0x80},
			{RIP: 0x7c00, Code: []byte{0x90}, Mode: x86.ModeCompat, Bits: 32, Before: x86.FlagIOPL, After: 2}, // flags without names
			{RIP: 0xffffffff81000000, Code: []byte{0x0f, 0xff, 0xff, 0xff}, Mode: x86.ModeLong, Bits: 64},
			{RIP: 0x401020, Code: []byte{0x66, 0x0f, 0x6f, 0xc1}, Mode: x86.ModeLong, Bits: 64, Registers: []trace.Change{{Index: x86.RegXMM + 1, After: 1 << 63}, {Index: x86.RegCR3, After: 0x1000}}},
		} {
			at += []time.Duration{1, 999, 1500 * time.Nanosecond, 999999, 2500 * time.Microsecond, time.Second, 90 * time.Minute}[i]
			w.Emit(r, trace.Event{Time: at}, &in)
		}
	}
	var items []trace.Item
	rd, pieces := r.NewReaderAll(), trace.NewAssembler()
	for e, ok := rd.Next(); ok; e, ok = rd.Next() {
		if it, ok := pieces.Add(e); ok {
			items = append(items, it)
		}
	}
	return items
}

// TestAppendInstruction: the quick way to a line is the other's, byte for byte.
func TestAppendInstruction(t *testing.T) {
	table, err := symbols.Read(strings.NewReader("0000000000401000 T fill\n0000000000402000 T spill\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []*symbols.Table{nil, table} {
		meta := &trace.Meta{Sources: []string{"vcpu0"}}
		slow, quick := New(meta, table), New(meta, table)
		for _, it := range instructionItems() {
			l := slow.Line(&it)
			if want, got := l.String()+"\n", string(quick.AppendInstruction(nil, &it)); got != want {
				t.Errorf("\n%q\nwant\n%q", got, want)
			}
		}
	}
}

// TestAppendInstructionAllocates nothing for an instruction that it has seen.
func TestAppendInstructionAllocatesNothing(t *testing.T) {
	items := instructionItems()[:2]
	d, b := New(&trace.Meta{Sources: []string{"vcpu0"}}, nil), make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		for i := range items {
			b = d.AppendInstruction(b[:0], &items[i])
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkInstruction compares the two ways to a line.
func BenchmarkInstruction(b *testing.B) {
	items := instructionItems()
	d, buf := New(&trace.Meta{Sources: []string{"vcpu0"}}, nil), make([]byte, 0, 1024)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			buf = d.AppendInstruction(buf[:0], &items[i%len(items)])
		}
	})
	b.Run("line", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			l := d.Line(&items[i%len(items)])
			_ = l.String()
		}
	})
}
