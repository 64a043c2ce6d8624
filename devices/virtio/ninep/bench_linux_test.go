package ninep_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hugelgupf/p9/p9"
	"golang.org/x/sys/unix"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
	"github.com/vitrine-vmm/vitrine/vmm/share"
)

const (
	benchFile  = 8 << 20
	benchDepth = 3 // requests under way
	pageSize   = 4096
)

// layout is how a driver lays out the data of a request.
type layout struct {
	name  string
	count int // bytes of data
	piece int // bytes in a buffer
}

// Linux's driver has the data of programs in pages, each a buffer of its own
// (net/9p/trans_virtio.c, p9_virtio_zc_request), at most 500 KiB less the header's
// 24 bytes. How many of the pages follow each other depends on the guest's
// history: all, or none.
var layouts = []layout{
	{"128KiB", 128 << 10, 128 << 10},
	{"500KiB", 500<<10 - 24, 500 << 10},
	{"500KiB-scattered", 500<<10 - 24, pageSize},
}

// buffers are the sizes of the buffers for the data.
func (l layout) buffers() (sizes []int) {
	for left := l.count; left > 0; left -= l.piece {
		sizes = append(sizes, min(left, l.piece))
	}
	return sizes
}

// BenchmarkRead reads a file through the device and, in turns, as a program on
// the host does.
func BenchmarkRead(b *testing.B) {
	for _, l := range layouts {
		b.Run(l.name, func(b *testing.B) { benchmarkShare(b, l, false) })
	}
}

// BenchmarkWrite writes over a file likewise.
func BenchmarkWrite(b *testing.B) {
	for _, l := range layouts {
		b.Run(l.name, func(b *testing.B) { benchmarkShare(b, l, true) })
	}
}

func benchmarkShare(b *testing.B, l layout, write bool) {
	dir := b.TempDir()
	name := filepath.Join(dir, "f")
	if err := os.WriteFile(name, make([]byte, benchFile), 0o600); err != nil {
		b.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	at, buf := f.ReadAt, make([]byte, l.count)
	if write {
		at = f.WriteAt
	}
	g := newBenchGuest(b, dir, l, write)
	const turn = 64
	var plain, shared spent
	offset := func(i int) int64 { return int64(i * l.count % (benchFile - l.count)) }
	b.SetBytes(int64(l.count))
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += turn {
		n := min(turn, b.N-done)
		begin := spentUntilNow()
		g.run(b, n, func(i int) int64 { return offset(done + i) })
		shared.add(begin)
		b.StopTimer()
		begin = spentUntilNow()
		for i := range n {
			if _, err := at(buf, offset(done+i)); err != nil {
				b.Fatal(err)
			}
		}
		plain.add(begin)
		b.StartTimer()
	}
	b.ReportMetric(plain.time.Seconds()/shared.time.Seconds(), "of-plain")
	b.ReportMetric(plain.cpu.Seconds()/shared.cpu.Seconds(), "of-plain-by-processor-time")
}

// spent is time and processor time, of which only the second does not depend on
// what else the host does.
type spent struct{ time, cpu time.Duration }

func spentUntilNow() spent {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return spent{time.Duration(time.Now().UnixNano()), time.Duration(r.Utime.Nano() + r.Stime.Nano())}
}

// add adds what was spent since begin.
func (s *spent) add(begin spent) {
	now := spentUntilNow()
	s.time += now.time - begin.time
	s.cpu += now.cpu - begin.cpu
}

// benchGuest is a driver that has a file open and requests prepared.
type benchGuest struct {
	r     *virtiotest.Ring
	ready []*virtiotest.Request
	want  uint32 // bytes of an answer
}

func newBenchGuest(b *testing.B, dir string, l layout, write bool) *benchGuest {
	s, err := share.Open(dir, false)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	d := virtiotest.New(b, newDevice(b, s), virtiotest.Config{})
	d.Start(^uint64(0))
	r := d.Rings[0]
	r.Indirect = true // as Linux's driver: the queue itself has room for one request
	r.Align = pageSize
	do := func(m []byte) []byte { return r.Do(b, [][]byte{m}, 200) }
	do(message(100, 0xffff, append([]byte{0, 0, 16, 0, 8, 0}, "9P2000.L"...)...))
	do(message(104, 1, 9, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0))
	do(message(110, 1, 9, 0, 0, 0, 8, 0, 0, 0, 1, 0, 1, 0, 'f'))
	if got := do(message(12, 1, 8, 0, 0, 0, byte(p9.ReadWrite), 0, 0, 0)); got[4] != 13 {
		b.Fatalf("answer to Tlopen: %x", got)
	}
	body := binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint64([]byte{8, 0, 0, 0}, 0), uint32(l.count))
	g := &benchGuest{r: r, want: 11}
	for i := range benchDepth {
		if !write {
			g.want = 11 + uint32(l.count)
			g.ready = append(g.ready, r.Prepare([][]byte{message(116, uint16(i), body...)}, append([]int{11}, l.buffers()...)...))
			continue
		}
		head := message(118, uint16(i), body...)
		binary.LittleEndian.PutUint32(head, uint32(len(head)+l.count))
		out := [][]byte{head}
		for _, n := range l.buffers() {
			out = append(out, make([]byte, n))
		}
		g.ready = append(g.ready, r.Prepare(out, 11))
	}
	return g
}

// run does n requests, a few at a time as Linux has them.
func (g *benchGuest) run(b *testing.B, n int, offset func(int) int64) {
	sent := 0
	for done := 0; done < n; done++ {
		for ; sent < n && len(g.ready) > 0; sent++ {
			q := g.ready[len(g.ready)-1]
			g.ready = g.ready[:len(g.ready)-1]
			binary.LittleEndian.PutUint64(q.Out(0)[11:], uint64(offset(sent)))
			g.r.Submit(q)
		}
		g.r.Kick()
		q := g.r.Wait(b)
		if q.Written != g.want {
			b.Fatalf("the answer has %d bytes", q.Written)
		}
		g.ready = append(g.ready, q)
	}
}
