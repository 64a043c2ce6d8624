package disk

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/blk"
	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

const (
	benchDepth = 32
	benchSize  = 64 << 20
)

// Compare with -cpu 1: driver and device then take turns on one thread, the
// driver's work is in the figure, and other load on the machine disturbs both
// sides alike. The aim is that BenchmarkDevice does 90 % of BenchmarkBare.

// benchCases are the ways to read that are compared: each once by a bare loop
// over the back end and once by a driver through the device.
var benchCases = []struct {
	name   string
	memory bool
	bytes  int
	o      Options
}{
	{"tmpfs-4k", true, 4 << 10, Options{}},
	{"tmpfs-64k", true, 64 << 10, Options{}},
	{"cached-4k", false, 4 << 10, Options{}},
	{"cached-4k-pool", false, 4 << 10, Options{Engine: EnginePool}},
	{"direct-4k", false, 4 << 10, Options{Direct: true}},
	{"direct-4k-pool", false, 4 << 10, Options{Direct: true, Engine: EnginePool}},
}

func benchDisk(b *testing.B, memory bool, o Options) blk.Backend {
	b.Helper()
	dir := b.TempDir()
	if memory {
		dir = memoryDir(b)
	}
	o.Path = newFile(b, dir, benchSize)
	w := mustOpen(b, Options{Path: o.Path})
	blktestFill(b, w)
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	d := mustOpen(b, o)
	b.Cleanup(func() { _ = d.Close() })
	return d
}

func blktestFill(b *testing.B, d blk.Backend) {
	ch := make(chan error, 1)
	c, err := d.Open(context.Background(), 1, func(rs []*blk.Request) { ch <- rs[0].Err })
	if err != nil {
		b.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i)
	}
	for off := int64(0); off < benchSize; off += int64(len(chunk)) {
		c.Submit(&blk.Request{Op: blk.OpWrite, Offset: off, Length: int64(len(chunk)), Vec: [][]byte{chunk}})
		c.Kick()
		if err := <-ch; err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBare reads at depth 32 with nothing around the back end: what a
// program does that has no guest.
func BenchmarkBare(b *testing.B) {
	for _, bc := range benchCases {
		b.Run(bc.name, func(b *testing.B) {
			d := benchDisk(b, bc.memory, bc.o)
			mem := virtiotest.Memory(b, 16<<20)
			done := make(chan *blk.Request, benchDepth)
			c, err := d.Open(context.Background(), benchDepth, func(rs []*blk.Request) {
				for _, r := range rs {
					done <- r
				}
			})
			if err != nil {
				b.Fatal(err)
			}
			reqs := make([]blk.Request, benchDepth)
			data, err := mem.WritableBytes(1<<20, uint64(benchDepth*bc.bytes))
			if err != nil {
				b.Fatal(err)
			}
			rnd := rand.New(rand.NewPCG(1, 2))
			next := func(r *blk.Request) {
				r.Offset = rnd.Int64N(benchSize/int64(bc.bytes)) * int64(bc.bytes)
				c.Submit(r)
			}
			b.SetBytes(int64(bc.bytes))
			b.ReportAllocs()
			b.ResetTimer()
			for i := range reqs {
				p := data[i*bc.bytes:][:bc.bytes]
				reqs[i] = blk.Request{Op: blk.OpRead, Length: int64(bc.bytes), Vec: [][]byte{p}}
				next(&reqs[i])
			}
			c.Kick()
			for n := 0; n < b.N; {
				for r := <-done; r != nil && n < b.N; n++ {
					if r.Err != nil {
						b.Fatal(r.Err)
					}
					next(r)
					select {
					case r = <-done:
					default:
						r = nil
					}
				}
				c.Kick()
			}
			b.StopTimer()
			go func() {
				for range done {
				}
			}()
			_ = c.Close()
		})
	}
}

// BenchmarkDevice does the same reads as a guest's driver, through a
// virtqueue.
func BenchmarkDevice(b *testing.B) {
	for _, bc := range benchCases {
		b.Run(bc.name, func(b *testing.B) {
			dev, err := blk.New(benchDisk(b, bc.memory, bc.o), blk.Options{})
			if err != nil {
				b.Fatal(err)
			}
			drv := virtiotest.New(b, dev, virtiotest.Config{})
			drv.Start(^uint64(0))
			r := drv.Rings[0]
			rnd := rand.New(rand.NewPCG(1, 2))
			submit := func(q *virtiotest.Request) {
				sector := rnd.Int64N(benchSize/int64(bc.bytes)) * int64(bc.bytes) / blk.SectorSize
				binary.LittleEndian.PutUint64(q.Out(0)[8:], uint64(sector))
				r.Submit(q)
			}
			b.SetBytes(int64(bc.bytes))
			b.ReportAllocs()
			b.ResetTimer()
			for range benchDepth {
				// The header ends where a page begins, for O_DIRECT.
				r.Arena.Alloc(8192-16-uint64(r.Arena.Alloc(1, 1))%4096-1, 1)
				submit(r.Prepare([][]byte{make([]byte, 16)}, bc.bytes, 1))
			}
			r.Kick()
			for n := 0; n < b.N; n++ {
				q := next(b, r, !bc.o.Direct)
				submit(q)
				r.Kick()
			}
		})
	}
}

// next waits for a request that is done. Where all data is in memory it polls,
// as a busy driver does: what waking it costs is not the device's. The kick is
// after the request, so that the device may go to sleep between two.
func next(b *testing.B, r *virtiotest.Ring, poll bool) *virtiotest.Request {
	if !poll {
		if q := r.Next(); q != nil {
			return q
		}
		return r.Wait(b)
	}
	r.NoInterrupt()
	for {
		if q := r.Next(); q != nil {
			return q
		}
		runtime.Gosched()
	}
}
