//go:build !amd64

package completion

import (
	"encoding/binary"
	"sync"
)

var casLock sync.Mutex

// compareAndSwap128 is atomic among completions only: hosts that need them
// have x86 processors, so that this serves tests on others.
func compareAndSwap128(p *[16]byte, oldLo, oldHi, newLo, newHi uint64) (lo, hi uint64, swapped bool) {
	casLock.Lock()
	defer casLock.Unlock()
	lo, hi = binary.LittleEndian.Uint64(p[:]), binary.LittleEndian.Uint64(p[8:])
	if lo != oldLo || hi != oldHi {
		return lo, hi, false
	}
	binary.LittleEndian.PutUint64(p[:], newLo)
	binary.LittleEndian.PutUint64(p[8:], newHi)
	return lo, hi, true
}
