package virtio

import (
	"encoding/binary"
	"io"
)

// Cursor reads or writes little-endian values (virtio 1.2 §1.4) across the
// segments of a chain. The first access that finds too few bytes fails, and
// every one after it; Err tells, so that a request is parsed first and checked
// once. It is a value: copying it remembers a place.
type Cursor struct {
	segs [][]byte
	off  int // in segs[0]
	err  error
}

// NewReader returns a cursor for reading from segs, a chain's Readable.
func NewReader(segs [][]byte) Cursor { return Cursor{segs: segs} }

// NewWriter returns a cursor for writing to segs, a chain's Writable.
func NewWriter(segs [][]byte) Cursor { return Cursor{segs: segs} }

// Err is io.ErrUnexpectedEOF after an access that went past the end.
func (c *Cursor) Err() error { return c.err }

// Len is the number of bytes left.
func (c *Cursor) Len() uint64 {
	var n uint64
	for _, s := range c.segs {
		n += uint64(len(s))
	}
	return n - uint64(c.off)
}

// chunk returns at most n bytes that lie together, and passes them.
func (c *Cursor) chunk(n int) []byte {
	for len(c.segs) > 0 && c.off == len(c.segs[0]) {
		c.segs, c.off = c.segs[1:], 0
	}
	if len(c.segs) == 0 {
		return nil
	}
	s := c.segs[0][c.off:]
	s = s[:min(n, len(s)):min(n, len(s))]
	c.off += len(s)
	return s
}

func (c *Cursor) fail() { c.segs, c.off, c.err = nil, 0, io.ErrUnexpectedEOF }

// ReadFull fills p, or fails.
func (c *Cursor) ReadFull(p []byte) {
	for len(p) > 0 {
		s := c.chunk(len(p))
		if len(s) == 0 {
			clear(p)
			c.fail()
			return
		}
		p = p[copy(p, s):]
	}
}

// Bytes returns the next n bytes: a part of guest memory where they lie in one
// segment, else a copy. nil when there are not so many.
func (c *Cursor) Bytes(n int) []byte {
	if n < 0 || uint64(n) > c.Len() {
		c.fail()
		return nil
	}
	s := c.chunk(n)
	if len(s) == n {
		return s
	}
	p := make([]byte, n)
	c.ReadFull(p[copy(p, s):])
	return p
}

// Uint8 reads a byte.
func (c *Cursor) Uint8() uint8 {
	var b [1]byte
	c.ReadFull(b[:])
	return b[0]
}

// Uint16 reads a 16-bit value.
func (c *Cursor) Uint16() uint16 {
	var b [2]byte
	c.ReadFull(b[:])
	return binary.LittleEndian.Uint16(b[:])
}

// Uint32 reads a 32-bit value.
func (c *Cursor) Uint32() uint32 {
	var b [4]byte
	c.ReadFull(b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// Uint64 reads a 64-bit value.
func (c *Cursor) Uint64() uint64 {
	var b [8]byte
	c.ReadFull(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// Put writes p whole, or what fits of it and fails.
func (c *Cursor) Put(p []byte) {
	for len(p) > 0 {
		s := c.chunk(len(p))
		if len(s) == 0 {
			c.fail()
			return
		}
		p = p[copy(s, p):]
	}
}

// PutUint8 writes a byte.
func (c *Cursor) PutUint8(v uint8) { c.Put([]byte{v}) }

// PutUint16 writes a 16-bit value.
func (c *Cursor) PutUint16(v uint16) {
	var b [2]byte
	binary.LittleEndian.PutUint16(b[:], v)
	c.Put(b[:])
}

// PutUint32 writes a 32-bit value.
func (c *Cursor) PutUint32(v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	c.Put(b[:])
}

// PutUint64 writes a 64-bit value.
func (c *Cursor) PutUint64(v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	c.Put(b[:])
}

// Skip passes n bytes, or fails.
func (c *Cursor) Skip(n uint64) {
	for n > 0 {
		s := c.chunk(int(min(n, 1<<30)))
		if len(s) == 0 {
			c.fail()
			return
		}
		n -= uint64(len(s))
	}
}

// Read is io.Reader's: as many bytes as there are, io.EOF behind the last.
func (c *Cursor) Read(p []byte) (n int, err error) {
	for n < len(p) {
		s := c.chunk(len(p) - n)
		if len(s) == 0 {
			break
		}
		n += copy(p[n:], s)
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write is io.Writer's: io.ErrShortWrite when not all of p fits.
func (c *Cursor) Write(p []byte) (n int, err error) {
	for n < len(p) {
		s := c.chunk(len(p) - n)
		if len(s) == 0 {
			return n, io.ErrShortWrite
		}
		n += copy(s, p[n:])
	}
	return n, nil
}

// Rest returns the segments that are left, for vectored I/O. Where the cursor
// stands inside a segment, that segment is cut in place: the chain's Readable
// or Writable shows it without its beginning from then on.
func (c *Cursor) Rest() [][]byte {
	for len(c.segs) > 0 && c.off == len(c.segs[0]) {
		c.segs, c.off = c.segs[1:], 0
	}
	if c.off > 0 {
		c.segs[0], c.off = c.segs[0][c.off:], 0
	}
	return c.segs
}
