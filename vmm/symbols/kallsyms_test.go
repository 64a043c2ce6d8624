package symbols

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// testKernel is how the tables of a made-up kernel are laid out.
type testKernel struct {
	old    bool // offsets first, as before 6.4
	perCPU bool // CONFIG_KALLSYMS_ABSOLUTE_PERCPU
	names  []string
}

const testBase = 0xffffffff81000000

// build writes what scripts/kallsyms.c writes. Token 0 stands for "sys_", the
// printable characters for themselves.
func (k *testKernel) build() []byte {
	le := binary.LittleEndian
	b := bytes.Repeat([]byte{0xcc}, 64)
	align := func() {
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
	}
	offsets := func() {
		align()
		for i := range k.names {
			off := uint32(16 * i)
			if k.perCPU && i > 0 {
				off = uint32(-1 - 16*i)
			}
			b = le.AppendUint32(b, off)
		}
		align()
		b = le.AppendUint64(b, testBase)
	}
	if k.old {
		offsets()
	}
	b = le.AppendUint32(b, uint32(len(k.names)))
	align()
	names := len(b)
	var marks []int
	for i, n := range k.names {
		if i%markerEvery == 0 {
			marks = append(marks, len(b)-names)
		}
		n = strings.ReplaceAll(n, "sys_", "\x00")
		if len(n) > 127 {
			b = append(b, byte(len(n))|0x80, byte(len(n)>>7))
		} else {
			b = append(b, byte(len(n)))
		}
		b = append(b, n...)
	}
	align()
	for _, m := range marks {
		b = le.AppendUint32(b, uint32(m))
	}
	align()
	var index []byte
	table := len(b)
	for c := range tokens {
		index = le.AppendUint16(index, uint16(len(b)-table))
		switch {
		case c == 0:
			b = append(b, "sys_"...)
		case c > ' ' && c < 0x7f:
			b = append(b, byte(c))
		}
		b = append(b, 0)
	}
	align()
	b = append(b, index...)
	if !k.old {
		offsets()
	}
	return append(b, make([]byte, 64)...)
}

func manyNames(n int) []string {
	names := []string{"Afixed_percpu_data"}
	for i := range n {
		names = append(names, fmt.Sprintf("%c%s%d", "Ttwd"[i%4], []string{"sys_call_", "do_", strings.Repeat("long_", 40)}[i%3], i))
	}
	return names
}

func TestFromKernel(t *testing.T) {
	for _, n := range []int{3, 255, 256, 700} {
		for _, k := range []testKernel{{}, {old: true}, {perCPU: true}, {old: true, perCPU: true}} {
			k.names = manyNames(n)
			table, err := FromKernel(k.build())
			if err != nil {
				t.Errorf("%d names, %+v: %v", n, k.old, err)
				continue
			}
			for i, name := range k.names {
				addr, ok := table.Addr(name[1:])
				if want := strings.Contains("tTwW", name[:1]); ok != want || ok && addr != testBase+uint64(16*i) {
					t.Errorf("%d names: %s is at %#x, %v", n, name, addr, ok)
				}
			}
		}
	}
	if _, err := FromKernel(bytes.Repeat([]byte("0123456789"), 1000)); !errors.Is(err, ErrNoKallsyms) {
		t.Errorf("no table: %v", err)
	}
}

func TestWrite(t *testing.T) {
	table, err := FromKernel((&testKernel{names: manyNames(20)}).build())
	if err != nil {
		t.Fatal(err)
	}
	var text, file bytes.Buffer
	if err := errors.Join(table.WriteMap(&text), table.WriteELF(&file)); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{text.Bytes(), file.Bytes()} {
		again, err := Read(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if again.Len() != table.Len() || again.Name(testBase+16) != table.Name(testBase+16) || again.Name(testBase+16) == "" {
			t.Errorf("%d functions come back as %d", table.Len(), again.Len())
		}
	}
	f, err := elf.NewFile(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if s := f.Section(".text"); s == nil || s.Addr != testBase+16 || s.Type != elf.SHT_NOBITS {
		t.Errorf("section %+v", s)
	}
}

func FuzzFromKernel(f *testing.F) {
	for _, k := range []testKernel{{names: manyNames(3)}, {old: true, perCPU: true, names: manyNames(300)}} {
		f.Add(k.build())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if table, err := FromKernel(b); err == nil && table.Len() == 0 {
			t.Error("an empty table")
		}
	})
}
