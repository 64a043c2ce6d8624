package net

import (
	"encoding/binary"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

// portBackend is a back end of one port.
type portBackend struct {
	Port
	offloads uint64
}

func (b portBackend) Offloads() uint64         { return b.offloads }
func (b portBackend) SetOffloads(uint64) error { return nil }
func (b portBackend) SetPairs(int) error       { return nil }
func (b portBackend) Ports() []Port            { return []Port{b.Port} }

// startBenchmark puts a driver before the back end.
func startBenchmark(b *testing.B, net Backend) *virtiotest.Driver {
	b.Helper()
	dev, err := New(Config{Backend: net, MAC: testMAC})
	if err != nil {
		b.Fatal(err)
	}
	d := virtiotest.New(b, dev, virtiotest.Config{Memory: 64 << 20})
	d.Start(ringFeatures | Offloads | FeatureMrgRxbuf)
	return d
}

// transmit sends b.N frames of n bytes, as many at a time as the ring holds.
func transmit(b *testing.B, r *virtiotest.Ring, h Header, n int) {
	frame := withHeader(h, ethernet(testMAC, n))
	ready := make([]*virtiotest.Request, 0, 128)
	for range cap(ready) {
		ready = append(ready, r.Prepare([][]byte{frame[:HeaderLen], frame[HeaderLen:]}))
	}
	r.NoInterrupt()
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; {
		for len(ready) > 0 && sent < b.N {
			r.Submit(ready[len(ready)-1])
			ready = ready[:len(ready)-1]
			sent++
		}
		r.Kick()
		ready = reap(b, r, ready)
	}
}

// reap waits for used requests and takes all of them.
func reap(b *testing.B, r *virtiotest.Ring, to []*virtiotest.Request) []*virtiotest.Request {
	q := r.Next()
	if q == nil {
		r.WantInterrupt(r.Size / 4)
		if q = r.Next(); q == nil {
			r.WantInterrupt(1)
			q = r.Wait(b)
		}
		r.NoInterrupt()
	}
	for ; q != nil; q = r.Next() {
		to = append(to, q)
	}
	return to
}

// receive takes b.N frames of n bytes.
func receive(b *testing.B, r *virtiotest.Ring, buffers, size, n int) {
	for range buffers {
		r.Submit(r.Prepare(nil, size))
	}
	r.NoInterrupt()
	r.Kick()
	var done []*virtiotest.Request
	b.SetBytes(int64(n))
	b.ReportAllocs()
	b.ResetTimer()
	for left := int64(b.N) * int64(n+HeaderLen); left > 0; {
		done = reap(b, r, done[:0])
		for _, q := range done {
			left -= int64(q.Written)
			r.Submit(q)
		}
		r.Kick()
	}
}

const (
	bigFrame   = 14 + 65521
	smallFrame = 64
)

var bigHeader = Header{Flags: HeaderNeedsCsum, CsumStart: 34, CsumOffset: 16, GSOType: GSOTCPv4, GSOSize: 1448, HdrLen: 54}

// BenchmarkSegments64KiB passes frames for segmentation between a driver and a
// packet socket.
func BenchmarkSegments64KiB(b *testing.B) {
	b.Run("from-guest", func(b *testing.B) {
		near, far := packetPair(b)
		d := startBenchmark(b, mustFilePort(b, near))
		var wg sync.WaitGroup
		wg.Go(func() { drain(far) })
		transmit(b, d.Rings[1], bigHeader, bigFrame)
		b.StopTimer()
		near.Close()
		far.Close()
		wg.Wait()
	})
	b.Run("to-guest", func(b *testing.B) {
		near, far := packetPair(b)
		d := startBenchmark(b, mustFilePort(b, near))
		frame := withHeader(bigHeader, ethernet(testMAC, bigFrame))
		go func() {
			for range b.N {
				if _, err := far.Write(frame); err != nil {
					return
				}
			}
		}()
		receive(b, d.Rings[0], 256, 4096, bigFrame)
	})
}

func mustFilePort(b *testing.B, f *os.File) portBackend {
	b.Helper()
	p, err := NewFilePort(f)
	if err != nil {
		b.Fatal(err)
	}
	return portBackend{p, Offloads}
}

func drain(r io.Reader) {
	buf := make([]byte, 1<<20)
	for {
		if _, err := r.Read(buf); err != nil {
			return
		}
	}
}

// BenchmarkPackets64B passes the smallest frames between a driver and a stream
// socket, which carries many to a system call.
func BenchmarkPackets64B(b *testing.B) {
	b.Run("from-guest", func(b *testing.B) {
		near, far := streamPair(b)
		d := startBenchmark(b, NewStream(near))
		go drain(far)
		transmit(b, d.Rings[1], Header{}, smallFrame)
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
	})
	b.Run("to-guest", func(b *testing.B) {
		near, far := streamPair(b)
		d := startBenchmark(b, NewStream(near))
		var many []byte
		for range 512 {
			many = append(binary.BigEndian.AppendUint32(many, smallFrame), ethernet(testMAC, smallFrame)...)
		}
		go func() {
			for sent := 0; sent < b.N; sent += 512 {
				if _, err := far.Write(many); err != nil {
					return
				}
			}
		}()
		receive(b, d.Rings[0], 256, 128, smallFrame)
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
	})
}
