package memory

import (
	"testing"
)

func TestHoldings(t *testing.T) {
	g, err := New(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	f, _ := randomFile(t, 1<<20)
	if err := g.MapFile(0x100000, f, 0, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, a := range []Addr{0x5000, 0x110000} {
		if err := g.WriteAt([]byte{1}, a); err != nil {
			t.Fatal(err)
		}
	}
	r := g.Regions()[0]
	_ = r.Bytes[0x120000] // read, not written
	h := Holdings(&r)
	own := 0
	for i, v := range h {
		a := Addr(i * PageSize)
		want := HoldsNothing
		if a >= 0x100000 && a < 0x200000 {
			want = HoldsFile
		}
		if a == 0x110000 && v != HoldsOwn || a == 0x5000 && v != HoldsOwn {
			t.Errorf("page %#x that was written: %d", a, v)
		}
		if v == HoldsOwn {
			own++
			continue
		}
		if v != want {
			t.Errorf("page %#x: %d, want %d", a, v, want)
		}
	}
	// A huge page may have come with the first write: no more than that.
	if own > 2+512 {
		t.Errorf("%d pages hold something of their own after two writes", own)
	}
}

func TestParseMapping(t *testing.T) {
	from, to, file, ok := parseMapping("7f00a000-7f00c000 rw-p 00001000 08:01 1234      /some where")
	if from != 0x7f00a000 || to != 0x7f00c000 || !file || !ok {
		t.Error(from, to, file, ok)
	}
	if _, _, file, ok := parseMapping("7f00a000-7f00c000 rw-p 00000000 00:00 0 "); file || !ok {
		t.Error("anonymous memory:", file, ok)
	}
	for _, s := range []string{"", "x", "7f-zz r p 0 0 0", "7f00a000 rw-p 00000000 00:00 0"} {
		if _, _, _, ok := parseMapping(s); ok {
			t.Errorf("%q is no mapping", s)
		}
	}
}

func TestPresent(t *testing.T) {
	g, err := New(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.WriteAt([]byte{1}, 0x5000); err != nil {
		t.Fatal(err)
	}
	r := g.Regions()[0]
	p := Present(&r)
	if !p[5] {
		t.Error("a page that was written is not there")
	}
	n := 0
	for _, is := range p {
		if is {
			n++
		}
	}
	if n > 512 { // a huge page at most
		t.Errorf("%d pages are there after one was written", n)
	}
}
