package vmm

import (
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
	"github.com/vitrine-vmm/vitrine/vmm/trace"
)

// tracedChain is a chain as a disk's read of 4 KiB has it.
func tracedChain(tb testing.TB) (*queueObserver, *virtio.Chain) {
	tb.Helper()
	q, r := virtiotest.NewQueue(tb, virtiotest.Memory(tb, 1<<20), 16, 0)
	r.Submit(r.Prepare([][]byte{make([]byte, 16)}, 4096, 1))
	c, ok, err := q.Pop()
	if err != nil || !ok {
		tb.Fatal(ok, err)
	}
	s := trace.NewSession(1<<16, "disk")
	return &queueObserver{observer{s, s.Sources[0].Ring, 0}}, c
}

// A request that is traced allocates nothing.
func TestTracedRequestDoesNotAllocate(t *testing.T) {
	o, c := tracedChain(t)
	if n := testing.AllocsPerRun(1000, func() { o.Popped(0, c); o.Pushed(0, c, 4097); o.Interrupted(0); o.Woken(0) }); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// BenchmarkRequest is a request's whole trace: its chain, its header, and the
// first bytes of its answer, 11 events.
func BenchmarkRequest(b *testing.B) {
	o, c := tracedChain(b)
	b.ReportAllocs()
	for b.Loop() {
		o.Popped(0, c)
		o.Pushed(0, c, 4097)
		o.Interrupted(0)
	}
}
