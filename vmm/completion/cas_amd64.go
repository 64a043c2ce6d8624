package completion

// compareAndSwap128 is LOCK CMPXCHG16B on p, which must be aligned to 16: if
// it holds oldHi:oldLo it gets newHi:newLo. It returns what p held.
//
//go:noescape
func compareAndSwap128(p *[16]byte, oldLo, oldHi, newLo, newHi uint64) (lo, hi uint64, swapped bool)
