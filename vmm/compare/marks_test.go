package compare

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

const goodOutput = "kernel says \x05 hello\r\n\x02\x05\x06\x05\x06probe1 3 111 222 61267 42 cpu=1000 files=2000\n\x04"

func TestMarksOfAGoodRun(t *testing.T) {
	var m marks
	at := time.Unix(100, 0)
	for i := range len(goodOutput) { // byte by byte, as a serial port may bring it
		m.add([]byte(goodOutput[i:i+1]), at.Add(time.Duration(i)))
	}
	o, err := m.finish()
	if err != nil {
		t.Fatal(err)
	}
	if want := at.Add(time.Duration(strings.IndexByte(goodOutput, 2))); !o.reached.Equal(want) {
		t.Errorf("reached at %v, want %v", o.reached, want)
	}
	if o.status != 3 || o.carry != 222 || o.fs != 61267 || o.sum != 42 || o.own["cpu"] != 1000 || o.own["files"] != 2000 {
		t.Errorf("got %+v", o)
	}
	if len(o.begins) != 2 || len(o.ends) != 2 {
		t.Errorf("%d begins and %d ends, want 2 of each: what the kernel wrote does not count", len(o.begins), len(o.ends))
	}
}

func TestMarksOfBadRuns(t *testing.T) {
	for _, c := range []struct{ name, output string }{
		{"nothing", ""},
		{"killed before its line", "\x02\x05"},
		{"cut", "\x02probe1 0 1"},
		{"short", "\x02probe1 0 1\n\x04"},
		{"no number", "\x02probe1 0 1 x 3 4\n\x04"},
		{"negative time", "\x02probe1 0 1 2 3 4 cpu=-5\n\x04"},
	} {
		var m marks
		m.add([]byte(c.output), time.Now())
		if o, err := m.finish(); err == nil {
			t.Errorf("%s: got %+v, want an error", c.name, o)
		}
	}
	var m marks
	if _, err := m.finish(); !errors.Is(err, errNoResult) {
		t.Errorf("no output: got %v, want errNoResult", err)
	}
}

func FuzzMarks(f *testing.F) {
	f.Add([]byte(goodOutput))
	f.Add([]byte("\x02\x04"))
	f.Add([]byte("probe1 probe1 99999999999999999999 \n\x04\x02"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var m marks
		m.add(p, time.Now())
		m.add(bytes.Repeat(p, 2), time.Now())
		if o, err := m.finish(); err == nil && !o.over {
			t.Error("a result without its end")
		}
		if m.buf.Len() > maxOutput {
			t.Error("more is kept than may be")
		}
	})
}
