package qcow2

// cursor walks along the pieces of a request.
type cursor struct {
	vec [][]byte
	off int // in vec[0]
}

func (c *cursor) len() (n uint64) {
	for _, b := range c.vec {
		n += uint64(len(b))
	}
	return n - uint64(c.off)
}

// take returns the next n bytes, which there must be, and passes them.
func (c *cursor) take(n uint64) [][]byte {
	if len(c.vec) > 0 && uint64(len(c.vec[0])-c.off) >= n {
		b := c.vec[0][c.off : c.off+int(n)]
		c.off += int(n)
		return [][]byte{b}
	}
	var out [][]byte
	for n > 0 {
		b := c.vec[0][c.off:]
		if uint64(len(b)) > n {
			b = b[:n]
		}
		c.skip(len(b))
		n -= uint64(len(b))
		if len(b) > 0 {
			out = append(out, b)
		}
	}
	return out
}

func (c *cursor) skip(n int) {
	c.off += n
	for len(c.vec) > 0 && c.off >= len(c.vec[0]) {
		c.off -= len(c.vec[0])
		c.vec = c.vec[1:]
	}
}

func (c *cursor) zero(n uint64) {
	for _, b := range c.take(n) {
		clear(b)
	}
}

// fill copies p to the next bytes.
func (c *cursor) fill(p []byte) {
	for _, b := range c.take(uint64(len(p))) {
		p = p[copy(b, p):]
	}
}
