package vsock

import "io"

const ringMin = 4096

// ring is a byte queue that grows by doubling to a limit that its user keeps.
// Its storage is allocated when bytes first arrive, so a connection that only
// sends costs nothing here.
type ring struct {
	buf  []byte // its length is a power of two
	r, n int    // index of the oldest byte; bytes held
}

// fill appends n bytes read from src.
func (q *ring) fill(src io.Reader, n int) error {
	q.reserve(n)
	for n > 0 {
		span := q.span(q.r+q.n, n)
		if _, err := io.ReadFull(src, span); err != nil {
			return err
		}
		q.n += len(span)
		n -= len(span)
	}
	return nil
}

// put appends p.
func (q *ring) put(p []byte) {
	q.reserve(len(p))
	for len(p) > 0 {
		n := copy(q.span(q.r+q.n, len(p)), p)
		q.n += n
		p = p[n:]
	}
}

// bytes is a copy of what the queue has.
func (q *ring) bytes() []byte {
	if q.n == 0 {
		return nil
	}
	first := q.span(q.r, q.n)
	return append(append(make([]byte, 0, q.n), first...), q.span(q.r+len(first), q.n-len(first))...)
}

// drain moves up to len(p) of the oldest bytes to p.
func (q *ring) drain(p []byte) int {
	total := 0
	for q.n > 0 && len(p) > 0 {
		k := copy(p, q.span(q.r, q.n))
		p = p[k:]
		q.r = (q.r + k) & (len(q.buf) - 1)
		q.n -= k
		total += k
	}
	return total
}

// discard drops everything, storage included.
func (q *ring) discard() { *q = ring{} }

// span is the contiguous storage from index i on, at most n bytes.
func (q *ring) span(i, n int) []byte {
	i &= len(q.buf) - 1
	return q.buf[i:min(i+n, len(q.buf))]
}

func (q *ring) reserve(n int) {
	if q.n+n <= len(q.buf) {
		return
	}
	size := max(ringMin, len(q.buf))
	for size < q.n+n {
		size *= 2
	}
	buf := make([]byte, size)
	held := q.n
	q.drain(buf)
	q.buf, q.r, q.n = buf, 0, held
}
