package net

import "sync/atomic"

func lengthOf(bs [][]byte) (n int) {
	for _, b := range bs {
		n += len(b)
	}
	return n
}

// gather copies the first bytes of src to dst, and returns how many.
func gather(dst []byte, src [][]byte) (n int) {
	for _, b := range src {
		n += copy(dst[n:], b)
	}
	return n
}

// scatter copies src to the pieces of dst from off on, and returns how many
// bytes there was room for.
func scatter(dst [][]byte, off int, src []byte) (n int) {
	for _, b := range dst {
		if off >= len(b) {
			off -= len(b)
			continue
		}
		n += copy(b[off:], src[n:])
		off = 0
	}
	return n
}

// appendFrom appends the pieces of src without their first skip bytes.
func appendFrom(dst, src [][]byte, skip int) [][]byte {
	for _, b := range src {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		dst = append(dst, b[skip:])
		skip = 0
	}
	return dst
}

// add counts in a counter that has one writer: a plain store is enough for
// readers, and is cheaper than an atomic addition.
func add(c *atomic.Uint64, n uint64) { c.Store(c.Load() + n) }
