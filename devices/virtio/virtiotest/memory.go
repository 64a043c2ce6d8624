// Package virtiotest is a driver for testing virtio devices without a guest:
// anonymous memory, queues driven from the driver's side, both transports, and
// the misbehaviour of hostile drivers.
package virtiotest

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/vmm/memory"
)

// Memory returns size bytes of guest memory, released when the test ends.
func Memory(t testing.TB, size uint64) *memory.Guest {
	t.Helper()
	g, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// Arena hands out guest memory. What is freed is handed out again for the same
// size.
type Arena struct {
	Mem  *memory.Guest
	next memory.Addr
	end  memory.Addr
	free map[uint64][]memory.Addr
}

// NewArena hands out what lies in [start, end).
func NewArena(mem *memory.Guest, start, end memory.Addr) *Arena {
	return &Arena{Mem: mem, next: start, end: end, free: make(map[uint64][]memory.Addr)}
}

// Alloc returns n bytes at a multiple of align, a power of two. It panics when
// the arena is used up: the test wants a larger one.
func (a *Arena) Alloc(n, align uint64) memory.Addr {
	if fs := a.free[n]; len(fs) > 0 {
		at := fs[len(fs)-1]
		if uint64(at)%align == 0 {
			a.free[n] = fs[:len(fs)-1]
			return at
		}
	}
	at := (a.next + memory.Addr(align) - 1) &^ memory.Addr(align-1)
	if at+memory.Addr(n) > a.end {
		panic("virtiotest: guest memory is used up: give Config.Memory more")
	}
	a.next = at + memory.Addr(n)
	return at
}

// Free takes n bytes at a back.
func (a *Arena) Free(at memory.Addr, n uint64) { a.free[n] = append(a.free[n], at) }

// Bytes is guest memory that the test knows to be there.
func (a *Arena) Bytes(at memory.Addr, n uint64) []byte {
	b, err := a.Mem.WritableBytes(at, n)
	if err != nil {
		panic(err)
	}
	return b
}
