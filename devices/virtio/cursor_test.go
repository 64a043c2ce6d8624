package virtio

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func segments(lens ...int) [][]byte {
	var segs [][]byte
	b := byte(0)
	for _, n := range lens {
		s := make([]byte, n)
		for i := range s {
			b++
			s[i] = b
		}
		segs = append(segs, s)
	}
	return segs
}

func TestCursorReadsAcrossSegments(t *testing.T) {
	c := NewReader(segments(1, 0, 2, 12, 3))
	if c.Len() != 18 {
		t.Errorf("%d bytes", c.Len())
	}
	if a, b, d, e := c.Uint8(), c.Uint16(), c.Uint32(), c.Uint64(); a != 1 || b != 0x0302 || d != 0x07060504 || e != 0x0f0e0d0c0b0a0908 {
		t.Errorf("%#x %#x %#x %#x", a, b, d, e)
	}
	c.Skip(1)
	if got := c.Bytes(2); !bytes.Equal(got, []byte{17, 18}) || c.Err() != nil || c.Len() != 0 {
		t.Errorf("%v, %v, %d left", got, c.Err(), c.Len())
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if c.Uint8() != 0 || !errors.Is(c.Err(), io.ErrUnexpectedEOF) {
		t.Error("read past the end")
	}
}

func TestCursorErrorsStick(t *testing.T) {
	for name, fail := range map[string]func(c *Cursor){
		"Uint64":    func(c *Cursor) { c.Uint64() },
		"ReadFull":  func(c *Cursor) { c.ReadFull(make([]byte, 6)) },
		"Bytes":     func(c *Cursor) { c.Bytes(6) },
		"Bytes(-1)": func(c *Cursor) { c.Bytes(-1) },
		"Skip":      func(c *Cursor) { c.Skip(1 << 63) },
		"Put":       func(c *Cursor) { c.Put(make([]byte, 6)) },
		"PutUint64": func(c *Cursor) { c.PutUint64(0) },
	} {
		c := NewReader(segments(2, 3))
		fail(&c)
		if c.Err() == nil || c.Len() != 0 || c.Uint8() != 0 || c.Bytes(1) != nil {
			t.Errorf("%s: went on", name)
		}
	}
}

func TestCursorWrites(t *testing.T) {
	segs := segments(3, 1, 20)
	c := NewWriter(segs)
	c.PutUint8(0xa)
	c.PutUint16(0xb0c)
	c.PutUint32(0xd0e0f)
	c.PutUint64(1)
	if n, err := c.Write([]byte("rest of it")); n != 9 || err != io.ErrShortWrite || c.Err() != nil {
		t.Errorf("wrote %d: %v", n, err)
	}
	want := append([]byte{0xa, 0xc, 0xb, 0xf, 0xe, 0xd, 0, 1, 0, 0, 0, 0, 0, 0, 0}, "rest of i"...)
	if got := bytes.Join(segs, nil); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
}

func TestCursorRest(t *testing.T) {
	c := NewReader(segments(2, 3, 1))
	copied := c
	c.Skip(3)
	rest := c.Rest()
	if len(rest) != 2 || !bytes.Equal(rest[0], []byte{4, 5}) || c.Len() != 3 || c.Uint8() != 4 {
		t.Errorf("rest %v", rest)
	}
	if copied.Uint8() != 1 {
		t.Error("a copy of the cursor moved along")
	}
	c.Skip(2)
	if len(c.Rest()) != 0 {
		t.Error("something is left behind the end")
	}
}
