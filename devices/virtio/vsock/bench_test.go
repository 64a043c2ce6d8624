package vsock

import (
	"io"
	"testing"

	"github.com/vitrine-vmm/vitrine/devices/virtio/virtiotest"
)

// BenchmarkFromGuest is one stream from a driver to a reader on the host, in
// packets of the size that Linux's driver sends.
func BenchmarkFromGuest(b *testing.B) {
	const piece = 64 << 10
	dev := mustNew(b, Config{QueueSize: 128})
	l, err := dev.Listen(5)
	if err != nil {
		b.Fatal(err)
	}
	g := newGuest(b, dev, 32, 4096)
	g.send(header{srcPort: 1, dstPort: 5, op: opRequest}, nil)
	g.want(opResponse)
	c, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	var raw [headerLen]byte
	h := header{srcCID: testCID, dstCID: HostCID, srcPort: 1, dstPort: 5, typ: typeStream, op: opRW, len: piece, bufAlloc: 1 << 20}
	h.encode(&raw)
	tx, rx := g.ring(queueTx), g.ring(queueRx)
	ready := make([]*virtiotest.Request, 0, 4)
	for range 4 {
		ready = append(ready, tx.Prepare([][]byte{raw[:], make([]byte, piece)}))
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, struct{ io.Reader }{c}, int64(b.N)*piece)
		done <- err
	}()
	b.SetBytes(piece)
	b.ReportAllocs()
	b.ResetTimer()
	var credit int64 = bufAlloc
	for range b.N {
		for credit < piece { // what the host has read gives it back
			q := rx.Wait(b)
			h, _ := parse(b, q)
			credit += int64(h.fwdCnt - g.fwd) // since last told
			g.fwd = h.fwdCnt
			rx.Submit(q)
			rx.Kick()
		}
		if len(ready) == 0 {
			ready = append(ready, tx.Wait(b))
		}
		q := ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		tx.Submit(q)
		tx.Kick()
		credit -= piece
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	reportRate(b, piece)
}

// reportRate tells what a network's speed is told in.
func reportRate(b *testing.B, piece int64) {
	b.ReportMetric(float64(b.N)*float64(piece)*8/1e9/b.Elapsed().Seconds(), "Gbit/s")
}

// BenchmarkToGuest is one stream from a writer on the host to a driver with
// receive buffers of the given size.
func BenchmarkToGuest(b *testing.B) {
	for name, size := range map[string]int{"4KiB": 4096, "64KiB": headerLen + 64<<10} {
		b.Run(name, func(b *testing.B) { benchmarkToGuest(b, size) })
	}
}

func benchmarkToGuest(b *testing.B, size int) {
	const piece = 64 << 10
	g := newGuest(b, mustNew(b, Config{QueueSize: 128}), 64, size)
	done := dialLater(g.dev, 1)
	first, _ := g.want(opRequest)
	g.send(header{srcPort: 1, dstPort: first.srcPort, op: opResponse, bufAlloc: 1 << 20}, nil)
	d := <-done
	if d.err != nil {
		b.Fatal(d.err)
	}
	go func() {
		buf := make([]byte, piece)
		for range b.N {
			if _, err := d.c.Write(buf); err != nil {
				return
			}
		}
	}()
	var raw [headerLen]byte
	rx, tx := g.ring(queueRx), g.ring(queueTx)
	update := tx.Prepare([][]byte{raw[:]})
	h := header{srcCID: testCID, dstCID: HostCID, srcPort: 1, dstPort: first.srcPort, typ: typeStream, op: opCreditUpdate, bufAlloc: 1 << 20}
	b.SetBytes(piece)
	b.ReportAllocs()
	b.ResetTimer()
	told := uint32(0)
	for left := int64(b.N) * piece; left > 0; {
		q := rx.Wait(b)
		n := q.Written - headerLen
		left -= int64(n)
		h.fwdCnt += n
		rx.Submit(q)
		rx.Kick()
		if h.fwdCnt-told >= 256<<10 {
			told = h.fwdCnt
			h.encode((*[headerLen]byte)(update.Out(0)))
			tx.Submit(update)
			tx.Kick()
			tx.Wait(b)
		}
	}
	reportRate(b, piece)
}
